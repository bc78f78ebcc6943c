"""Face detectors behind one small Protocol: OpenCV's own cascade, and YuNet where it is installed or given.

Importing this imports neither OpenCV nor an engine; making a detector does.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge_fer.detectors.base import Detection, Detector
from edge_fer.errors import DetectorError

__all__ = ["Detection", "Detector", "load_detector"]

YUNET_VARIABLE = "EDGE_FER_YUNET"


def load_detector(choice: str | None = None, threads: int | None = None) -> Detector:
    """Make the detector asked for.

    Args:
        choice: "cascade"; the path of a YuNet `.onnx` file; "yunet": the file that EDGE_FER_YUNET names, else
            the one that `edge-fer detector install` put into the cache; None: the same, and the cascade where
            there is neither.
        threads: of one search with YuNet; None: one, which leaves the other cores to recognition. The cascade
            takes what OpenCV takes.

    Raises:
        DetectorError: unknown choice, or the detector cannot be made; never replaced by another one.
    """
    from edge_fer.detectors.cache import INSTALL_COMMAND, find_installed

    if choice == "cascade":
        return _cascade()
    path, sha256 = None, None
    if choice and choice.lower().endswith(".onnx"):
        path = Path(choice)
    elif choice not in (None, "yunet"):
        raise DetectorError(f"detector {choice!r}: expected cascade, yunet or the path of a YuNet .onnx file")
    elif named := os.environ.get(YUNET_VARIABLE):
        path = Path(named)
    elif installed := find_installed():
        path, sha256 = installed
    if path is None:
        if choice is None:
            return _cascade()
        raise DetectorError(
            f"YuNet is not installed: run `{INSTALL_COMMAND}`, name its file in {YUNET_VARIABLE}, "
            "or choose --detector cascade"
        )
    from edge_fer.detectors.yunet import YunetDetector

    return YunetDetector(path, threads=threads, sha256=sha256)


def _cascade() -> Detector:
    from edge_fer.detectors.cascade import CascadeDetector

    return CascadeDetector()
