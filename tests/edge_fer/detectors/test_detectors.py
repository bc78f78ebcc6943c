"""Both detectors on real faces where they are to be had, and their refusals everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.detectors import Detection, Detector, cascade, load_detector
from edge_fer.detectors.cascade import CascadeDetector, _without_overlaps
from edge_fer.detectors.yunet import YunetDetector
from edge_fer.errors import DetectorError
from edge_fer.images import read_image

ROOT = Path(__file__).parents[3]
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
SHARED = ROOT.parent / "shared"
YUNET = SHARED / "weights" / "yunet" / "yunet_n_640_640.onnx"
LONDON = SHARED / "data" / "london"

needs_yunet = pytest.mark.skipif(not YUNET.is_file(), reason=f"no YuNet model at {YUNET}")
needs_london = pytest.mark.skipif(not LONDON.is_dir(), reason=f"no photos at {LONDON}")


@pytest.fixture(params=["cascade", pytest.param("yunet", marks=needs_yunet)])
def detector(request: pytest.FixtureRequest) -> Detector:
    return CascadeDetector() if request.param == "cascade" else YunetDetector(YUNET)


@pytest.fixture(scope="module")
def astronaut() -> NDArray[np.uint8]:
    return read_image(ASTRONAUT)


def face_at(detection: Detection) -> tuple[float, float]:
    x, y, width, height = detection.box
    return x + width / 2, y + height / 2


def test_the_astronaut_is_found_once(detector: Detector, astronaut: NDArray[np.uint8]) -> None:
    found = detector.detect(astronaut)
    assert len(found) == 1
    # The face's middle by eye in the 512x512 photo.
    np.testing.assert_allclose(np.array(face_at(found[0])) / 512, (0.44, 0.22), rtol=0, atol=0.03)
    assert 0.12 < found[0].box[2] / 512 < 0.25


@pytest.mark.parametrize("factor", [2, 4])
def test_boxes_are_in_the_pixels_of_the_picture(
    detector: Detector, astronaut: NDArray[np.uint8], factor: int
) -> None:
    large = astronaut.repeat(factor, axis=0).repeat(factor, axis=1)
    (found,) = detector.detect(large)
    (small,) = detector.detect(astronaut)
    np.testing.assert_allclose(np.array(found.box) / factor, small.box, rtol=0, atol=8)
    if small.landmarks is not None:
        np.testing.assert_allclose(found.landmarks / factor, small.landmarks, rtol=0, atol=10)


def test_large_faces_come_first_and_do_not_overlap(detector: Detector, astronaut: NDArray[np.uint8]) -> None:
    picture = np.concatenate([astronaut[:300, 60:360], np.zeros((300, 300, 3), np.uint8)], axis=1)
    picture[50:200, 350:500] = astronaut[:300:2, 60:360:2]
    found = detector.detect(picture)
    assert len(found) == 2
    assert face_at(found[0])[0] < 300 < face_at(found[1])[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (23, 23), (300, 300), (2000, 40)])
def test_pictures_without_a_face_give_an_empty_list(detector: Detector, shape: tuple[int, int]) -> None:
    assert detector.detect(np.zeros((*shape, 3), np.uint8)) == []
    assert detector.detect(np.full((*shape, 3), 255, np.uint8)) == []


class NetworkThatLooks:
    """Stands in for what runs YuNet: records what it is given, finds nothing."""

    name = "looking"

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def find(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append((image.shape[1], image.shape[0]))
        assert image[-1, -1].tolist() == [0, 0, 0]
        return np.zeros((0, 15), np.float32)


@needs_yunet
def test_yunet_is_never_given_a_narrow_picture() -> None:
    """OpenCV alone finds random faces in these, now and then: see `_LEAST_SIDE`."""
    detector = YunetDetector(YUNET)
    detector._network = network = NetworkThatLooks()
    for shape in ((1, 1), (32, 500), (500, 32), (1, 6400)):
        assert detector.detect(np.full((*shape, 3), 255, np.uint8)) == []
    assert network.sizes == [(64, 64), (500, 64), (64, 500), (640, 64)]
    assert detector.detect(np.full((100, 200, 3), 255, np.uint8), side=32) == []
    assert network.sizes[-1] == (64, 64)


@needs_yunet
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "opencv"])
def test_narrow_pictures_have_no_faces(engine: str) -> None:
    if engine != "opencv":
        pytest.importorskip(engine)
    detector = YunetDetector(YUNET, engine=engine)
    for shape in ((1, 1), (32, 32), (20, 500), (500, 20)):
        for value in (0, 255) * 3:
            assert detector.detect(np.full((*shape, 3), value, np.uint8)) == []


def test_a_smaller_side_searches_less(detector: Detector, astronaut: NDArray[np.uint8]) -> None:
    """A box of its picture's pixels at every size, and no face where it is below the detector's least."""
    (best,) = detector.detect(astronaut)
    (found,) = detector.detect(astronaut, side=256)
    np.testing.assert_allclose(found.box, best.box, rtol=0, atol=16)
    (same,) = detector.detect(astronaut, side=1000)
    assert same.box == best.box
    assert detector.detect(astronaut, side=30) == []


def test_cascade_finds_no_faces_in_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    assert CascadeDetector().detect(noise) == []


def test_the_picture_is_not_changed(detector: Detector, astronaut: NDArray[np.uint8]) -> None:
    before = astronaut.copy()
    detector.detect(astronaut)
    np.testing.assert_array_equal(astronaut, before)


@needs_yunet
def test_yunet_landmarks_are_in_the_documented_order(astronaut: NDArray[np.uint8]) -> None:
    landmarks = YunetDetector(YUNET).detect(astronaut)[0].landmarks
    assert landmarks is not None
    assert landmarks.shape == (5, 2)
    assert landmarks.dtype == np.float32
    left_eye, right_eye, nose, left_mouth, right_mouth = landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_cascade_gives_no_landmarks(astronaut: NDArray[np.uint8]) -> None:
    assert CascadeDetector().detect(astronaut)[0].landmarks is None


@needs_london
def test_portraits_have_exactly_one_face(detector: Detector) -> None:
    photos = sorted(LONDON.glob("*.jpg"))
    counts = [len(detector.detect(read_image(path))) for path in photos[::4]]
    assert counts == [1] * len(counts)


def test_overlapping_boxes_leave_the_surest() -> None:
    outer = Detection((0, 0, 100, 100), None, 1.0)
    nested = Detection((30, 30, 40, 40), None, 3.0)
    apart = Detection((95, 0, 100, 100), None, 0.5)
    assert _without_overlaps([outer, nested, apart]) == [nested, apart]


def test_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_detector().name == load_detector("cascade").name == "cascade"
    for unknown in ("retinaface", ""):
        with pytest.raises(DetectorError, match="expected cascade, yunet or the path"):
            load_detector(unknown)
    with pytest.raises(DetectorError, match=r"not installed: run `edge-fer detector install`"):
        load_detector("yunet")
    monkeypatch.setenv("EDGE_FER_YUNET", "/nowhere/yunet.onnx")
    for choice in (None, "yunet"):
        with pytest.raises(DetectorError, match="no such file"):
            load_detector(choice)
    assert load_detector("cascade").name == "cascade"


@needs_yunet
def test_yunet_by_path_and_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_detector(str(YUNET)).name == "yunet"
    monkeypatch.setenv("EDGE_FER_YUNET", str(YUNET))
    assert load_detector().name == load_detector("yunet").name == "yunet"


def test_opencv_5_and_missing_opencv_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(__version__="5.0.0"))
    with pytest.raises(DetectorError, match=r"OpenCV 5\.0\.0 has no cascade.*>=4\.10,<5"):
        CascadeDetector()
    monkeypatch.setitem(sys.modules, "cv2", None)
    for make in (CascadeDetector, lambda: YunetDetector(Path("x.onnx"))):
        with pytest.raises(DetectorError, match=r"needs OpenCV.*opencv-python-headless"):
            make()


def test_importing_the_package_imports_neither_opencv_nor_an_engine() -> None:
    program = (
        "import sys, edge_fer.detectors.yunet, edge_fer.detectors.cascade, edge_fer.detectors.cache;"
        "print(sorted({'cv2', 'onnxruntime', 'openvino', 'urllib.request'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_an_opencv_without_its_data_takes_the_distribution_s_cascade(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    folder = cv2.data.haarcascades
    monkeypatch.delattr(cv2, "data")
    monkeypatch.setattr(cascade, "_DEBIAN_FOLDER", folder)
    assert len(CascadeDetector().detect(astronaut)) == 1
    monkeypatch.setattr(cascade, "_DEBIAN_FOLDER", str(tmp_path))
    with pytest.raises(DetectorError, match="opencv-data"):
        CascadeDetector()
