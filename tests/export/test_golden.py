"""Golden samples: small sources, pixels that any machine cuts alike, the float network's answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet, load_crops, read_data
from edge_fer.images import decode_image
from edge_fer.labels import LABELS
from edge_fer.parity.exact import preprocess_gate
from edge_fer.preprocess import CropSpec
from edge_fer.samples import MAX_SOURCE_BYTES, Golden
from edge_fer.spec import OUTPUTS, ModelSpec
from export.golden import Sample, make_golden, parity_samples, patterns, synthetic_samples, with_colour
from export.reference import TorchAnswers, make_reference
from training.models import ExpressionNetwork

from .conftest import SIZE

WHOLE = CropSpec(size=SIZE, margin=0.0)
FIVE_POINTS = ((0.35, 0.4), (0.65, 0.4), (0.5, 0.6), (0.38, 0.75), (0.62, 0.75))
ALIGNED = CropSpec(size=SIZE, margin=0.1, alignment="five-point", template=FIVE_POINTS)


@pytest.fixture(scope="module")
def answers(small: ExpressionNetwork) -> TorchAnswers:
    return TorchAnswers(small)


def spec_of(crop: CropSpec) -> ModelSpec:
    return ModelSpec(
        model="grefel-lite",
        labels=LABELS,
        input=crop,
        outputs=OUTPUTS,
        target="onnx",
        engine="onnxruntime",
        precision="fp32",
        quantisation="none",
        quantised_ops={},
        float_ops={},
        untrained=False,
        min_reliability=None,
        source={},
        weights={},
    )


@pytest.mark.parametrize("crop", [WHOLE, ALIGNED], ids=["margin crop", "five points"])
def test_synthetic_samples_pass_the_preprocess_gate(answers: TorchAnswers, crop: CropSpec) -> None:
    golden = make_golden(synthetic_samples(), crop, answers)
    assert len(golden.sources) == 16
    assert max(map(len, golden.sources)) <= MAX_SOURCE_BYTES == 40_000
    stored = Golden.from_bytes(golden.to_bytes())
    gate = preprocess_gate(stored, spec_of(crop))
    assert (gate.verdict, gate.value) == ("passed", 0)
    damaged = stored.crops.copy()
    damaged[3, 0, 0, 0] ^= 1
    assert preprocess_gate(replace(stored, crops=damaged), spec_of(crop)).verdict == "failed"


def test_synthetic_samples_exercise_every_way_to_cut(answers: TorchAnswers) -> None:
    golden = make_golden(synthetic_samples(), ALIGNED, answers)
    landmarks = ~np.isnan(golden.landmarks).any(axis=(1, 2))
    assert golden.whole.any() and landmarks.any() and (~golden.whole & ~landmarks).any()
    assert not (golden.whole & landmarks).any()
    formats = {source[:4] for source in golden.sources}
    assert formats == {b"\x89PNG", b"\xff\xd8\xff\xe0"}
    sides = [max(decode_image(source, "golden").shape) for source in golden.sources]
    assert min(sides) < 64 < max(sides)
    assert (golden.boxes[~golden.whole, 0] < 0).any()  # beyond the edge of its picture
    assert len({crop.tobytes() for crop in golden.crops}) == 16
    assert not np.array_equal(golden.crops[0], golden.crops[1])  # the landmarks matter


def test_the_same_samples_give_the_same_bytes(answers: TorchAnswers) -> None:
    first, second = (make_golden(synthetic_samples(), WHOLE, answers).to_bytes() for _ in range(2))
    assert first == second


def test_outputs_are_the_networks_own(answers: TorchAnswers) -> None:
    golden = make_golden([Sample(sample.source) for sample in synthetic_samples()[10:]], WHOLE, answers)
    expected = [answers(crop[None]).probabilities[0] for crop in golden.crops]
    np.testing.assert_allclose(golden.probabilities, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(golden.boxes, np.zeros((6, 4), np.float32))


def test_patterns_are_six_different_grays() -> None:
    drawn = patterns()
    assert [pattern.dtype for pattern in drawn] == [np.uint8] * 6
    assert all((pattern == pattern[..., :1]).all() for pattern in drawn)
    assert len({pattern.tobytes() for pattern in drawn}) == 6
    assert (drawn[0].max(), drawn[1].min()) == (0, 255)


def test_parity_samples_are_spread_over_the_set_and_kept_as_files(
    valid_faces: Path, answers: TorchAnswers
) -> None:
    faces = read_data(str(valid_faces))
    samples = parity_samples(faces)
    assert len(samples) == 16
    files = {face.path.read_bytes(): face.label for face in faces.faces}
    assert {files[sample.source] for sample in samples} == set(range(8))
    golden = make_golden(samples, WHOLE, answers)
    assert golden.whole.all()
    assert preprocess_gate(golden, spec_of(WHOLE)).verdict == "passed"
    assert golden.to_bytes() == make_golden(parity_samples(faces), WHOLE, answers).to_bytes()


def test_a_small_parity_set_gives_each_face_once(valid_faces: Path) -> None:
    faces = read_data(str(valid_faces))
    few = FaceSet(faces.name, faces.labels, faces.faces[:5], "")
    assert [sample.source for sample in parity_samples(few)] == [f.path.read_bytes() for f in few.faces]


def test_gray_samples_get_some_in_colour_beside_them(valid_faces: Path) -> None:
    gray = parity_samples(read_data(str(valid_faces)))
    assert not any(np.ptp(sample.crop(WHOLE), axis=2).any() for sample in gray)
    mixed = with_colour(gray, WHOLE)
    assert len(mixed) == len(gray) == 16 and mixed[:12] == gray[:12]
    assert all(np.ptp(sample.crop(WHOLE), axis=2).any() for sample in mixed[12:])
    assert with_colour(mixed, WHOLE) is mixed  # one of them is enough


def test_a_large_picture_is_no_golden_source(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(b"\xff" * (MAX_SOURCE_BYTES + 1))
    with pytest.raises(InputError, match=r"large\.jpg.*40000.*40001.*--golden synthetic"):
        parity_samples(FaceSet("large", LABELS, (Face(path, 0, None),), ""))


def test_reference_outputs_keep_labels_and_hashes(valid_faces: Path, answers: TorchAnswers) -> None:
    faces = read_data(str(valid_faces))
    few = FaceSet(faces.name, faces.labels, (*faces.faces[::40], Face(faces.faces[1].path, None, None)), "")
    crops = load_crops(few, WHOLE)
    reference = make_reference(few, crops, answers, LABELS)
    assert reference.labels.tolist() == [4, 5, 1, 3, -1]  # anger, disgust, happiness, sadness, none
    np.testing.assert_allclose(reference.probabilities, answers(crops).probabilities, rtol=0, atol=1e-6)
    shorter = make_reference(few, crops, answers, LABELS[:3])
    assert shorter.labels.tolist() == [-1, -1, 1, -1, -1]  # classes that the network does not have
