"""Cameras of this machine: V4L2 through OpenCV, Picamera2, GStreamer. Not tried here: no such device."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.sources.network import CaptureConnection
from edge_fer.sources.opencv import check_size, require_backend, silence

_PICAMERA_SIZE = (640, 480)


def connect_camera(which: str, name: str) -> CaptureConnection | PicameraConnection:
    """Open `0`, `/dev/video2` or `picamera2`. Not tried here with a camera.

    Raises:
        InputError: there is no such camera, or it cannot be used.
    """
    if which == "picamera2":
        return PicameraConnection(name)
    device = Path(f"/dev/video{which}" if which.isdecimal() else which)
    if not device.exists():
        raise InputError(f"{name}: there is no camera {device}; `v4l2-ctl --list-devices` lists them")
    silence()
    os.environ.setdefault(
        "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "5"
    )  # seconds until an unplugged one is noticed
    require_backend(cv2.CAP_V4L2, name, "install the package opencv-python-headless")
    capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise InputError(
            f"{name}: {device} does not open as a camera; it may be in use, not readable for this user"
            " (group video), or the second device of a camera (try the next number)"
        )
    check_size(capture, name)
    return CaptureConnection(capture)


def connect_gstreamer(pipeline: str, name: str) -> CaptureConnection:
    """Open a pipeline that ends in `videoconvert ! video/x-raw,format=BGR ! appsink`. Not tried here.

    Raises:
        InputError: this OpenCV has no GStreamer, or the pipeline does not start.
    """
    silence()
    require_backend(
        cv2.CAP_GSTREAMER,
        name,
        "the wheels of PyPI have none: use the OpenCV of JetPack or of the distribution",
    )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise InputError(
            f"{name}: this pipeline does not start; try it with gst-launch-1.0, and end it in appsink"
        )
    check_size(capture, name)
    return CaptureConnection(capture)


class PicameraConnection:
    """The camera of a Raspberry Pi through the package picamera2. Not tried here.

    Raises:
        InputError: the package is missing, or there is no camera.
    """

    def __init__(self, name: str) -> None:
        try:
            picamera2 = importlib.import_module("picamera2")
        except ImportError:
            raise InputError(
                f"{name}: the package picamera2 is not installed; apt install python3-picamera2, and make the"
                " virtual environment with --system-site-packages"
            ) from None
        try:
            self._camera: Any = picamera2.Picamera2()
            # libcamera names colours from the last byte: its "RGB888" is OpenCV's BGR.
            main = {"size": _PICAMERA_SIZE, "format": "RGB888"}
            self._camera.configure(self._camera.create_video_configuration(main=main))
            self._camera.start()
        except (IndexError, OSError, RuntimeError) as error:
            raise InputError(f"{name}: the camera does not start: {error}") from None

    def read(self) -> NDArray[np.uint8] | None:
        """Return the next frame; see `Connection.read`."""
        try:
            image: NDArray[np.uint8] = self._camera.capture_array("main")
        except (OSError, RuntimeError):
            return None
        return image

    def close(self) -> None:
        """Stop the camera and let it go."""
        self._camera.close()
