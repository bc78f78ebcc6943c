"""`export --embedding`: a fourth output on every target, float and int8, and in the reference outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.engines import load_engine
from edge_fer.errors import BundleError
from edge_fer.faces import face_hash, load_crops, read_data
from edge_fer.preprocess import CropSpec
from edge_fer.samples import Reference, read_reference
from edge_fer.spec import OUTPUTS
from export.reference import TorchAnswers
from training.models import ExpressionNetwork

from .conftest import PACKAGES, SIZE, TARGETS, Command

NAMES = (*OUTPUTS, "embedding")


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows (N, D)."""
    return np.einsum("nd,nd->n", a, b, dtype=float) / (
        np.linalg.norm(a.astype(float), axis=1) * np.linalg.norm(b.astype(float), axis=1)
    )


@pytest.fixture
def crops(valid_faces: Path) -> NDArray[np.uint8]:
    return load_crops(read_data(str(valid_faces)), CropSpec(size=SIZE, margin=0.0))


@pytest.fixture
def export(tmp_path: Path, command: Command, checkpoint: Path, valid_faces: Path) -> Callable[..., Bundle]:
    """Export the small checkpoint with these arguments too, compared on the faces of `valid_faces`."""

    def run(*arguments: object) -> Bundle:
        path = tmp_path / "x.fer"
        done = command("export", checkpoint, "--parity-data", valid_faces, *arguments, "--output", path)
        assert done.code == 0, done.errors
        return Bundle.load(path)

    return run


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_embedding_is_an_output(
    target: str,
    precision: str,
    export: Callable[..., Bundle],
    small: ExpressionNetwork,
    crops: NDArray[np.uint8],
    train_faces: Path,
) -> None:
    for package in PACKAGES[target]:
        pytest.importorskip(package)
    calibration = ["--calibration-data", train_faces, "--samples", 100] if precision == "int8" else []
    bundle = export("--target", target, "--precision", precision, "--embedding", *calibration)
    assert bundle.spec.outputs == NAMES
    expected, got = TorchAnswers(small)(crops), load_engine(bundle).run(crops)
    assert expected.embedding is not None and got.embedding is not None
    assert got.embedding.shape == expected.embedding.shape == (len(crops), 160)
    near = cosine(got.embedding, expected.embedding)
    if precision == "fp32":
        np.testing.assert_allclose(got.embedding, expected.embedding, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(got.probabilities, expected.probabilities, rtol=0, atol=1e-4)
    else:
        assert 0.98 < near.min() <= near.max() < 1 - 1e-9
        assert bundle.spec.quantised_ops
    # And in the reference outputs, row by row that of the face.
    reference = bundle.reference()
    assert reference is not None and reference.embedding is not None
    rows = [reference.hashes.tolist().index(face_hash(crop)) for crop in crops]
    np.testing.assert_array_equal(reference.rows(np.array(rows)).embedding, expected.embedding)


def test_nobody_who_does_not_ask_gets_one(export: Callable[..., Bundle]) -> None:
    bundle = export("--target", "onnx")
    reference = bundle.reference()
    assert bundle.spec.outputs == OUTPUTS and reference is not None and reference.embedding is None


def test_reference_outputs_alone_may_hold_it(
    tmp_path: Path, command: Command, checkpoint: Path, valid_faces: Path
) -> None:
    arguments = ["--reference-only", "--parity-data", valid_faces, "--target", "onnx"]
    for more in ([], ["--embedding"]):
        path = tmp_path / f"{len(more)}.npz"
        assert command("export", checkpoint, *arguments, *more, "--output", path).code == 0
        assert (read_reference(path).embedding is not None) == bool(more)


@pytest.fixture
def reference() -> Reference:
    """Three faces, two classes, embeddings of four numbers."""
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(2), 3).astype(np.float32)
    return Reference(
        labels=np.array([0, 1, -1], np.int16),
        hashes=np.array([f"{row:064x}" for row in range(3)]),
        probabilities=probabilities,
        primary=probabilities[::-1].copy(),
        reliability=np.array([0.1, 0.2, 0.3], np.float32),
        name="made up",
        names=("calm", "glad"),
        embedding=generator.normal(size=(3, 4)).astype(np.float32),
    )


def test_it_comes_back_from_its_bytes(reference: Reference) -> None:
    data = reference.to_bytes()
    again = Reference.from_bytes(data)
    np.testing.assert_array_equal(again.embedding, reference.embedding)
    assert again.to_bytes() == data
    without = replace(reference, embedding=None)
    assert Reference.from_bytes(without.to_bytes()).embedding is None


def test_rows_are_taken_from_every_array(reference: Reference) -> None:
    taken = reference.rows(np.array([2, 0]))
    assert taken.embedding is not None and reference.embedding is not None
    for name in ("labels", "hashes", "probabilities", "primary", "reliability", "embedding"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(reference, name)[[2, 0]])
    assert (taken.name, taken.names) == ("made up", ("calm", "glad"))
    assert replace(reference, embedding=None).rows(np.array([1])).embedding is None


@pytest.mark.parametrize(
    ("embedding", "said"),
    [
        (np.zeros((2, 4), np.float32), r"`embedding` must be float32 \(3, D\)"),
        (np.zeros((3, 4), np.float64), "`embedding` must be float32"),
        (np.full((3, 4), np.nan, np.float32), "`embedding` holds values that are not finite"),
    ],
)
def test_what_is_no_embedding_is_refused(
    reference: Reference, embedding: NDArray[np.float32], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        replace(reference, embedding=embedding).to_bytes()
