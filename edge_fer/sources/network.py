"""Cameras and streams on the network (RTSP, MJPEG over HTTP, HLS …) through OpenCV's FFmpeg."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.sources.opencv import check_size, require_backend, silence

TIMEOUT_MS = 5000


class CaptureConnection:
    """An open `cv2.VideoCapture` as a `Connection`."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame; see `Connection.read`."""
        try:
            read, image = self._capture.read()
        except cv2.error:
            return None
        return cast("NDArray[np.uint8]", image) if read else None

    def close(self) -> None:
        """Release the capture."""
        self._capture.release()


def connect_stream(address: str, name: str) -> CaptureConnection:
    """Open an address; a dead stream is noticed within TIMEOUT_MS, when opening and at every read.

    Tried with MJPEG and H.264 over HTTP; FFmpeg adds about a millisecond to the age of an MJPEG frame. RTSP,
    which goes the same way, was not tried here.

    Raises:
        InputError: nothing answers, or what answers is no live video.
    """
    silence()
    require_backend(cv2.CAP_FFMPEG, name, "install the package opencv-python-headless")
    options = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: TIMEOUT_MS,
        # Each further decoding thread holds one frame back: 8 of them made results 0.23 s older at 30 fps.
        cv2.CAP_PROP_N_THREADS: 1,
    }
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, [part for pair in options.items() for part in pair])
    if not capture.isOpened():
        raise InputError(
            f"{name}: expected a live stream, got nothing that FFmpeg reads within {TIMEOUT_MS // 1000} s;"
            " check the address, the password and the network"
        )
    check_size(capture, name)
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 1:
        raise InputError(f"{name}: expected a live stream, got a file; download it and give the file")
    return CaptureConnection(capture)
