"""OpenCV 4's frontal-face cascade as a detector. Its file comes with OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.detectors.base import (
    OPENCV_PACKAGE,
    SEARCHED_SIDE,
    Detection,
    import_opencv,
    largest_first,
    shared,
    shrink,
)
from edge_fer.errors import DetectorError

_FILE = "haarcascade_frontalface_default.xml"
_DEBIAN_FOLDER = "/usr/share/opencv4/haarcascades"  # the wheels bring the file, Debian's package does not
_NEIGHBOURS = 6
_SCALE = 1.1
_SMALLEST_SHARE = 20  # the smallest face looked for: 1/20 of the searched picture's longer side ...
_SMALLEST_SIDE = 24  # ... but not below the cascade's window
_OVERLAP = 0.3


class CascadeDetector:
    """OpenCV 4's frontal-face cascade: needs no model file, finds upright frontal faces, gives no landmarks.

    Raises:
        DetectorError: no OpenCV, or one without cascades (5.x).
    """

    name = "cascade"

    def __init__(self) -> None:
        self._cv2 = import_opencv()
        if not hasattr(self._cv2, "CascadeClassifier"):
            raise DetectorError(
                f"OpenCV {self._cv2.__version__} has no cascade detector: "
                f"install {OPENCV_PACKAGE} or give a YuNet model with --detector"
            )
        folder = self._cv2.data.haarcascades if hasattr(self._cv2, "data") else _DEBIAN_FOLDER
        path = Path(folder) / _FILE
        self._cascade = self._cv2.CascadeClassifier(str(path))
        if self._cascade.empty():
            raise DetectorError(
                f"{path}: expected OpenCV's cascade file; install {OPENCV_PACKAGE}, or "
                "Debian's opencv-data beside its python3-opencv"
            )

    def detect(self, image: NDArray[np.uint8], side: int = SEARCHED_SIDE) -> list[Detection]:
        """Find upright frontal faces, hardly overlapping; see `Detector.detect`.

        The smallest is 1/20 of the picture's longer side, and 24 pixels of the searched picture.
        """
        small, factor_x, factor_y = shrink(self._cv2, image, side)
        gray = self._cv2.equalizeHist(self._cv2.cvtColor(small, self._cv2.COLOR_RGB2GRAY))
        smallest = max(_SMALLEST_SIDE, max(gray.shape) // _SMALLEST_SHARE)
        if min(gray.shape) < smallest:
            return []
        boxes, _, weights = self._cascade.detectMultiScale3(
            gray,
            scaleFactor=_SCALE,
            minNeighbors=_NEIGHBOURS,
            minSize=(smallest, smallest),
            outputRejectLevels=True,
        )
        found = [
            Detection((x * factor_x, y * factor_y, width * factor_x, height * factor_y), None, float(weight))
            for (x, y, width, height), weight in zip(
                np.reshape(boxes, (-1, 4)).tolist(), np.ravel(weights).tolist(), strict=True
            )
        ]
        return largest_first(_without_overlaps(found))


def _without_overlaps(found: list[Detection]) -> list[Detection]:
    """Keep the surest of detections that share over 30 % of the smaller box; the cascade nests them."""
    kept: list[Detection] = []
    for candidate in sorted(found, key=lambda detection: -detection.score):
        if all(shared(candidate.box, other.box) <= _OVERLAP for other in kept):
            kept.append(candidate)
    return kept
