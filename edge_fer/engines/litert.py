"""LiteRT's profiler, through its C interface: the Python package can run a graph but not time its nodes.

It counts inside XNNPACK, node by node. The library is the one that the interpreter comes with, and it takes
the same kernels; its records have no published layout, so only the versions that were looked at are read.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.engines.base import WARM_UP_RUNS, NodeTime
from edge_fer.errors import EngineError

_KNOWN_VERSIONS = ("2.3.",)  # 2.1.6 gave functions a new first argument: a wrong guess is a crash
_PROCESSOR = 1
_TYPE_BYTES = 512  # an element type, and a layout of at most 8 axes with strides
_LOCK_WRITE = 2
# Events of nodes: of the interpreter's own, and of a delegate's; the others contain these or are no nodes.
_NODE_EVENTS = (2, 4, 8)

_Deleter = ctypes.CFUNCTYPE(None, c_void_p)


class _Event(ctypes.Structure):
    """A profiler's record, as LiteRT 2.3 lays it out; the memory figures are not used."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_int64),
        ("elapsed_us", c_int64),
        ("memory", c_int64 * 6),
        ("metadata", c_int64 * 2),
        ("source", c_int),
    )


class LiteRtProfile:
    """A graph in LiteRT's compiled model with its profiler; use as a context, which frees it.

    Raises:
        EngineError: LiteRT is not there in a version whose records are known, or refuses the graph.
    """

    def __init__(self, graph: bytes, threads: int | None) -> None:
        self._library = ctypes.CDLL(str(_library_path()))
        self._handles: list[tuple[str, c_void_p]] = []
        self._kept: list[object] = [graph]  # LiteRT reads these where they are, as long as it lives
        try:
            self._open(graph, threads)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LiteRtProfile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free everything, the last made first."""
        while self._handles:
            kind, handle = self._handles.pop()
            getattr(self._library, f"LiteRtDestroy{kind}")(handle)

    def run(self, image: NDArray[np.uint8], runs: int) -> list[list[NodeTime]]:
        """Return what every node took in each of some runs, after `WARM_UP_RUNS`.

        Args:
            image: (1, S, S, 3) uint8 RGB 0..255.
            runs: how often the graph runs.

        Raises:
            EngineError: LiteRT failed.
        """
        self._write(image)
        for _ in range(WARM_UP_RUNS):
            self._invoke()
        return [self._profiled() for _ in range(runs)]

    def _open(self, graph: bytes, threads: int | None) -> None:
        environment = self._make("Environment", "CreateEnvironment", c_int(0), None)
        model = self._make(
            "Model", "CreateModelFromBuffer", environment, c_char_p(graph), c_size_t(len(graph))
        )
        options = self._make("Options", "CreateOptions")
        self._call("SetOptionsHardwareAccelerators", options, c_int(_PROCESSOR))
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        self._add(options, "xnnpack", f"num_threads = {threads or 1}\n")  # the interpreter's own choice is 1
        self._model = self._make("CompiledModel", "CreateCompiledModel", environment, model, options)
        self._profiler = self._get("CompiledModelGetProfiler", self._model)
        if not self._profiler:
            raise EngineError("tflite: LiteRT has no profiler for this graph")
        signature = self._get("GetModelSignature", model, c_size_t(0))
        self._inputs = self._buffers("Input", environment, signature)
        self._outputs = self._buffers("Output", environment, signature)

    def _buffers(self, side: str, environment: c_void_p, signature: c_void_p) -> list[c_void_p]:
        count = c_size_t()
        self._call(f"GetNumSignature{side}s", signature, byref(count))
        buffers = []
        for index in map(c_size_t, range(count.value)):
            needs = self._get(f"GetCompiledModel{side}BufferRequirements", self._model, c_size_t(0), index)
            tensor = self._get(f"GetSignature{side}TensorByIndex", signature, index)
            kind = ctypes.create_string_buffer(_TYPE_BYTES)
            self._call("GetRankedTensorType", tensor, kind)
            buffers.append(
                self._make(
                    "TensorBuffer", "CreateManagedTensorBufferFromRequirements", environment, kind, needs
                )
            )
        return buffers

    def _write(self, image: NDArray[np.uint8]) -> None:
        size, address = c_size_t(), c_void_p()
        self._call("GetTensorBufferPackedSize", self._inputs[0], byref(size))
        if size.value != image.nbytes:
            raise EngineError(f"tflite: expected an image of {size.value} bytes, got {image.nbytes}")
        self._call("LockTensorBuffer", self._inputs[0], byref(address), c_int(_LOCK_WRITE))
        ctypes.memmove(address, np.ascontiguousarray(image).ctypes.data, image.nbytes)
        self._call("UnlockTensorBuffer", self._inputs[0])

    def _invoke(self) -> None:
        sides = [
            argument
            for buffers in (self._inputs, self._outputs)
            for argument in (c_size_t(len(buffers)), (c_void_p * len(buffers))(*buffers))
        ]
        self._call("RunCompiledModel", self._model, c_size_t(0), *sides)

    def _profiled(self) -> list[NodeTime]:
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        self._invoke()
        self._call("StopProfiler", self._profiler)
        count = c_int()
        self._call("GetNumProfilerEvents", self._profiler, byref(count))
        events = (_Event * max(1, count.value))()
        self._call("GetProfilerEvents", self._profiler, count, events)
        return list(_nodes(events[: count.value]))

    def _add(self, options: c_void_p, identifier: str, text: str) -> None:
        """Attach settings, which LiteRT takes as a TOML text."""
        payload = ctypes.create_string_buffer(text.encode())
        deleter = _Deleter(lambda _: None)  # the text is Python's and stays
        self._kept += [payload, deleter]
        opaque = self._get("CreateOpaqueOptions", c_char_p(identifier.encode()), payload, deleter)
        self._call("AddOpaqueOptions", options, opaque)

    def _make(self, kind: str, function: str, *arguments: object) -> c_void_p:
        handle = self._get(function, *arguments)
        self._handles.append((kind, handle))
        return handle

    def _get(self, function: str, *arguments: object) -> c_void_p:
        handle = c_void_p()
        self._call(function, *arguments, byref(handle))
        return handle

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, f"LiteRt{function}")(*arguments)
        if status != 0:
            raise EngineError(f"tflite: LiteRT's profiler failed with status {status} in LiteRt{function}")


def _nodes(events: list[_Event]) -> Iterator[NodeTime]:
    for event in events:
        if event.kind in _NODE_EVENTS:
            yield NodeTime(event.tag.decode(errors="replace"), event.elapsed_us / 1e3)


def _library_path() -> Path:
    """Return the shared library of a LiteRT whose records are known."""
    try:
        number = version("ai-edge-litert")
    except PackageNotFoundError:
        number = "none"
    spec = importlib.util.find_spec("ai_edge_litert")
    path = Path(spec.origin).parent / "libLiteRt.so" if spec and spec.origin else Path()
    if not number.startswith(_KNOWN_VERSIONS) or not path.is_file():
        raise EngineError(
            "the engine tflite cannot tell the time of its nodes here: expected ai-edge-litert "
            f"{' or '.join(known + 'x' for known in _KNOWN_VERSIONS)} with libLiteRt.so, got {number}; "
            "leave --profile out, or install that version"
        )
    return path
