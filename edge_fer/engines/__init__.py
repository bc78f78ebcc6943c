"""The engines that run a bundle's graph. Only the one that is asked for is imported."""

from __future__ import annotations

import importlib
from typing import cast

from edge_fer.bundle import Bundle
from edge_fer.engines.base import Engine, EngineClass, EngineOptions, Outputs
from edge_fer.errors import EngineError

__all__ = ["Engine", "EngineOptions", "Outputs", "load_engine"]

MAX_THREADS = 64  # engines start every thread they are told to; thousands would take the machine down
_ENGINES = {
    "onnxruntime": "edge_fer.engines.onnxruntime:OnnxRuntimeEngine",
    "openvino": "edge_fer.engines.openvino:OpenVinoEngine",
    "tflite": "edge_fer.engines.tflite:TfliteEngine",
}
_TARGETS = {"onnxruntime": ("onnx",), "openvino": ("openvino",), "tflite": ("tflite",)}


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
    module, _, attribute = _ENGINES[name].partition(":")
    engine_class = cast(EngineClass, getattr(importlib.import_module(module), attribute))
    return engine_class.load(bundle, options)
