"""What every detector gives and needs: `Detection`, the Protocol, OpenCV, and the picture scaled down."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import DetectorError

OPENCV_PACKAGE = "'opencv-python-headless>=4.10,<5'"
Box = tuple[float, float, float, float]  # x, y, width, height in pixels
SEARCHED_SIDE = 640  # pixels of the longest side; larger pictures are scaled down to it


@dataclass(frozen=True, slots=True)
class Detection:
    """One face.

    Attributes:
        box: x, y, width, height in pixels of the picture given; may reach a little beyond its edges.
        landmarks: (5, 2) float32, x and y in pixels: eye, eye, nose tip, mouth corner, mouth corner, of each
            pair the one on the left of the image first; None from detectors without landmarks.
        score: The larger, the surer; comparable within one detector only.
    """

    box: Box
    landmarks: NDArray[np.float32] | None
    score: float


class Detector(Protocol):
    """What finds faces; `name` goes into results. One thread at a time."""

    name: str

    def detect(self, image: NDArray[np.uint8], side: int = SEARCHED_SIDE) -> list[Detection]:
        """Find the faces of a picture.

        Args:
            image: (H, W, 3) uint8 RGB 0..255.
            side: longest side in pixels of what is searched; a larger picture is scaled down to it, which
                makes the search cheaper and loses the smallest faces.

        Returns:
            Largest first, in pixels of `image`; an empty list when there is none.
        """
        ...


def import_opencv() -> Any:
    """Import OpenCV.

    Raises:
        DetectorError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DetectorError(
            f"face detection needs OpenCV ({error}): install {OPENCV_PACKAGE} or pass --no-detect"
        ) from None
    module: ModuleType = cv2
    return module


def shrink(cv2: Any, image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float, float]:
    """Scale a picture down until no side is longer than `side`; a smaller one is returned as it is.

    Args:
        cv2: OpenCV.
        image: (H, W, 3) or (H, W) uint8.
        side: pixels.

    Returns:
        The picture, and the factors (x, y) that bring its coordinates back into `image`.
    """
    height, width = image.shape[:2]
    share = side / max(height, width)
    if share >= 1:
        return image, 1.0, 1.0
    size = max(1, round(width * share)), max(1, round(height * share))
    small: NDArray[np.uint8] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, width / size[0], height / size[1]


def shared(first: Box, second: Box) -> float:
    """Return the area that two boxes share, as a share of the smaller one's."""
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(0.0, across) * max(0.0, down) / min(first[2] * first[3], second[2] * second[3])


def largest_first(found: list[Detection]) -> list[Detection]:
    """Sort detections by the area of their boxes."""
    return sorted(found, key=lambda detection: -detection.box[2] * detection.box[3])
