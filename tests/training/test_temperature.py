"""Calibrating a checkpoint afterwards: against SciPy, the weights untouched, bad input in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from edge_fer.preprocess import CropSpec
from training.data.faces import load_faces
from training.evaluation import normalise
from training.models import build, calibrated
from training.models.checkpoint import load_checkpoint, save_checkpoint
from training.temperature import main

CROP = CropSpec(size=32, margin=0.0)
INFO = {"epoch": 3, "validation": {"accuracy": 0.5}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint that has a temperature already, of other faces."""
    network = build("grefel-lite", classes=3, input_size=32)
    network(torch.randn(8, 3, 32, 32))
    save_checkpoint(tmp_path / "old.safetensors", calibrated(network, 1.7), CROP, INFO)
    return tmp_path / "old.safetensors"


def test_the_temperature_is_the_one_of_least_nll(
    checkpoint: Path, noise_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, valid = tmp_path / "new.safetensors", str(noise_data / "valid")
    main(checkpoint=checkpoint, data=valid, output=new)
    old, written = load_checkpoint(checkpoint), load_checkpoint(new)
    faces = load_faces(valid, CROP, 3)
    plain = calibrated(old.network, 1.0)
    with torch.inference_mode():
        logs = np.log(plain(normalise(faces.crops, plain)).probabilities.double().numpy())

    def nll(log_temperature: float) -> float:
        powered = np.exp(logs / np.exp(log_temperature))
        powered /= powered.sum(axis=1, keepdims=True)
        return float(-np.log(powered[np.arange(len(logs)), faces.labels.numpy()]).mean())

    best = np.exp(minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10}).x)
    assert written.network.spec.temperature == pytest.approx(best, rel=1e-4)
    said = capsys.readouterr()
    assert said.out == f"{new}\n"
    assert float(said.err.split()[2].rstrip(":")) == pytest.approx(best, abs=1e-3)
    assert written.info["validation"]["nll"] == pytest.approx(nll(np.log(best)), rel=1e-4)  # type: ignore[index]


def test_nothing_but_the_temperature_changes(checkpoint: Path, noise_data: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.safetensors"
    main(checkpoint=checkpoint, data=str(noise_data / "valid"), output=new)
    old, written = load_checkpoint(checkpoint), load_checkpoint(new)
    assert written.network.state_dict().keys() == old.network.state_dict().keys()
    for name, tensor in old.network.state_dict().items():
        assert torch.equal(written.network.state_dict()[name], tensor), name
    before, after = old.network.spec.to_json(), written.network.spec.to_json()
    assert {name for name in before if before[name] != after[name]} == {"temperature"}
    assert written.crop == old.crop
    assert written.info["epoch"] == 3 and written.info["calibrated_from"] == old.sha256


def test_no_file_is_replaced_and_no_broken_weights_are_calibrated(
    checkpoint: Path, noise_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = load_checkpoint(checkpoint).network
    next(network.parameters()).data[0] = torch.nan
    broken = tmp_path / "broken.safetensors"
    save_checkpoint(broken, network, CROP, INFO)
    before = {path: path.read_bytes() for path in (checkpoint, broken)}
    new = tmp_path / "new.safetensors"
    for given, output, reason in (
        (checkpoint, checkpoint, "expected a name that is not taken"),
        (checkpoint, broken, "expected a name that is not taken"),
        (checkpoint, Path(), "expected a name that is not taken"),
        (broken, new, "no numbers for 18 of 18 faces"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(checkpoint=given, data=str(noise_data / "valid"), output=output)
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 1 and line.startswith("error: ") and reason in line
    assert {path: path.read_bytes() for path in before} == before and not new.exists()


def test_bad_input_is_one_line(
    checkpoint: Path, noise_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.safetensors"
    missing, data = tmp_path / "missing", str(noise_data / "valid")
    for given, faces in ((missing, data), (checkpoint, str(missing))):
        with pytest.raises(SystemExit) as ended:
            main(checkpoint=given, data=faces, output=new)
        said = capsys.readouterr()
        assert ended.value.code == 1 and said.out == ""
        assert said.err.startswith(f"error: {missing}") and said.err.count("\n") == 1
    assert not new.exists()
