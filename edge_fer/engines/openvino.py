"""OpenVINO as an engine: reads the graph from memory, computes in float32 and never changes the device."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.engines.base import EngineOptions, Outputs
from edge_fer.engines.contract import TypeNames, check_contract, check_images, one_line
from edge_fer.errors import EngineError
from edge_fer.spec import GRAPH_FILES, ModelSpec

if TYPE_CHECKING:
    import openvino

_GRAPH, _WEIGHTS = GRAPH_FILES["openvino"]
_TYPES = TypeNames("u8", "f32")
# On processors with AMX or native bfloat16 OpenVINO would compute in bfloat16, on many GPUs in float16.
_PRECISION = "f32"


@dataclass(frozen=True, slots=True)
class _Value:
    """An input or output of the compiled graph; a free axis is None."""

    name: str
    type: str
    shape: tuple[int | None, ...]


class OpenVinoEngine:
    """A graph that OpenVINO has compiled for one device."""

    name = "openvino"

    def __init__(
        self, compiled: openvino.CompiledModel, device: str, threads: int | None, version: str
    ) -> None:
        self._request = compiled.create_infer_request()
        self._device = device
        self._threads = threads
        self._version = version
        self._inputs = [_value(port) for port in compiled.inputs]
        self._outputs = [_value(port) for port in compiled.outputs]
        check_contract(self._inputs, self._outputs, None, _TYPES)
        self._size = int(self._inputs[0].shape[1] or 0)
        self._lock = threading.Lock()  # a request holds one inference at a time

    @classmethod
    def load(cls, bundle: Bundle, options: EngineOptions) -> OpenVinoEngine:
        """Load a verified bundle's graph and compare it with the spec.

        Raises:
            EngineError: OpenVINO does not load, lacks the device, or the graph breaks the contract.
        """
        engine = cls.from_bytes(bundle.member(_GRAPH), bundle.member(_WEIGHTS), options)
        engine.check_contract(bundle.spec)
        return engine

    @classmethod
    def from_bytes(cls, graph: bytes, weights: bytes, options: EngineOptions | None = None) -> OpenVinoEngine:
        """Load a graph (the .xml) and its weights (the .bin) that are in no bundle yet.

        Raises:
            EngineError: OpenVINO does not load, lacks the device, or the graph breaks the contract.
        """
        options = options or EngineOptions()
        if options.provider is not None:
            raise EngineError(
                f"the engine openvino has no providers, got {options.provider}: name its device with --device"
            )
        library = _import_openvino()
        core = library.Core()
        device = _choose_device(options.device, list(core.available_devices))
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _PRECISION}
        if options.threads is not None:
            if device != "CPU":
                raise EngineError(f"--threads are the processor's: leave them out with the device {device}")
            settings["INFERENCE_NUM_THREADS"] = str(options.threads)
        try:
            model = core.read_model(model=graph, weights=weights)
            compiled = core.compile_model(model, device, settings)
        except (RuntimeError, TypeError, ValueError) as error:
            raise EngineError(f"openvino does not load this graph on {device}: {one_line(error)}") from error
        return cls(compiled, device, options.threads, library.__version__)

    @property
    def request(self) -> openvino.InferRequest:
        """The raw inference request, for measuring what this class adds to it."""
        return self._request

    def check_contract(self, spec: ModelSpec) -> None:
        """Compare the graph with a bundle's spec.

        Raises:
            EngineError: they differ.
        """
        check_contract(self._inputs, self._outputs, spec, _TYPES)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the graph once.

        Args:
            images: (N, S, S, 3) uint8 RGB 0..255.

        Raises:
            EngineError: the images are not of that shape and type, or OpenVINO failed.
        """
        check_images(images, self._size)
        if len(images) == 0:  # its reductions refuse an empty batch
            return _pack({value.name: _empty(value) for value in self._outputs})
        try:
            with self._lock:
                results = self._request.infer([np.ascontiguousarray(images)])
        except RuntimeError as error:
            raise EngineError(f"openvino failed on this graph: {one_line(error)}") from error
        values = (results[index] for index in range(len(self._outputs)))
        return _pack({value.name: array for value, array in zip(self._outputs, values, strict=True)})

    def describe(self) -> dict[str, object]:
        """Return engine, version, device, precision and threads (None: OpenVINO's own choice)."""
        return {
            "engine": self.name,
            "version": self._version,
            "device": self._device,
            "precision": _PRECISION,
            "threads": self._threads,
        }


def _import_openvino() -> Any:  # the library comes without types
    # `import openvino` reports to its maker through the package openvino_telemetry; only a file in the home
    # folder or CI=true would stop it. Without that package it says nothing: None makes its import fail.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise EngineError(
            f"the engine openvino does not import ({error}): "
            "install it with `pip install 'edge-fer[openvino]'`"
        ) from error
    return openvino


def _choose_device(asked: str | None, available: list[str]) -> str:
    """Return OpenVINO's name of the device asked for, the processor when none is."""
    device = (asked or "cpu").upper().replace(":", ".")
    # GPU stands for GPU.0 where there are several.
    if device not in available and not any(name.startswith(f"{device}.") for name in available):
        raise EngineError(
            f"the device {asked or 'cpu'} is not there for openvino: available are "
            f"{', '.join(sorted(name.lower() for name in available)) or 'none'}"
        )
    return device


def _value(port: Any) -> _Value:
    names = port.get_names()
    axes = (axis.get_length() if axis.is_static else None for axis in port.get_partial_shape())
    return _Value(min(names) if names else "", port.get_element_type().get_type_name(), tuple(axes))


def _empty(value: _Value) -> NDArray[np.float32]:
    return np.zeros((0, *(axis or 0 for axis in value.shape[1:])), np.float32)


def _pack(values: dict[str, NDArray[np.float32]]) -> Outputs:
    return Outputs(values["probabilities"], values["primary"], values["reliability"], values.get("embedding"))
