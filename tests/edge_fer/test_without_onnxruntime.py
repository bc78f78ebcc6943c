"""What runs where ONNX Runtime is not installed: a TFLite bundle, and one plain line for all else.

`.ci/check_install.py` has these tests run the installed wheel in an environment that never had it, by naming
that environment's interpreter; otherwise this interpreter runs the checkout with the package blocked.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_fer.bundle import ModelSpec, write_bundle
from tests.conftest import MODELS

ROOT = Path(__file__).parents[2]
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
INSTALLED = os.environ.get("EDGE_FER_WITHOUT_ONNXRUNTIME")

pytestmark = pytest.mark.skipif(
    not INSTALLED and importlib.util.find_spec("ai_edge_litert") is None,
    reason="ai-edge-litert is not installed",
)


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command without ONNX Runtime, in an environment of its own or with the package blocked."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if not INSTALLED:
        blocked = folder / "blocked" / "onnxruntime.py"
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_text("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")")
        environment["PYTHONPATH"] = os.pathsep.join([str(blocked.parent), str(ROOT)])
    return subprocess.run(
        [INSTALLED or sys.executable, "-m", "edge_fer", *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def bundle(tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]) -> Path:
    members = {name: content for name, content in tiny_members.items() if name != "model.onnx"}
    spec = dataclasses.replace(tiny_spec, target="tflite", engine="tflite")
    graph = (MODELS / "tiny.tflite").read_bytes()
    return write_bundle(tmp_path / "tiny.fer", spec, {**members, "model.tflite": graph}).path


def test_a_tflite_bundle_runs(tmp_path: Path, bundle: Path) -> None:
    done = run(tmp_path, "infer", ASTRONAUT, "--bundle", bundle, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (face,) = json.loads(done.stdout)["faces"]
    assert abs(sum(face["probabilities"].values()) - 1) < 1e-5
    done = run(tmp_path, "self-test", bundle)
    assert done.returncode == 0 and "verdict: passed" in done.stderr


@pytest.mark.parametrize("arguments", [("infer", ASTRONAUT), ("self-test",), ("bench",)])
def test_the_embedded_bundle_says_what_it_needs(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the engine onnxruntime does not import (No module named 'onnxruntime'), "
        "and the embedded bundle needs it: install it with `pip install onnxruntime`, "
        "or name a bundle of another engine (`edge-fer doctor` shows which are here)\n"
    )


def test_doctor_knows_the_difference(tmp_path: Path, bundle: Path) -> None:
    done = run(tmp_path, "doctor", bundle, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["bundles"][0]["engine"] == "tflite" and record["bundles"][0]["fault"] is None
    assert "pip install onnxruntime" in [advice["command"] for advice in record["advice"]]
    done = run(tmp_path, "doctor")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: the embedded bundle does not run: the engine onnxruntime does not import"
    )


def test_what_needs_no_engine_works(tmp_path: Path) -> None:
    for arguments in (["--help"], ["--version"], ["info"], ["parity", "--help"]):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
