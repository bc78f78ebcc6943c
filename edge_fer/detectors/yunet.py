"""YuNet, a small network in one ONNX file, as a detector. Knows its file; engines do the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.detectors.base import SEARCHED_SIDE, Detection, import_opencv, largest_first, shrink
from edge_fer.detectors.yunet_engines import (
    NotYunetError,
    OnnxRuntimeYunet,
    OpenCvYunet,
    OpenVinoYunet,
    YunetEngine,
)
from edge_fer.errors import DetectorError

MAX_BYTES = 16 << 20  # YuNet's file has 0.2 MB; what is much larger is something else
# OpenCV 4.14 gives YuNet random faces, another number each time, on pictures of up to 32 pixels in a
# direction: it reads memory that it never wrote. So they get a black border, which is what it pads with too.
_LEAST_SIDE = 64
# Two threads would save a third of the time alone, and take it from the recogniser that runs beside.
_THREADS = 1
_ENGINES: Mapping[str, Callable[[bytes, int], YunetEngine]] = {
    engine.name: engine for engine in (OnnxRuntimeYunet, OpenVinoYunet, OpenCvYunet)
}


class YunetDetector:
    """YuNet: faces at many angles, with five landmarks.

    Args:
        path: its ONNX file, with the outputs cls_8 ... kps_32 that it has since 2023.
        threads: of one search; None: one.
        engine: onnxruntime, openvino or opencv; None: the first of them that is installed.
        sha256: what the file has to be, in hexadecimal digits; None: whatever it is.

    Attributes:
        engine: what runs it.

    Raises:
        DetectorError: the file is missing, changed or no YuNet model, or nothing that runs it is installed.
    """

    name = "yunet"

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        engine: str | None = None,
        sha256: str | None = None,
    ) -> None:
        self._cv2 = import_opencv()
        model = read_model(path)
        if sha256 is not None and hashlib.sha256(model).hexdigest() != sha256:
            raise DetectorError(
                f"{path} has changed, expected the SHA-256 {sha256}: "
                "run `edge-fer detector install` again, or choose --detector cascade"
            )
        self._network = _load(model, str(path), threads or _THREADS, engine)
        self.engine = self._network.name

    def detect(self, image: NDArray[np.uint8], side: int = SEARCHED_SIDE) -> list[Detection]:
        """Find faces and their landmarks; see `Detector.detect`."""
        small, factor_x, factor_y = shrink(self._cv2, image, side)
        down, across = (max(0, _LEAST_SIDE - side) for side in small.shape[:2])
        if down or across:
            small = self._cv2.copyMakeBorder(small, 0, down, 0, across, self._cv2.BORDER_CONSTANT)
        found: list[Detection] = []
        factors = np.array([factor_x, factor_y], np.float32)
        for row in self._network.find(small):
            x, y, width, height = (row[:4] * np.tile(factors, 2)).tolist()
            if width > 0 and height > 0 and bool(np.isfinite(row).all()):
                landmarks = row[4:14].reshape(5, 2) * factors
                found.append(Detection((x, y, width, height), landmarks, float(row[14])))
        return largest_first(found)


def read_model(path: Path) -> bytes:
    """Read a file that may be YuNet's.

    Raises:
        DetectorError: it is not there, cannot be read, or is far too large.
    """
    try:
        if not path.is_file():
            raise DetectorError(f"{path}: no such file; expected a YuNet face detector in ONNX")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DetectorError(f"{path}: expected a YuNet face detector, of 0.2 MB, got {size:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DetectorError(f"{path} cannot be read: {error.strerror}; check its permissions") from None


def check_model(model: bytes, source: str) -> None:
    """Load a YuNet file and run it once.

    Args:
        model: the file.
        source: where it is from, for the message.

    Raises:
        DetectorError: it is not YuNet, or nothing that runs it is installed.
    """
    _load(model, source, _THREADS, None)


def _load(model: bytes, source: str, threads: int, name: str | None) -> YunetEngine:
    try:
        engine = _first_installed(model, threads, name)
        engine.find(np.zeros((_LEAST_SIDE, _LEAST_SIDE, 3), np.uint8))
    except NotYunetError as error:
        raise DetectorError(
            f"{source}: expected a YuNet face detector in ONNX, such as face_detection_yunet_2023mar.onnx, "
            f"got another or a damaged file ({error})"
        ) from None
    return engine


def _first_installed(model: bytes, threads: int, name: str | None) -> YunetEngine:
    reasons = []
    for engine in [name] if name else _ENGINES:
        try:
            return _ENGINES[engine](model, threads)
        except ImportError as error:
            reasons.append(f"{engine}: {error}")
    raise DetectorError(f"nothing here runs YuNet ({'; '.join(reasons)}): pip install onnxruntime")
