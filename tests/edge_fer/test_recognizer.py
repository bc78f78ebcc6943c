"""The recognizer: predictions, faces found and cropped, thresholds, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_fer
from edge_fer.bundle import Bundle, BundleWarning, ModelSpec, write_bundle
from edge_fer.detectors import Detection
from edge_fer.engines import EngineOptions, Outputs, load_engine
from edge_fer.errors import BundleError, EngineError, InputError, UsageError
from edge_fer.parity.documents import document
from edge_fer.parity.environment import environment
from edge_fer.preprocess import crop_face, crop_whole
from edge_fer.recognizer import Recognizer
from tests.conftest import certificate, pattern, tiny_outputs


class FakeDetector:
    """Finds what it was told to find."""

    name = "fake"

    def __init__(self, *found: Detection) -> None:
        self._found = list(found)

    def detect(self, image: NDArray[np.uint8], side: int = 640) -> list[Detection]:
        return self._found


def test_predictions_are_the_graph_s_answers(tiny_bundle: Path, tiny_faces: NDArray[np.uint8]) -> None:
    predictions = Recognizer.load(tiny_bundle).predict(tiny_faces)
    probabilities, primary, reliability = tiny_outputs(tiny_faces)
    assert len(predictions) == 12
    for row, prediction in enumerate(predictions):
        np.testing.assert_allclose(prediction.probabilities, probabilities[row], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(prediction.primary, primary[row], rtol=1e-4, atol=1e-5)
        assert prediction.reliability == pytest.approx(reliability[row], abs=1e-4)
        assert prediction.top == probabilities[row].argmax()
        assert prediction.label == prediction.labels[prediction.top]
        assert prediction.abstained is False


def test_one_crop_and_a_list_of_crops_are_batches_too(
    tiny_bundle: Path, tiny_faces: NDArray[np.uint8]
) -> None:
    recognizer = Recognizer.load(Bundle.load(tiny_bundle), threads=1)
    batch = [prediction.label for prediction in recognizer.predict(tiny_faces)]
    assert [prediction.label for prediction in recognizer.predict(list(tiny_faces))] == batch
    assert [recognizer.predict(crop)[0].label for crop in tiny_faces] == batch


def test_a_long_batch_is_cut_and_put_together_again(tiny_bundle: Path, tiny_faces: NDArray[np.uint8]) -> None:
    recognizer = Recognizer.load(tiny_bundle)
    many = np.concatenate([tiny_faces] * 12)
    labels = [prediction.label for prediction in recognizer.predict(many)]
    assert labels == [prediction.label for prediction in recognizer.predict(tiny_faces)] * 12
    assert recognizer.predict(many[:0]) == []


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((1, 15, 16, 3), np.uint8),
        np.zeros((16, 16), np.uint8),
        np.zeros((1, 3, 16, 16), np.uint8),
        [],
        [np.zeros((16, 16, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)],
        ["face.jpg"],
    ],
)
def test_crops_of_another_shape_or_type_are_refused(tiny_bundle: Path, crops: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match=r"expected crops uint8 \(N, 16, 16, 3\) RGB, got") as error:
        Recognizer.load(tiny_bundle).predict(crops)
    assert "\n" not in str(error.value)


def test_faces_are_cropped_by_box_and_recognised(tiny_bundle: Path) -> None:
    recognizer = Recognizer.load(tiny_bundle)
    image = pattern(1, 90, 120)
    boxes = [(10.0, 10.0, 50.0, 60.0), (70.0, 20.0, 30.0, 30.0)]
    analysis = recognizer.analyze(image, FakeDetector(*(Detection(box, None, 1.0) for box in boxes)))
    crops = np.stack([crop_face(image, box, None, recognizer.spec.input) for box in boxes])
    assert analysis.detector == "fake"
    assert [face.box for face in analysis.faces] == boxes
    np.testing.assert_array_equal(np.stack([face.crop for face in analysis.faces]), crops)
    for face, expected in zip(analysis.faces, tiny_outputs(crops)[0], strict=True):
        np.testing.assert_allclose(face.prediction.probabilities, expected, rtol=1e-4, atol=1e-5)
    assert set(analysis.latency_ms) == {"detect", "preprocess", "recognise", "total"}
    assert all(value >= 0 for value in analysis.latency_ms.values())


def test_landmarks_reach_the_crop_when_the_spec_asks_for_alignment(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    template = ((0.3, 0.35), (0.7, 0.35), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    crop_spec = dataclasses.replace(tiny_spec.input, alignment="five-point", template=template)
    spec = dataclasses.replace(tiny_spec, input=crop_spec)
    write_bundle(tmp_path / "aligned.fer", spec, {"model.onnx": tiny_graph})
    image = pattern(2, 80, 80)
    landmarks = np.array([[25, 35], [50, 30], [40, 45], [30, 60], [52, 56]], np.float32)
    box = (15.0, 15.0, 50.0, 60.0)
    analysis = Recognizer.load(tmp_path / "aligned.fer").analyze(
        image, FakeDetector(Detection(box, landmarks, 1.0))
    )
    aligned = crop_face(image, box, landmarks, crop_spec)
    np.testing.assert_array_equal(analysis.faces[0].crop, aligned)
    assert not np.array_equal(aligned, crop_face(image, box, None, crop_spec))
    np.testing.assert_array_equal(analysis.faces[0].landmarks, landmarks)


def test_without_detection_the_picture_is_the_face(tiny_bundle: Path) -> None:
    recognizer = Recognizer.load(tiny_bundle)
    image = pattern(3, 40, 60)
    analysis = recognizer.analyze(image, detect=False)
    (face,) = analysis.faces
    assert (analysis.detector, face.box, face.landmarks) == (None, None, None)
    np.testing.assert_array_equal(face.crop, crop_whole(image, recognizer.spec.input))


def test_a_picture_without_faces_has_none(tiny_bundle: Path) -> None:
    recognizer = Recognizer.load(tiny_bundle)
    assert recognizer.analyze(pattern(4, 60, 60), FakeDetector()).faces == ()
    assert recognizer.analyze(np.zeros((1, 1, 3), np.uint8)).faces == ()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), "x"]
)
def test_a_picture_of_another_shape_or_type_is_refused(tiny_bundle: Path, image: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match=r"expected a picture uint8 \(H, W, 3\) RGB, got"):
        Recognizer.load(tiny_bundle).analyze(image)


def test_abstention_is_off_unless_asked_for(tiny_bundle: Path, tiny_faces: NDArray[np.uint8]) -> None:
    reliability = tiny_outputs(tiny_faces)[2]
    for asked, threshold in ((None, -1.0), ("auto", 0.5), (0.4, 0.4), ("0.6", 0.6), (0, 0.0), (1, 1.0)):
        recognizer = Recognizer.load(tiny_bundle, min_reliability=asked)
        marks = [prediction.abstained for prediction in recognizer.predict(tiny_faces)]
        assert marks == (reliability < threshold).tolist()
    assert 0 < (reliability < 0.5).sum() < 12


@pytest.mark.parametrize("asked", [-0.1, 1.1, "much", float("nan"), "", "Auto"])
def test_a_threshold_that_is_none_is_wrong_usage(tiny_bundle: Path, asked: float | str) -> None:
    with pytest.raises(UsageError, match="from 0 to 1, or auto"):
        Recognizer.load(tiny_bundle, min_reliability=asked)


def test_auto_needs_a_threshold_in_the_bundle(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    spec = dataclasses.replace(tiny_spec, min_reliability=None)
    write_bundle(tmp_path / "x.fer", spec, {"model.onnx": tiny_graph})
    with pytest.raises(UsageError, match="has no abstention threshold of its own"):
        Recognizer.load(tmp_path / "x.fer", min_reliability="auto")


def test_untrained_weights_are_refused_unless_allowed(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    spec = dataclasses.replace(tiny_spec, untrained=True)
    write_bundle(tmp_path / "x.fer", spec, {"model.onnx": tiny_graph})
    with pytest.raises(BundleError, match=r"untrained weights.*--allow-untrained"):
        Recognizer.load(tmp_path / "x.fer")
    with pytest.warns(BundleWarning, match="its answers mean nothing"):
        Recognizer.load(tmp_path / "x.fer", allow_untrained=True)


def test_a_failed_bundle_warns_and_a_passed_one_does_not(
    tmp_path: Path, tiny_bundle: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> None:
    members = {**tiny_members, "parity.json": json.dumps(certificate(verdict="failed")).encode()}
    write_bundle(tmp_path / "certified.fer", tiny_spec, members)
    write_bundle(tmp_path / "kept.fer", dataclasses.replace(tiny_spec, failed=True), tiny_members)
    for name in ("certified.fer", "kept.fer"):
        with pytest.warns(BundleWarning, match=f"{name} failed a parity gate"):
            Recognizer.load(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recognizer.load(tiny_bundle)


def test_a_class_of_processors_without_a_certificate_is_told_once(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> None:
    elsewhere = certificate(environment={**environment(), "cpu_class": "aarch64 dotprod"})
    members = {**tiny_members, "parity.json": json.dumps(elsewhere).encode()}
    path = write_bundle(tmp_path / "arm.fer", tiny_spec, members).path
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # as Python starts: a text is shown once for every place
        for _ in range(2):
            Recognizer.load(path)
    [warning] = caught
    assert warning.category is BundleWarning
    assert str(warning.message) == (
        f"{path} is certified on aarch64 dotprod, this is {environment()['cpu_class']}: "
        f"run `edge-fer self-test {path}` before you rely on it"
    )
    both = {**tiny_members, "parity.json": json.dumps(document([elsewhere, certificate()])).encode()}
    write_bundle(path, tiny_spec, both)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recognizer.load(path)


def test_answers_that_are_not_finite_are_refused(tiny_spec: ModelSpec, tiny_bundle: Path) -> None:
    class Broken:
        name = "broken"

        def run(self, images: NDArray[np.uint8]) -> Outputs:
            rows = np.full((len(images), 8), np.nan, np.float32)
            return Outputs(rows, rows, rows[:, 0])

        def describe(self) -> dict[str, object]:
            return {}

    with pytest.raises(EngineError, match="not finite"):
        Recognizer(tiny_spec, Broken()).predict(np.zeros((1, 16, 16, 3), np.uint8))


def test_the_engine_s_options_are_passed_on(tiny_bundle: Path) -> None:
    described = Recognizer.load(tiny_bundle, engine="onnxruntime", threads=2, device="cpu").engine.describe()
    expected = load_engine(Bundle.load(tiny_bundle), EngineOptions(threads=2, provider="cpu")).describe()
    assert described == expected


def test_the_package_offers_four_names_lazily() -> None:
    assert edge_fer.Recognizer is Recognizer
    assert edge_fer.Bundle is Bundle
    assert edge_fer.Prediction.__name__ == "Prediction"
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        edge_fer.Recogniser  # type: ignore[attr-defined]  # noqa: B018
    code = "import sys, edge_fer; assert not {'numpy', 'onnxruntime', 'cv2', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
