"""ONNX Runtime as an engine: checks the graph against the contract and never changes the provider."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle
from edge_fer.engines.base import WARM_UP_RUNS, EngineOptions, Installed, NodeTime, Outputs, usable_cores
from edge_fer.engines.contract import TypeNames, check_contract, check_images, one_line
from edge_fer.errors import EngineError, MissingEngineError
from edge_fer.spec import ModelSpec

if TYPE_CHECKING:
    import onnxruntime

_SUFFIX = "ExecutionProvider"
_TYPES = TypeNames("tensor(uint8)", "tensor(float)")
FATAL = 4  # what goes wrong is raised and told in one line; the library's own log would be many


class OnnxRuntimeEngine:
    """A graph in an ONNX Runtime session."""

    name = "onnxruntime"

    def __init__(
        self, session: onnxruntime.InferenceSession, provider: str, threads: int | None, version: str
    ) -> None:
        self._session = session
        self._provider = provider
        self._threads = threads
        self._version = version
        self._output_names = [output.name for output in session.get_outputs()]
        self._errors = runtime_errors()
        self._profile_folder: tempfile.TemporaryDirectory[str] | None = None
        _check_contract(session, None)
        self._size = int(session.get_inputs()[0].shape[1])

    @classmethod
    def installed(cls) -> Installed:
        """Import ONNX Runtime and return its package, version and providers.

        Raises:
            MissingEngineError: it does not import.
        """
        library = _import_onnxruntime()
        package = str(getattr(library, "package_name", "onnxruntime"))  # onnxruntime-gpu calls itself so
        places = _friendly(library.get_available_providers())
        return Installed(package, library.__version__, tuple(sorted(places)))

    @classmethod
    def load(cls, bundle: Bundle, options: EngineOptions) -> OnnxRuntimeEngine:
        """Load a verified bundle's graph and compare it with the spec.

        Raises:
            EngineError: ONNX Runtime or the provider does not load, or the graph breaks the contract.
        """
        engine = cls.from_bytes(bundle.graph, options)
        _check_contract(engine._session, bundle.spec)
        return engine

    @classmethod
    def from_bytes(cls, graph: bytes, options: EngineOptions | None = None) -> OnnxRuntimeEngine:
        """Load a graph that is in no bundle yet.

        Raises:
            EngineError: ONNX Runtime or the provider does not load, or the graph breaks the contract.
        """
        options = options or EngineOptions()
        onnxruntime = _import_onnxruntime()
        provider, provider_options = _choose_provider(options, onnxruntime.get_available_providers())
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = FATAL
        settings.inter_op_num_threads = 1
        threads = options.threads or _kept_to()
        if threads is not None:
            settings.intra_op_num_threads = threads
        folder = None
        if options.profile:
            folder = tempfile.TemporaryDirectory(prefix="edge-fer-")
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder.name) / "profile")
        try:
            session = onnxruntime.InferenceSession(
                graph, settings, providers=[(provider, provider_options)], enable_fallback=0
            )
        except runtime_errors() as error:
            raise EngineError(
                f"onnxruntime does not load this graph with {provider}: {one_line(error)}"
            ) from error
        loaded = session.get_providers()
        if not loaded or loaded[0] != provider:
            raise EngineError(
                f"{provider} did not load, onnxruntime offers {', '.join(loaded)} in its place: "
                "install what the provider needs, or ask for --provider cpu"
            )
        session.disable_fallback()
        engine = cls(session, provider, threads, onnxruntime.__version__)
        engine._profile_folder = folder
        return engine

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The raw session, for measuring what this class adds to it."""
        return self._session

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the graph once.

        Args:
            images: (N, S, S, 3) uint8 RGB 0..255.

        Raises:
            EngineError: the images are not of that shape and type, or ONNX Runtime failed.
        """
        check_images(images, self._size)
        try:
            values: list[Any] = self._session.run(self._output_names, {"image": np.ascontiguousarray(images)})
        except self._errors as error:
            raise EngineError(f"onnxruntime failed on this graph: {one_line(error)}") from error
        outputs = dict(zip(self._output_names, values, strict=True))
        return Outputs(
            outputs["probabilities"], outputs["primary"], outputs["reliability"], outputs.get("embedding")
        )

    def describe(self) -> dict[str, object]:
        """Return engine, version, provider and threads (None: ONNX Runtime's own choice)."""
        return {
            "engine": self.name,
            "version": self._version,
            "provider": self._provider,
            "threads": self._threads,
        }

    def profile(self, images: NDArray[np.uint8], runs: int) -> list[list[NodeTime]]:
        """Return what every node took in each of some runs; ends the session's only profile.

        Args:
            images: (N, S, S, 3) uint8 RGB 0..255.
            runs: how often the graph runs, after `WARM_UP_RUNS` that are not counted.

        Raises:
            EngineError: ONNX Runtime failed, or the engine was not loaded with `EngineOptions.profile`.
        """
        if self._profile_folder is None:
            raise EngineError("this session was not loaded for a profile: load it with profile=True")
        for _ in range(WARM_UP_RUNS + runs):
            self.run(images)
        with self._profile_folder:
            events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        self._profile_folder = None
        nodes = [
            NodeTime(str(event["args"]["op_name"]), event["dur"] / 1e3)
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        ]
        recorded = sum(event["name"] == "model_run" for event in events)  # those before this call, too
        each, rest = divmod(len(nodes), recorded)
        if rest or not each:
            raise EngineError(
                f"onnxruntime: expected the same nodes in {recorded} runs, its profile has {len(nodes)}"
            )
        return [nodes[start : start + each] for start in range((recorded - runs) * each, len(nodes), each)]


def _import_onnxruntime() -> Any:  # the library comes without types
    # From 1.29 on the Linux wheels report to their maker unless told not to before they are imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingEngineError("onnxruntime", one_line(error), "pip install onnxruntime") from error


def _kept_to() -> int | None:
    """Return the cores this process is kept to, None where it may run on all of them.

    ONNX Runtime counts the machine's cores: more threads than cores spin in each other's way (resnet18 under
    `taskset -c 0` on two cores: 11 faces per second instead of 24).
    """
    cores = usable_cores()
    return cores if cores < (os.cpu_count() or 1) else None


def _friendly(available: list[str]) -> dict[str, str]:
    """Return ONNX Runtime's names of providers by the names that the options take."""
    return {name.removesuffix(_SUFFIX).lower(): name for name in available}


def _choose_provider(options: EngineOptions, available: list[str]) -> tuple[str, dict[str, str]]:
    """Return ONNX Runtime's name and options of the provider asked for; the processor when none is."""
    kind, _, index = (options.device or "").lower().partition(":")
    kind = "cuda" if kind == "gpu" else kind
    asked = (options.provider or kind or "cpu").lower()
    friendly = _friendly(available)
    provider = friendly.get(asked.removesuffix(_SUFFIX.lower()))
    if provider is None:
        raise EngineError(
            f"the provider {asked} is not in this onnxruntime: available are {', '.join(sorted(friendly))}; "
            "install the onnxruntime that has it, or choose one of these"
        )
    if index and not index.isdecimal():
        raise EngineError(f"expected a device like cpu, cuda or cuda:1, got {options.device}")
    on_processor = provider == "CPU" + _SUFFIX
    if kind and on_processor != (kind == "cpu") and provider != "Xnnpack" + _SUFFIX:
        raise EngineError(
            f"the device {options.device} and the provider {asked} exclude each other: name one of them"
        )
    return provider, {"device_id": index} if index and not on_processor else {}


def _check_contract(session: onnxruntime.InferenceSession, spec: ModelSpec | None) -> None:
    check_contract(session.get_inputs(), session.get_outputs(), spec, _TYPES)


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of ONNX Runtime, which have no common base below Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, ValueError, RuntimeError)
