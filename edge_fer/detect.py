"""Face detectors behind one small Protocol: OpenCV's own cascade, and YuNet when the user gives its file.

Knows OpenCV, imported when a detector is made; knows nothing of crops or emotions.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import DetectorError

YUNET_VARIABLE = "EDGE_FER_YUNET"
_PACKAGE = "'opencv-python-headless>=4.10,<5'"
_LARGEST_SIDE = 640  # pixels searched; larger pictures are scaled down first
_CASCADE_FILE = "haarcascade_frontalface_default.xml"
_CASCADE_NEIGHBOURS = 6
_CASCADE_SCALE = 1.1
_SMALLEST_SHARE = 20  # the smallest face looked for: 1/20 of the picture's longer side ...
_SMALLEST_SIDE = 24  # ... but not below the cascade's window
_YUNET_SCORE = 0.6
# OpenCV 4.14 gives YuNet random faces, another number each time, on pictures of up to 32 pixels in a
# direction: it reads memory that it never wrote. So they get a black border, which is what it pads with too.
_YUNET_LEAST = 64
_OVERLAP = 0.3


@dataclass(frozen=True, slots=True)
class Detection:
    """One face.

    Attributes:
        box: x, y, width, height in pixels of the picture given; may reach a little beyond its edges.
        landmarks: (5, 2) float32, x and y in pixels: eye, eye, nose tip, mouth corner, mouth corner, of each
            pair the one on the left of the image first; None from detectors without landmarks.
        score: The larger, the surer; comparable within one detector only.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32] | None
    score: float


class Detector(Protocol):
    """What finds faces; `name` goes into results."""

    name: str

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Find the faces of (H, W, 3) uint8 RGB 0..255, largest first; an empty list when there are none."""
        ...


class CascadeDetector:
    """OpenCV 4's frontal-face cascade: needs no model file, finds upright frontal faces, gives no landmarks.

    Raises:
        DetectorError: no OpenCV, or one without cascades (5.x).
    """

    name = "cascade"

    def __init__(self) -> None:
        self._cv2 = _opencv()
        if not hasattr(self._cv2, "CascadeClassifier") or not hasattr(self._cv2, "data"):
            raise DetectorError(
                f"OpenCV {self._cv2.__version__} has no cascade detector: "
                f"install {_PACKAGE} or give a YuNet model with --detector"
            )
        path = Path(self._cv2.data.haarcascades) / _CASCADE_FILE
        self._cascade = self._cv2.CascadeClassifier(str(path))
        if self._cascade.empty():
            raise DetectorError(f"{path}: expected OpenCV's cascade file; reinstall opencv-python-headless")

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Find upright frontal faces of (H, W, 3) uint8 RGB 0..255, hardly overlapping, largest first."""
        small, factor_x, factor_y = _limited(self._cv2, image)
        gray = self._cv2.equalizeHist(self._cv2.cvtColor(small, self._cv2.COLOR_RGB2GRAY))
        smallest = max(_SMALLEST_SIDE, max(gray.shape) // _SMALLEST_SHARE)
        if min(gray.shape) < smallest:
            return []
        boxes, _, weights = self._cascade.detectMultiScale3(
            gray,
            scaleFactor=_CASCADE_SCALE,
            minNeighbors=_CASCADE_NEIGHBOURS,
            minSize=(smallest, smallest),
            outputRejectLevels=True,
        )
        found = [
            Detection((x * factor_x, y * factor_y, width * factor_x, height * factor_y), None, float(weight))
            for (x, y, width, height), weight in zip(
                np.reshape(boxes, (-1, 4)).tolist(), np.ravel(weights).tolist(), strict=True
            )
        ]
        return _largest_first(_without_overlaps(found))


class YunetDetector:
    """YuNet (a small network in ONNX) through OpenCV: faces at many angles, with five landmarks.

    Raises:
        DetectorError: no OpenCV, or the file is missing or not a YuNet model.
    """

    name = "yunet"

    def __init__(self, path: Path) -> None:
        self._cv2 = _opencv()
        if not hasattr(self._cv2, "FaceDetectorYN"):
            raise DetectorError(f"OpenCV {self._cv2.__version__} has no FaceDetectorYN: install {_PACKAGE}")
        if not path.is_file():
            raise DetectorError(f"{path}: no such file; expected a YuNet face detector in ONNX")
        log_level = self._cv2.utils.logging.getLogLevel()
        self._cv2.utils.logging.setLogLevel(0)  # OpenCV prints what it throws as well; the user gets one line
        try:
            self._network = self._cv2.FaceDetectorYN.create(
                str(path), "", (_LARGEST_SIDE, _LARGEST_SIDE), _YUNET_SCORE, _OVERLAP
            )
            # A file of another network loads too and only fails when it is run.
            self.detect(np.zeros((64, 64, 3), np.uint8))
        except self._cv2.error:
            raise DetectorError(
                f"{path}: expected a YuNet face detector that OpenCV reads (fixed input size, such as "
                "yunet_n_640_640.onnx), got another or a damaged file"
            ) from None
        finally:
            self._cv2.utils.logging.setLogLevel(log_level)

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Find faces and their landmarks in (H, W, 3) uint8 RGB 0..255; largest first."""
        small, factor_x, factor_y = _limited(self._cv2, image)
        down, across = (max(0, _YUNET_LEAST - side) for side in small.shape[:2])
        padded = self._cv2.copyMakeBorder(small, 0, down, 0, across, self._cv2.BORDER_CONSTANT)
        self._network.setInputSize((padded.shape[1], padded.shape[0]))
        _, rows = self._network.detect(self._cv2.cvtColor(padded, self._cv2.COLOR_RGB2BGR))
        found: list[Detection] = []
        factors = np.array([factor_x, factor_y], np.float32)
        for row in np.zeros((0, 15), np.float32) if rows is None else rows:
            x, y, width, height = (row[:4] * np.tile(factors, 2)).tolist()
            if width > 0 and height > 0 and bool(np.isfinite(row).all()):
                landmarks = row[4:14].reshape(5, 2) * factors
                found.append(Detection((x, y, width, height), landmarks, float(row[14])))
        return _largest_first(found)


def load_detector(choice: str | None = None) -> Detector:
    """Make the detector asked for.

    Args:
        choice: "cascade", the path of a YuNet `.onnx` file, or None: the file named by EDGE_FER_YUNET if that
            is set, else the cascade.

    Raises:
        DetectorError: unknown choice, or the detector cannot be made; never replaced by another one.
    """
    chosen = choice or os.environ.get(YUNET_VARIABLE) or "cascade"
    if chosen == "cascade":
        return CascadeDetector()
    if chosen.lower().endswith(".onnx"):
        return YunetDetector(Path(chosen))
    raise DetectorError(f"detector {chosen!r}: expected cascade or the path of a YuNet .onnx file")


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise DetectorError(
            f"face detection needs OpenCV ({error}): install {_PACKAGE} or pass --no-detect"
        ) from None
    module: ModuleType = cv2
    return module


def _limited(cv2: Any, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float, float]:
    """Scale a large picture down; also return the factors (x, y) that bring its coordinates back."""
    height, width = image.shape[:2]
    share = _LARGEST_SIDE / max(height, width)
    if share >= 1:
        return image, 1.0, 1.0
    size = max(1, round(width * share)), max(1, round(height * share))
    small: NDArray[np.uint8] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, width / size[0], height / size[1]


def _without_overlaps(found: list[Detection]) -> list[Detection]:
    """Keep the surest of detections that share over 30 % of the smaller box; the cascade nests them."""
    kept: list[Detection] = []
    for candidate in sorted(found, key=lambda detection: -detection.score):
        if all(_shared(candidate.box, other.box) <= _OVERLAP for other in kept):
            kept.append(candidate)
    return kept


def _shared(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> float:
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(0.0, across) * max(0.0, down) / min(first[2] * first[3], second[2] * second[3])


def _largest_first(found: list[Detection]) -> list[Detection]:
    return sorted(found, key=lambda detection: -detection.box[2] * detection.box[3])
