"""The same crops on emulated processors: probabilities within 1e-5 in fp32 on all engines, labels in int8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_fer
from edge_fer.bundle import Bundle
from tests.arm64.answers_guest import answers
from tests.arm64.conftest import ROOT, Jobs
from tests.arm64.emulation import CPUS, Cpu

FLOAT_TOLERANCE = 1e-5
TARGETS = ("onnx", "openvino", "tflite")
EMBEDDED = Path(edge_fer.__file__).parent / "bundles" / "grefel-lite.fer"
# Of the 16 golden samples: faces, drawn patterns, and the one that int8 finds hardest.
SAMPLES = [0, 3, 7, 10, 14, 15]

Answers = dict[str, NDArray[np.float32]]

EXPORT = """
import sys
from typer.testing import CliRunner
import cli
for target in {targets}:
    arguments = ["export", "--target", target, "--golden", "synthetic", "--output", target + ".fer"]
    done = CliRunner().invoke(cli.app, arguments)
    if done.exit_code:
        sys.exit(done.output)
"""


@pytest.fixture(scope="session")
def bundles(jobs: Jobs, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Export the committed checkpoint as fp32 for every engine; the embedded int8 bundle comes last."""
    pytest.importorskip("torch", reason="torch, which exports the float bundles, is not here")
    place = tmp_path_factory.mktemp("fp32")
    command = [sys.executable, "-c", EXPORT.format(targets=TARGETS)]
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [*(place / f"{target}.fer" for target in TARGETS), EMBEDDED]


@pytest.fixture(scope="session")
def crops() -> NDArray[np.uint8]:
    golden = Bundle.load(EMBEDDED).golden()
    assert golden is not None
    return golden.crops[SAMPLES]


@pytest.fixture(scope="session")
def here(bundles: list[Path], crops: NDArray[np.uint8]) -> Answers:
    return answers(bundles, crops)


@pytest.fixture(scope="session")
def there(jobs: Jobs, bundles: list[Path], crops: NDArray[np.uint8]) -> Jobs:
    """Start the same on every processor."""
    np.save(jobs.place / "crops.npy", crops)
    script = Path(__file__).with_name("answers_guest.py")
    for cpu in CPUS:
        jobs.start("answers", cpu, script, f"{cpu.name}.npz", "crops.npy", *bundles)
    return jobs


@pytest.mark.parametrize("cpu", CPUS, ids=lambda cpu: cpu.name)
def test_answers_are_the_same(there: Jobs, here: Answers, cpu: Cpu) -> None:
    done = there.result("answers", cpu)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(there.place / f"{cpu.name}.npz")
    golden = Bundle.load(EMBEDDED).golden()
    assert golden is not None and set(found) == {*TARGETS, EMBEDDED.stem} == set(here)
    for target in TARGETS:
        np.testing.assert_allclose(found[target], here[target], rtol=0, atol=FLOAT_TOLERANCE)
        # and what PyTorch answered, which no engine's agreement with itself proves
        np.testing.assert_allclose(found[target], golden.probabilities[SAMPLES], rtol=0, atol=FLOAT_TOLERANCE)
    int8 = EMBEDDED.stem
    np.testing.assert_array_equal(found[int8].argmax(axis=1), here[int8].argmax(axis=1))
