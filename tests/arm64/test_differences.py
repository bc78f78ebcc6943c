"""How far emulated answers lie from this machine's, as docs/arm64.md tells it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.bundle import Reference
from edge_fer.images import encode_png
from tests.arm64.differences import HARDEST, Asked, main, row


def test_an_emulated_processor_answers_the_golden_samples_alike(
    folder: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder), str(tiny_bundle), "--cpu", "cortex-a76"])
    *_, line = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:2] == [tiny_bundle.stem, "cortex-a76"] and cells[2] == cells[3]
    assert cells[2].startswith("0 of ") and float(cells[4]) < 1e-6


def test_faces_that_the_reference_does_not_have_are_refused(
    folder: Path, tiny_bundle: Path, tiny_faces: NDArray[np.uint8], tiny_reference: Reference, tmp_path: Path
) -> None:
    faces = tmp_path / "faces" / "neutral"
    faces.mkdir(parents=True)
    (faces / "one.png").write_bytes(encode_png(tiny_faces[0]))
    assert len(tiny_reference.hashes) <= HARDEST  # so all of them are asked
    with pytest.raises(SystemExit, match=f"{len(tiny_reference.hashes) - 1} are not there"):
        main([str(folder), str(tiny_bundle), "--data", str(tmp_path / "faces")])


def test_a_line_counts_labels_with_and_without_the_hardest() -> None:
    checkpoint = np.array([[0.9, 0.1], [0.51, 0.49], [0.2, 0.8]], np.float32)
    here = np.array([[0.9, 0.1], [0.49, 0.51], [0.2, 0.8]], np.float32)
    there = np.array([[0.8, 0.2], [0.52, 0.48], [0.2, 0.8]], np.float32)
    asked = Asked(np.zeros((3, 4, 4, 3), np.uint8), checkpoint, np.array([False, True, False]))
    assert row("b", "haswell", asked, here, there) == (
        "| b | haswell | 1 of 3 | 0 of 2 | 0.1 | 1 of 3, 0 of 3 |"
    )
