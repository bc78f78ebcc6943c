"""The runtime works where torch, onnx and nncf cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_fer.images import write_image
from tests.conftest import pattern

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("torch", "onnx", "nncf", "training", "export", "calibrate")
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({FORBIDDEN})); "


def run_without(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    code = BLOCK + "from edge_fer.commands import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_infer_runs_without_the_stages(tmp_path: Path, tiny_bundle: Path) -> None:
    write_image(tmp_path / "face.png", pattern(5, 50, 50))
    done = run_without(
        ["infer", str(tmp_path / "face.png"), "--bundle", str(tiny_bundle), "--no-detect", "--json"]
    )
    assert (done.returncode, done.stderr) == (0, "")
    (face,) = json.loads(done.stdout)["faces"]
    assert abs(sum(face["probabilities"].values()) - 1) < 1e-5


def test_the_detector_and_the_other_commands_run_without_the_stages(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    write_image(tmp_path / "blank.png", pattern(6, 80, 80))
    for arguments in (
        [
            "infer",
            str(tmp_path / "blank.png"),
            "--bundle",
            str(tiny_bundle),
            "--output",
            str(tmp_path / "out"),
        ],
        ["info", str(tiny_bundle)],
        ["parity", str(tiny_bundle)],
        ["self-test", str(tiny_bundle)],
    ):
        done = run_without(arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_the_block_is_real() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + "import torch"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("module", ["edge_fer.engines.onnxruntime", "calibrate.onnx"])
def test_the_engine_reports_to_nobody(module: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """ONNX Runtime's telemetry leaves a session file where it may write; none means it never started."""
    if module == "calibrate.onnx":
        pytest.importorskip("onnx")
    code = f"import {module}, edge_fer; edge_fer.Recognizer.load({str(tiny_bundle)!r})"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=ROOT)
    assert list(tmp_path.glob(".ses*")) == []
