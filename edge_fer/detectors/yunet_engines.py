"""What runs YuNet: ONNX Runtime, OpenVINO, or OpenCV's own FaceDetectorYN. Each answers with rows of faces.

They differ by less than a pixel, so the first that is installed is taken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fer.detectors.base import OPENCV_PACKAGE, SEARCHED_SIDE, import_opencv
from edge_fer.detectors.onnx_size import free_input_size
from edge_fer.detectors.yunet_decoding import (
    LEAST_SCORE,
    MOST_OVERLAP,
    ROW,
    STRIDES,
    WIDTHS,
    decode,
    network_input,
)
from edge_fer.engines.contract import one_line
from edge_fer.engines.onnxruntime import FATAL, runtime_errors
from edge_fer.errors import DetectorError

_OUTPUTS = tuple(f"{name}_{stride}" for name in WIDTHS for stride in STRIDES)


class NotYunetError(DetectorError):
    """A file that this engine cannot take for YuNet; the text says why."""


class YunetEngine(Protocol):
    """Something that runs YuNet."""

    name: str

    def find(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find faces.

        Args:
            image: (H, W, 3) uint8 RGB 0..255.

        Returns:
            (N, 15) float32: x, y, width, height, five landmarks as x and y, score; in pixels of `image`.

        Raises:
            NotYunetError: the file turns out to be another network's.
        """
        ...


class OnnxRuntimeYunet:
    """YuNet in an ONNX Runtime session, on the processor.

    Raises:
        ImportError: ONNX Runtime is not installed.
        NotYunetError: the file is another network's, or damaged.
    """

    name = "onnxruntime"

    def __init__(self, model: bytes, threads: int) -> None:
        # From 1.29 on the Linux wheels report to their maker unless told not to before they are imported.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        self._errors = runtime_errors()
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = FATAL
        settings.inter_op_num_threads = 1
        settings.intra_op_num_threads = threads
        settings.enable_mem_pattern = False  # it keeps one plan per size of picture for ever
        try:
            self._session = onnxruntime.InferenceSession(
                free_input_size(model), settings, providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            raise NotYunetError(one_line(error)) from None
        self._input = _only_input([value.name for value in self._session.get_inputs()])
        _check_outputs([value.name for value in self._session.get_outputs()])

    def find(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find faces; see `YunetEngine.find`."""

        def run(blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            values: list[NDArray[np.float32]] = self._session.run(_OUTPUTS, {self._input: blob})
            return values

        return _find(run, image, self._errors)


class OpenVinoYunet:
    """YuNet compiled by OpenVINO for the processor; it reads ONNX files itself.

    Raises:
        ImportError: OpenVINO is not installed.
        NotYunetError: the file is another network's, or damaged.
    """

    name = "openvino"

    def __init__(self, model: bytes, threads: int) -> None:
        # `import openvino` reports to its maker through this package; without it, it says nothing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # left to itself it moves boxes, in bfloat16 or float16
            "INFERENCE_NUM_THREADS": str(threads),
        }
        try:
            graph = core.read_model(model=model, weights=b"")
            _only_input([port.any_name for port in graph.inputs])
            _check_outputs([name for port in graph.outputs for name in port.names])
            graph.reshape(openvino.PartialShape([1, 3, -1, -1]))
            self._request = core.compile_model(graph, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise NotYunetError(one_line(error)) from None

    def find(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find faces; see `YunetEngine.find`."""

        def run(blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            self._request.infer([blob])
            return [self._request.get_tensor(name).data for name in _OUTPUTS]

        return _find(run, image, (RuntimeError, ValueError))


class OpenCvYunet:
    """OpenCV's FaceDetectorYN, which takes only files with a fixed input size, and the threads of all OpenCV.

    Raises:
        DetectorError: this OpenCV has none.
        NotYunetError: the file is another network's, or damaged.
    """

    name = "opencv"

    def __init__(self, model: bytes, threads: int) -> None:
        self._cv2 = import_opencv()
        if not hasattr(self._cv2, "FaceDetectorYN"):
            raise DetectorError(
                f"OpenCV {self._cv2.__version__} has no FaceDetectorYN: install {OPENCV_PACKAGE}"
            )
        log = getattr(self._cv2.utils, "logging", self._cv2)  # 4.10 has these functions at its top
        level = log.getLogLevel()
        log.setLogLevel(0)  # OpenCV prints what it throws as well; the user gets one line
        try:
            self._network = self._cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(model, np.uint8),
                np.zeros(0, np.uint8),
                (SEARCHED_SIDE, SEARCHED_SIDE),
                LEAST_SCORE,
                MOST_OVERLAP,
            )
            # A file of another network loads too and only fails when it is run.
            self.find(np.zeros((SEARCHED_SIDE, SEARCHED_SIDE, 3), np.uint8))
        except self._cv2.error:
            raise NotYunetError("OpenCV reads files with a fixed input size only") from None
        finally:
            log.setLogLevel(level)

    def find(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find faces; see `YunetEngine.find`."""
        self._network.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._network.detect(self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR))
        return np.zeros((0, ROW), np.float32) if rows is None else rows


def _only_input(names: list[str]) -> str:
    if len(names) != 1:
        raise NotYunetError(f"it has {len(names)} inputs")
    return names[0]


def _check_outputs(names: list[str]) -> None:
    missing = [name for name in _OUTPUTS if name not in names]
    if missing:
        raise NotYunetError(f"it has no output {missing[0]}")


def _find(
    run: Callable[[NDArray[np.float32]], list[NDArray[np.float32]]],
    image: NDArray[np.uint8],
    errors: tuple[type[Exception], ...],
) -> NDArray[np.float32]:
    blob = network_input(image)
    try:
        outputs = dict(zip(_OUTPUTS, run(blob), strict=True))
        return decode(outputs, *blob.shape[2:])
    except errors as error:
        raise NotYunetError(one_line(error)) from None
