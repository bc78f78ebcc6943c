"""The model card in a bundle, and the threshold below which `auto` gives no label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_fer.bundle import Bundle
from edge_fer.errors import InputError
from edge_fer.faces import read_data
from edge_fer.samples import Reference
from export.card import MAX_BYTES, read_card
from export.data import load_parity_set
from export.measure import ParitySet
from export.source import read_source
from export.workshop import LEAST_FACES, min_reliability

from .conftest import Command

CARD = "# Model card\n\nWhat it is: naïve.\n"


def test_a_bundle_has_the_card_and_a_threshold(
    command: Command, checkpoint: Path, valid_faces: Path, tmp_path: Path
) -> None:
    card, path = tmp_path / "any name.md", tmp_path / "x.fer"
    card.write_text(CARD, encoding="utf-8")
    done = command(
        *("export", checkpoint, "--target", "onnx", "--output", path, "--golden", "synthetic"),
        *("--parity-data", valid_faces, "--card", card),
    )
    assert done.code == 0, done.errors
    bundle = Bundle.load(path)
    assert bundle.member("model-card.md").decode() == CARD
    reference = bundle.reference()
    threshold = bundle.spec.min_reliability
    assert reference is not None and threshold is not None
    assert 0.8 <= (reference.reliability >= threshold).mean() < 0.82
    shown = command("info", path)
    assert shown.code == 0 and any("model-card.md" in line for line in shown.errors)
    (path / "model-card.md").write_text(CARD + "It is always right.\n", encoding="utf-8")
    refused = command("info", path)
    assert refused.code == 1 and "model-card.md" in refused.errors[0]


def test_a_card_that_is_none_is_refused_before_any_work(
    command: Command, checkpoint: Path, tmp_path: Path
) -> None:
    done = command(
        "export", checkpoint, "--target", "onnx", "--output", tmp_path / "x.fer", "--card", tmp_path / "none"
    )
    assert done.code == 1 and len(done.errors) == 1 and "expected a readable model card" in done.errors[0]
    assert not (tmp_path / "x.fer").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b" \n\t", "got an empty file"),
        (b"\xff\xfe\x00", "expected a model card in UTF-8"),
        (b"x" * (MAX_BYTES + 1), "bytes, got more"),
    ],
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "card").write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read_card(tmp_path / "card")
    assert "\n" not in str(error.value)


def test_the_longest_card_is_taken(tmp_path: Path) -> None:
    (tmp_path / "card").write_bytes(b"x" * MAX_BYTES)
    assert read_card(tmp_path / "card") == b"x" * MAX_BYTES


@pytest.fixture(scope="module")
def parity(checkpoint: Path, valid_faces: Path) -> ParitySet:
    found = load_parity_set(read_data(str(valid_faces)), read_source(str(checkpoint)))
    assert found is not None
    return found


def with_reliability(parity: ParitySet, values: np.ndarray) -> ParitySet:
    """Return a parity set of as many faces as values, with these reliabilities."""
    rows = np.arange(len(values)) % len(parity.crops)
    reference: Reference = replace(parity.reference.rows(rows), reliability=values.astype(np.float32))
    return replace(parity, crops=parity.crops[rows], reference=reference)


def test_four_of_five_faces_are_kept_whatever_their_order(parity: ParitySet, checkpoint: Path) -> None:
    source = read_source(str(checkpoint))
    values = np.random.default_rng(0).permutation(1000) / 1000 + 0.00007
    # 0.200 to 0.999 are the 800 surest; the least of them, 0.20007, is rounded down
    assert min_reliability(source, with_reliability(parity, values)) == 0.2000
    assert min_reliability(source, with_reliability(parity, values[: LEAST_FACES - 1])) is None
    assert min_reliability(source, None) is None
    assert min_reliability(replace(source, sha256=None), with_reliability(parity, values)) is None
