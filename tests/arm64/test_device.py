"""The wheel on emulated processors: its commands and its engines do what they do on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from edge_fer.parity.environment import environment
from tests.arm64.conftest import ROOT, Jobs
from tests.arm64.emulation import CPUS, Cpu
from tests.conftest import json_lines, run_command

BOX_PIXELS = 2
every_cpu = pytest.mark.parametrize("cpu", CPUS, ids=lambda cpu: cpu.name)
# As numpy names what the classes of processors are told by.
CLASS_FEATURES = {
    "cortex-a72": ({"ASIMD"}, {"ASIMDDP"}),
    "cortex-a76": ({"ASIMD", "ASIMDDP"}, {"ASIMDFHM"}),
    "haswell": ({"AVX2", "FMA3", "F16C"}, {"AVX512F", "AVX512_SKX", "X86_V4"}),
}


def one_line(jobs: Jobs, name: str, cpu: Cpu) -> Mapping[str, Any]:
    """Return the one JSON object that a command printed."""
    done = jobs.result(name, cpu)
    assert done.returncode == 0, done.stderr[-2000:]
    [line] = done.stdout.splitlines()
    loaded: Mapping[str, Any] = json.loads(line)
    return loaded


@every_cpu
def test_the_self_test_passes_and_says_where(jobs: Jobs, cpu: Cpu) -> None:
    record = one_line(jobs, "self-test", cpu)
    verdicts = {check["name"]: check["verdict"] for check in record["checks"]}
    # An emulator says nothing of speed.
    assert verdicts == {"pixels": "passed", "outputs": "passed", "labels": "passed", "latency": "not run"}
    made_on = record["environment"]
    assert made_on["cpu_class"] == cpu.cpu_class
    assert re.fullmatch(rf"qemu-user [0-9.]+, {cpu.name}", made_on["emulated"])
    assert environment()["emulated"] is None


@every_cpu
def test_the_processor_is_what_its_system_says(jobs: Jobs, cpu: Cpu) -> None:
    done = jobs.result("features", cpu)
    there, absent = CLASS_FEATURES[cpu.name]
    features = set(json.loads(done.stdout))
    assert there <= features and not absent & features


@every_cpu
def test_the_demo_photo_gives_the_same_faces(jobs: Jobs, cpu: Cpu) -> None:
    here = json_lines(run_command("infer", ROOT / "examples" / "astronaut.jpg", "--json"))[0]["faces"]
    there = one_line(jobs, "infer", cpu)["faces"]
    assert len(here) == len(there) == 1
    for ours, theirs in zip(here, there, strict=True):
        assert max(abs(a - b) for a, b in zip(ours["box"], theirs["box"], strict=True)) <= BOX_PIXELS
        assert ours["label"] == theirs["label"] == "happiness"


@every_cpu
def test_the_engine_tests_pass(jobs: Jobs, cpu: Cpu) -> None:
    done = jobs.result("engines", cpu)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    skipped = re.findall(r"^SKIPPED.*", done.stdout, re.MULTILINE)
    allowed = ("no bfloat16", "'onnx'")
    assert not [line for line in skipped if not line.endswith(allowed)]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) > 100
