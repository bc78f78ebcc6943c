"""YuNet on every engine against OpenCV's FaceDetectorYN: its file where it is to be had, and a stand-in."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.detectors import Detection
from edge_fer.detectors.yunet import YunetDetector
from edge_fer.errors import DetectorError
from edge_fer.images import read_image
from tests.edge_fer.detectors.stand_in import stand_in

ROOT = Path(__file__).parents[3]
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
SHARED = ROOT.parent / "shared"
YUNET = SHARED / "weights" / "yunet"
LONDON = SHARED / "data" / "london"
ENGINES = ("onnxruntime", "openvino")
FILES = ("yunet_n_640_640.onnx", "yunet_n_dynamic.onnx")

needs_yunet = pytest.mark.skipif(not YUNET.is_dir(), reason=f"no YuNet model in {YUNET}")
needs_london = pytest.mark.skipif(not LONDON.is_dir(), reason=f"no photos at {LONDON}")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def opencv() -> YunetDetector:
    return YunetDetector(YUNET / FILES[0], engine="opencv")


def assert_same(got: list[Detection], expected: list[Detection], atol: float = 0.02) -> None:
    """The same faces, in the same order, within a fiftieth of a pixel (the promise is one)."""
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one.box, other.box, rtol=0, atol=atol)
        assert one.landmarks is not None and other.landmarks is not None
        np.testing.assert_allclose(one.landmarks, other.landmarks, rtol=0, atol=atol)
        assert abs(one.score - other.score) < 1e-3


def noise(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@needs_yunet
@pytest.mark.parametrize("file", FILES)
def test_the_astronaut_is_where_opencv_sees_her(engine: str, opencv: YunetDetector, file: str) -> None:
    image = read_image(ASTRONAUT)
    detector = YunetDetector(YUNET / file, engine=engine)
    parts = (image, image[:401, 3:], image[:, 60:333], image, image)
    for picture, side in zip(parts, (640, 640, 321, 160, 97), strict=True):
        expected = opencv.detect(picture, side)
        assert len(expected) == 1
        assert_same(detector.detect(picture, side), expected)


@needs_yunet
@needs_london
def test_portraits_alone_and_together(engine: str, opencv: YunetDetector) -> None:
    photos = [read_image(path) for path in sorted(LONDON.glob("*.jpg"))[::10]]
    detector = YunetDetector(YUNET / FILES[0], engine=engine)
    for photo in photos:
        for side in (640, 320):
            expected = opencv.detect(photo, side)
            assert len(expected) == 1
            assert_same(detector.detect(photo, side), expected)
    smallest = min(min(photo.shape[:2]) for photo in photos)
    tiles = [photo[:smallest, :smallest] for photo in photos]
    together = np.concatenate([np.concatenate(tiles[:3], axis=1), np.concatenate(tiles[3:6], axis=1)])
    for picture in (together, together[:-5, :-33], together[::3, ::3]):
        for side in (640, 433):
            expected = opencv.detect(picture, side)
            assert len(expected) == 6
            assert_same(detector.detect(picture, side), expected)


@pytest.mark.parametrize("declared", [640, "free"])
def test_the_stand_in_gives_the_faces_that_opencv_gives(
    engine: str, declared: int | str, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "fixed.onnx").write_bytes(stand_in(onnx))
    (tmp_path / "model.onnx").write_bytes(stand_in(onnx, declared))
    reference = YunetDetector(tmp_path / "fixed.onnx", engine="opencv")
    detector = YunetDetector(tmp_path / "model.onnx", engine=engine)
    counts = []
    for seed, (height, width) in enumerate([(480, 640), (97, 333), (640, 65), (64, 64), (900, 500)]):
        expected = reference.detect(noise(seed, height, width))
        assert_same(detector.detect(noise(seed, height, width)), expected)
        counts.append(len(expected))
    assert min(counts) > 3 and max(counts) > 200


def test_the_searched_side_is_the_size_of_the_input(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reduced search has to cost a quarter, so that no engine may be given a padded picture."""
    (tmp_path / "model.onnx").write_bytes(stand_in(pytest.importorskip("onnx")))
    detector = YunetDetector(tmp_path / "model.onnx", engine=engine)
    from edge_fer.detectors import yunet_engines

    shapes = []

    def looking(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        blob: NDArray[np.float32] = real(image)
        shapes.append(blob.shape)
        return blob

    real = yunet_engines.network_input
    monkeypatch.setattr(yunet_engines, "network_input", looking)
    for side in (640, 320, 160, 33):
        detector.detect(noise(0, 480, 640), side)
    assert shapes == [(1, 3, 480, 640), (1, 3, 256, 320), (1, 3, 128, 160), (1, 3, 64, 64)]


def test_the_first_installed_engine_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENGINES:
        pytest.importorskip(name)
    path = tmp_path / "model.onnx"
    path.write_bytes(stand_in(pytest.importorskip("onnx")))
    for name, then in (("onnxruntime", "openvino"), ("openvino", "opencv")):
        assert YunetDetector(path).engine == name
        assert YunetDetector(path).name == "yunet"
        monkeypatch.setitem(sys.modules, name, None)
        assert YunetDetector(path).engine == then
        with pytest.raises(DetectorError, match=f"nothing here runs YuNet .*{name}.*pip install"):
            YunetDetector(path, engine=name)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_asked_for_and_change_no_face(engine: str, threads: int, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(stand_in(pytest.importorskip("onnx")))
    alone = YunetDetector(tmp_path / "model.onnx", engine=engine).detect(noise(5, 200, 200))
    detector = YunetDetector(tmp_path / "model.onnx", threads, engine)
    assert alone
    assert_same(detector.detect(noise(5, 200, 200)), alone)
    network: Any = detector._network
    if engine == "onnxruntime":
        assert network._session.get_session_options().intra_op_num_threads == threads
    else:
        compiled = network._request.get_compiled_model()
        assert compiled.get_property("INFERENCE_NUM_THREADS") == threads


@pytest.mark.parametrize("name", [*ENGINES, "opencv"])
def test_files_that_are_not_yunet_are_refused_in_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if name != "opencv":
        pytest.importorskip(name)
    whole = stand_in(pytest.importorskip("onnx"))
    capfd.readouterr()
    tiny = (ROOT / "tests" / "models" / "tiny.onnx").read_bytes()
    contents = [b"", b"hello", b"\x08\x07" * 400, whole[: len(whole) // 2], tiny]
    path = tmp_path / "model.onnx"
    for content in [*contents, stand_in(importlib.import_module("onnx"), output="else")]:
        path.write_bytes(content)
        with pytest.raises(DetectorError, match=r"expected a YuNet") as caught:
            YunetDetector(path, engine=name)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="no such file"):
        YunetDetector(tmp_path)
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(DetectorError, match=r"expected a YuNet face detector, of 0\.2 MB, got 1,073,741,824"):
        YunetDetector(large)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"other")
    with pytest.raises(DetectorError, match=r"has changed, expected the SHA-256 0000.*detector install"):
        YunetDetector(path, sha256="0" * 64)


@needs_yunet
def test_opencv_refuses_the_file_without_a_size() -> None:
    with pytest.raises(DetectorError, match="fixed input size only"):
        YunetDetector(YUNET / FILES[1], engine="opencv")


@needs_yunet
def test_opencvs_log_is_as_it_was(tmp_path: Path) -> None:
    import cv2

    log = getattr(cv2.utils, "logging", cv2)
    before = log.getLogLevel()
    try:
        log.setLogLevel(3)  # whatever other tests have left
        YunetDetector(YUNET / FILES[0], engine="opencv")
        assert log.getLogLevel() == 3
    finally:
        log.setLogLevel(before)
