"""What every use of OpenCV's video reading shares: silence, limits, and BGR to RGB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.images import MAX_PIXELS

if TYPE_CHECKING:
    from cv2.typing import MatLike

_SILENT = 0  # cv::utils::logging::LOG_LEVEL_SILENT


def silence() -> None:
    """Keep OpenCV and its FFmpeg off standard error: they report each damaged frame, and addresses.

    FFmpeg's part holds from the first video opened or written in the process; call this before. What the
    user set in OPENCV_FFMPEG_LOGLEVEL stays.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    # OpenCV 4.10 has cv2.setLogLevel, 4.14 has cv2.utils.logging.setLogLevel.
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_level(_SILENT)


def require_backend(backend: int, name: str, advice: str) -> None:
    """Refuse when this build of OpenCV lacks a way to read video.

    Raises:
        InputError: it does.
    """
    if not cv2.videoio_registry.hasBackend(backend):
        backend_name = cv2.videoio_registry.getBackendName(backend)
        raise InputError(f"{name}: this OpenCV {cv2.__version__} was built without {backend_name}; {advice}")


def check_name(path: Path) -> None:
    """Refuse a name that is no UTF-8: OpenCV's video functions crash on it.

    Raises:
        InputError: it is none.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{path}: expected a name in UTF-8 for a video, got other bytes; rename it"
        ) from None


def check_size(capture: Any, name: str) -> None:
    """Refuse absurd frame sizes before a frame of that size is allocated.

    Raises:
        InputError: more than MAX_PIXELS.
    """
    width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: frames of {width}x{height}, expected at most {MAX_PIXELS:,} pixels in all")


def to_rgb(image: MatLike) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB of OpenCV's (H, W, 3) uint8 BGR, in memory of its own."""
    return cast("NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
