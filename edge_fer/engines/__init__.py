"""The engines that run a bundle's graph. Only the one that is asked for is imported."""

from __future__ import annotations

import importlib
from typing import cast

from edge_fer.bundle import Bundle, default_bundle
from edge_fer.engines.base import Engine, EngineClass, EngineOptions, Installed, Outputs, usable_cores
from edge_fer.errors import BundleError, EngineError, MissingEngineError

__all__ = ["NAMES", "Engine", "EngineOptions", "Installed", "Outputs", "installed", "load_engine"]

MAX_THREADS = 64  # engines start every thread they are told to; thousands would take the machine down
_ENGINES = {
    "onnxruntime": "edge_fer.engines.onnxruntime:OnnxRuntimeEngine",
    "openvino": "edge_fer.engines.openvino:OpenVinoEngine",
    "tflite": "edge_fer.engines.tflite:TfliteEngine",
}
NAMES = tuple(_ENGINES)
_TARGETS = {"onnxruntime": ("onnx",), "openvino": ("openvino",), "tflite": ("tflite",)}


def spare_cores() -> int:
    """Return how many threads one inference gets where other work runs beside it: all cores but one.

    Engines keep their threads spinning for the next run.
    """
    return min(max(1, usable_cores() - 1), MAX_THREADS)


def load_engine(bundle: Bundle, options: EngineOptions | None = None) -> Engine:
    """Load a bundle's graph into the engine that was asked for, or into the bundle's own.

    Raises:
        EngineError: the engine is unknown, not installed, cannot run this bundle, or refuses the options.
    """
    options = options or EngineOptions()
    name = options.engine or bundle.spec.engine
    if name not in _ENGINES:
        raise EngineError(
            f"the engine {name} is not available in this version: expected {', '.join(_ENGINES)}"
        )
    if bundle.spec.target not in _TARGETS[name]:
        raise EngineError(
            f"{bundle.path} was exported for {bundle.spec.target}, which the engine {name} cannot run: "
            f"export it with --target {_TARGETS[name][0]}"
        )
    if options.threads is not None and not 1 <= options.threads <= MAX_THREADS:
        raise EngineError(f"expected 1 to {MAX_THREADS} threads, got {options.threads}")
    try:
        return _engine_class(name).load(bundle, options)
    except MissingEngineError as error:
        raise MissingEngineError(name, error.reason, error.remedy, _called(bundle)) from error


def installed(name: str) -> Installed:
    """Import an engine's library, one of `NAMES`, and say what it is.

    Raises:
        MissingEngineError: it does not import here.
    """
    return _engine_class(name).installed()


def _engine_class(name: str) -> EngineClass:
    module, _, attribute = _ENGINES[name].partition(":")
    return cast(EngineClass, getattr(importlib.import_module(module), attribute))


def _called(bundle: Bundle) -> str:
    try:
        embedded = bundle.path == default_bundle()
    except BundleError:
        embedded = False
    return "the embedded bundle" if embedded else str(bundle.path)
