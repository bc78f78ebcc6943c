"""TensorFlow Lite as an engine: ai-edge-litert, or tflite_runtime where only that is installed."""

from __future__ import annotations

import importlib
import threading
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.engines.base import EngineOptions, Installed, NodeTime, Outputs
from edge_fer.engines.contract import TypeNames, Value, check_contract, check_images, one_line
from edge_fer.errors import EngineError, MissingEngineError
from edge_fer.native_log import without_information
from edge_fer.spec import ModelSpec

_PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
_PROVIDERS = ("cpu", "xnnpack")
_TYPES = TypeNames("uint8", "float32")


class TfliteEngine:
    """A graph in a TensorFlow Lite interpreter, on the processor with XNNPACK."""

    name = "tflite"

    def __init__(self, interpreter: Any, package: str, threads: int | None, spec: ModelSpec | None) -> None:
        self._interpreter = interpreter
        self._lock = threading.Lock()  # an interpreter has one set of tensors: faces of two callers would mix
        self._package = package
        self._threads = threads
        self._profiled_graph: bytes | None = None
        inputs, outputs = _check_contract(interpreter, spec)
        self._image = int(inputs["image"]["index"])
        self._size = int(inputs["image"]["shape"][1])
        # Tensor and shape of one face's answer.
        self._outputs = {
            name: (int(details["index"]), tuple(int(side) for side in details["shape"][1:]))
            for name, details in outputs.items()
        }

    @classmethod
    def installed(cls) -> Installed:
        """Import TensorFlow Lite and return the package that it comes from, its version and providers.

        Raises:
            MissingEngineError: neither package imports.
        """
        _, package = _import_interpreter()
        return Installed(_PACKAGES[package], _version(package), _PROVIDERS)

    @classmethod
    def load(cls, bundle: Bundle, options: EngineOptions) -> TfliteEngine:
        """Load a verified bundle's graph and compare it with the spec.

        Raises:
            EngineError: TensorFlow Lite is not installed, or the graph breaks the contract.
        """
        return cls.from_bytes(bundle.graph, options, bundle.spec)

    @classmethod
    def from_bytes(
        cls, graph: bytes, options: EngineOptions | None = None, spec: ModelSpec | None = None
    ) -> TfliteEngine:
        """Load a graph that is in no bundle yet.

        Raises:
            EngineError: TensorFlow Lite is not installed, the options ask for more than the processor, or the
                graph breaks the contract.
        """
        options = options or EngineOptions()
        _check_place(options)
        interpreter_class, package = _import_interpreter()
        try:
            with without_information():
                interpreter = interpreter_class(model_content=graph, num_threads=options.threads)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"tflite does not load this graph: {one_line(error)}") from error
        engine = cls(interpreter, package, options.threads, spec)
        engine._profiled_graph = graph if options.profile else None
        return engine

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the graph, which takes one face at a time, on every row.

        Args:
            images: (N, S, S, 3) uint8 RGB 0..255.

        Raises:
            EngineError: the images are not of that shape and type, or TensorFlow Lite failed.
        """
        check_images(images, self._size)
        count = len(images)
        values = {name: np.empty((count, *shape), np.float32) for name, (_, shape) in self._outputs.items()}
        interpreter = self._interpreter
        try:
            for row in range(count):
                with self._lock:
                    interpreter.set_tensor(self._image, images[row : row + 1])
                    interpreter.invoke()
                    for name, (index, _) in self._outputs.items():
                        values[name][row : row + 1] = interpreter.get_tensor(index)
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"tflite failed on this graph: {one_line(error)}") from error
        return Outputs(**values)

    def describe(self) -> dict[str, object]:
        """Return engine, version, provider and threads (None: TensorFlow Lite's own choice)."""
        return {
            "engine": self.name,
            "version": f"{_PACKAGES[self._package]} {_version(self._package)}",
            "provider": "xnnpack",
            "threads": self._threads,
        }

    def profile(self, images: NDArray[np.uint8], runs: int) -> list[list[NodeTime]]:
        """Return what every node took in each of some runs of one face, XNNPACK's nodes included.

        Args:
            images: (N, S, S, 3) uint8 RGB 0..255; the first one is taken.
            runs: how often the graph runs, after `WARM_UP_RUNS` that are not counted.

        Raises:
            EngineError: the installed TensorFlow Lite cannot tell, or the engine was not loaded with
                `EngineOptions.profile`.
        """
        check_images(images, self._size)
        if self._profiled_graph is None:
            raise EngineError("this graph was not loaded for a profile: load it with profile=True")
        from edge_fer.engines.litert import LiteRtProfile

        with without_information(), LiteRtProfile(self._profiled_graph, self._threads) as profile:
            return profile.run(images[:1], runs)


def _version(package: str) -> str:
    try:
        return version(_PACKAGES[package])
    except PackageNotFoundError:  # built from source, as boards have it
        return "unknown"


def _check_place(options: EngineOptions) -> None:
    """Refuse every place but the processor: this engine knows no other."""
    if (options.device or "cpu").lower() != "cpu":
        raise EngineError(f"the engine tflite runs on the device cpu, got {options.device}")
    if (options.provider or "cpu").lower() not in _PROVIDERS:
        raise EngineError(
            f"the engine tflite has the providers {' and '.join(_PROVIDERS)}, got {options.provider}"
        )


def _import_interpreter() -> tuple[Any, str]:
    """Return the Interpreter class and the package that it comes from.

    Raises:
        MissingEngineError: neither package imports.
    """
    errors: list[ImportError] = []
    for package in _PACKAGES:
        try:
            return importlib.import_module(f"{package}.interpreter").Interpreter, package
        except ImportError as error:
            errors.append(error)
    # One that is there and broken says more than one that is not there.
    told = next((error for error in errors if not isinstance(error, ModuleNotFoundError)), errors[0])
    raise MissingEngineError("tflite", one_line(told), "pip install 'edge-fer[tflite]'") from told


def _check_contract(
    interpreter: Any, spec: ModelSpec | None
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Compare the graph with the contract, and with a bundle's spec if there is one.

    Returns:
        The details of the input and of the outputs, by the names of the graph's one signature.

    Raises:
        EngineError: the graph breaks the contract.
    """
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        raise EngineError(
            f"the graph breaks the bundle's contract: {len(signatures)} signatures instead of 1; "
            "export it again"
        )
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    inputs, outputs = dict(runner.get_input_details()), dict(runner.get_output_details())
    found, given = ([_value(*item) for item in side.items()] for side in (inputs, outputs))
    check_contract(found, given, spec, _TYPES, batch=1)
    return inputs, outputs


def _value(name: str, details: dict[str, Any]) -> Value:
    return Value(name, str(np.dtype(details["dtype"])), tuple(int(side) for side in details["shape"]))
