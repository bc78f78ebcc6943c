"""OpenVINO as an engine: reads the graph from memory, computes as its spec says, never changes the device."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.engines.base import WARM_UP_RUNS, EngineOptions, Installed, NodeTime, Outputs
from edge_fer.engines.contract import TypeNames, Value, check_contract, check_images, one_line
from edge_fer.errors import EngineError, MissingEngineError
from edge_fer.spec import GRAPH_FILES, ModelSpec

if TYPE_CHECKING:
    import openvino

_GRAPH, _WEIGHTS = GRAPH_FILES["openvino"]
_TYPES = TypeNames("u8", "f32")
# Left to itself OpenVINO computes in bfloat16 on processors with AMX, in float16 on many GPUs.
_FLOAT32 = "f32"
_BFLOAT16 = "bf16"


@dataclass(frozen=True, slots=True)
class _Settings:
    """Where and how a graph runs."""

    device: str
    precision: str
    threads: int | None
    profile: bool

    @property
    def row_by_row(self) -> bool:
        """True on the processor: a graph for one face is a fifth faster, and no face sees another."""
        return self.device == "CPU"

    def properties(self) -> dict[str, str]:
        """Return OpenVINO's properties."""
        chosen = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.precision}
        if self.threads is not None:
            chosen["INFERENCE_NUM_THREADS"] = str(self.threads)
        if self.profile:
            chosen["PERF_COUNT"] = "YES"
        return chosen


class OpenVinoEngine:
    """A graph that OpenVINO has compiled for one device."""

    name = "openvino"

    def __init__(self, model: openvino.Model, core: openvino.Core, settings: _Settings, version: str) -> None:
        self._settings = settings
        self._version = version
        self._inputs = [_value(port) for port in model.inputs]
        self._outputs = [_value(port) for port in model.outputs]
        check_contract(self._inputs, self._outputs, None, _TYPES)
        self._size = int(self._inputs[0].shape[1] or 0)
        if settings.row_by_row:
            model.reshape([1, self._size, self._size, 3])
        compiled = core.compile_model(model, settings.device, settings.properties())
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()  # a request holds one inference at a time
        self._runs = 0

    @classmethod
    def installed(cls) -> Installed:
        """Import OpenVINO and return its version and devices.

        Raises:
            MissingEngineError: it does not import.
        """
        library = _import_openvino()
        devices = (name.lower() for name in library.Core().available_devices)
        version = str(library.__version__).partition("-")[0]  # the rest tells its makers of their build
        return Installed("openvino", version, tuple(sorted(devices)))

    @classmethod
    def load(cls, bundle: Bundle, options: EngineOptions) -> OpenVinoEngine:
        """Load a verified bundle's graph and compare it with the spec.

        Raises:
            EngineError: OpenVINO does not load, lacks the device, or the graph breaks the contract.
        """
        graph, weights = bundle.member(_GRAPH), bundle.member(_WEIGHTS)
        engine = cls.from_bytes(graph, weights, options, bundle.spec.float_compute)
        engine.check_contract(bundle.spec)
        return engine

    @classmethod
    def from_bytes(
        cls, graph: bytes, weights: bytes, options: EngineOptions | None = None, float_compute: str = "fp32"
    ) -> OpenVinoEngine:
        """Load a graph (the .xml) and its weights (the .bin) that are in no bundle yet.

        Args:
            graph: the .xml.
            weights: the .bin.
            options: what the user chose.
            float_compute: what float operators compute in; bf16 stands for fp32 where the device has none.

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
        if options.threads is not None and device != "CPU":
            raise EngineError(f"--threads are the processor's: leave them out with the device {device}")
        native = _BFLOAT16.upper() in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        precision = _BFLOAT16 if float_compute == "bf16" and native else _FLOAT32
        try:
            model = core.read_model(model=graph, weights=weights)
            settings = _Settings(device, precision, options.threads, options.profile)
            return cls(model, core, settings, library.__version__)
        except (RuntimeError, TypeError, ValueError) as error:
            raise EngineError(f"openvino does not load this graph on {device}: {one_line(error)}") from error

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
        step = 1 if self._settings.row_by_row else len(images)
        parts = [self._infer(images[start : start + step]) for start in range(0, len(images), step)]
        columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        return _pack({value.name: array for value, array in zip(self._outputs, columns, strict=True)})

    def _infer(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        try:
            with self._lock:
                results = self._request.infer([np.ascontiguousarray(images)])
                self._runs += 1
                return [results[index] for index in range(len(self._outputs))]
        except RuntimeError as error:
            raise EngineError(f"openvino failed on this graph: {one_line(error)}") from error

    def describe(self) -> dict[str, object]:
        """Return engine, version, device, precision and threads (None: OpenVINO's own choice)."""
        return {
            "engine": self.name,
            "version": self._version,
            "device": self._settings.device,
            "precision": self._settings.precision,
            "threads": self._settings.threads,
        }

    def profile(self, images: NDArray[np.uint8], runs: int) -> list[list[NodeTime]]:
        """Return what every node took on average over some runs, which is all that OpenVINO tells: one list.

        Args:
            images: (N, S, S, 3) uint8 RGB 0..255.
            runs: how often the graph runs, after `WARM_UP_RUNS` that are not counted.

        Raises:
            EngineError: OpenVINO failed, or the engine was not loaded with `EngineOptions.profile`.
        """
        for _ in range(WARM_UP_RUNS):
            self.run(images)
        before = _totals(self._request, self._runs)
        for _ in range(runs):
            self.run(images)
        found = _totals(self._request, self._runs)
        if not any(total_ms for _, total_ms in found.values()):
            raise EngineError("this graph was not compiled for a profile: load it with profile=True")
        fused = _attention_subgraphs(self._request)
        return [
            [
                NodeTime(
                    "Attention subgraph" if name in fused else kind,
                    max(0.0, total_ms - before.get(name, (kind, 0.0))[1]) / runs,
                )
                for name, (kind, total_ms) in found.items()
            ]
        ]


def _import_openvino() -> Any:  # the library comes without types
    # `import openvino` reports to its maker through the package openvino_telemetry; only a file in the home
    # folder or CI=true would stop it. Without that package it says nothing: None makes its import fail.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingEngineError("openvino", one_line(error), "pip install 'edge-fer[openvino]'") from error
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


def _value(port: Any) -> Value:
    names = port.get_names()
    axes = (axis.get_length() if axis.is_static else None for axis in port.get_partial_shape())
    return Value(min(names) if names else "", port.get_element_type().get_type_name(), tuple(axes))


def _totals(request: openvino.InferRequest, runs: int) -> dict[str, tuple[str, float]]:
    """Return the type of each node that was executed, and the milliseconds that all its runs took together.

    OpenVINO counts the mean since the graph was compiled, in whole microseconds. The first run prepares
    weights and takes a hundred times as long, so that only a difference of totals tells of the later ones.
    """
    return {
        node.node_name: (str(node.node_type), node.real_time.total_seconds() * 1e3 * runs)
        for node in request.get_profiling_info()
        if node.status == node.EXECUTED
    }


def _attention_subgraphs(request: openvino.InferRequest) -> set[str]:
    """Return the names of the subgraphs into which both matrix products of an attention were fused.

    The compiled graph calls them Subgraph, like a chain of additions; it tells the names of what is in them.
    """
    found = set()
    for node in request.get_compiled_model().get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) == "Subgraph":
            layers = info["originalLayersNames"].astype(str).lower()
            if layers.count("matmul") >= 2 and "softmax" in layers:
                found.add(node.get_friendly_name())
    return found


def _empty(value: Value) -> NDArray[np.float32]:
    return np.zeros((0, *(axis or 0 for axis in value.shape[1:])), np.float32)


def _pack(values: dict[str, NDArray[np.float32]]) -> Outputs:
    return Outputs(values["probabilities"], values["primary"], values["reliability"], values.get("embedding"))
