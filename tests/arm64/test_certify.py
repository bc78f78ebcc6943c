"""A certificate from an emulated processor: a whole report, which says that it was emulated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.bundle import Reference
from edge_fer.images import encode_png
from edge_fer.labels import LABELS
from edge_fer.parity.certificate import read_reports
from edge_fer.parity.documents import emulated_of, place_of
from tests.arm64.certify import main


def test_a_certificate_is_made_and_answers_are_compared(
    folder: Path,
    tiny_bundle: Path,
    tiny_faces: NDArray[np.uint8],
    tiny_reference: Reference,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, (face, label) in enumerate(zip(tiny_faces, tiny_reference.labels, strict=True)):
        if label >= 0:
            place = tmp_path / "faces" / LABELS[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(encode_png(face))
    output = tmp_path / "reports"
    arguments = [folder, tiny_bundle, "--data", tmp_path / "faces", "--output", output]
    code = main([*map(str, arguments), "--cpu", "cortex-a76"])
    # Eleven faces decide nothing.
    assert code == 0
    [report] = read_reports(output / "cortex-a76" / "parity.json")
    assert (report["verdict"], report["faces"]) == ("undecided", 11)
    assert place_of(report) == "aarch64 dotprod (emulated)"
    assert str(emulated_of(report)).endswith(", cortex-a76")
    assert report["reference"] == json.loads((output / "here" / "parity.json").read_text())["reference"]
    answers = np.load(output / "cortex-a76" / "probabilities.npy")
    np.testing.assert_allclose(answers, np.load(output / "here" / "probabilities.npy"), atol=1e-6)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "| 0 of 11 (0.00%) |" in lines[-1]


def test_a_folder_that_is_not_set_up_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "b.fer", "--data", "faces", "--output", str(tmp_path / "out")])
    assert "is not complete: python -m tests.arm64.setup" in capsys.readouterr().err
