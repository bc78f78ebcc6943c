"""The plain path to int8: what the tools make of a network by themselves, and how fast it is.

torch.onnx.export with its defaults, quant_pre_process, quantize_static (QDQ, per channel, u8s8, MinMax) of
every operator that the tool can. `engines` measures it beside our bundles.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnxruntime

    from calibrate.manifest import CalibrationSet
    from edge_fer.bench.profile import Profile
    from export.source import Source


def make_graphs(source: Source, calibration: CalibrationSet, work: Path) -> Path:
    """Return the folder of fp32.onnx and int8.onnx, made once for a network, faces and the tools."""
    parts = (source.sha256, calibration.sha256(), version("torch"), version("onnxruntime"))
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    folder = work / f"plain-{source.network.spec.model}-{key}"
    if not folder.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            export(source, made / "fp32.onnx")
            quantise(made / "fp32.onnx", made / "int8.onnx", calibration.crops)
            os.replace(made, folder)
    return folder


def export(source: Source, path: Path) -> None:
    """Write the network as ONNX by the exporter's own choices; its weights lie in a file beside the graph."""
    import torch

    from export.onnx import quiet_exporter
    from export.wrapper import FusedGraph

    size = source.network.spec.input_size
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    with quiet_exporter():
        torch.onnx.export(FusedGraph(source.network).eval(), (example,), path)


def quantise(graph: Path, quantised: Path, crops: NDArray[np.uint8]) -> None:
    """Quantise every operator of a graph that the tool can, on crops (N, S, S, 3) uint8."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from calibrate.quiet import quiet_tool
    from edge_fer.tables import progress

    prepared = graph.with_name("prepared.onnx")
    with progress("plain path: calibrating", len(crops)) as show, quiet_tool():
        quant_pre_process(graph, prepared)
        quantize_static(
            prepared,
            quantised,
            Faces(crops, show),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    prepared.unlink()


class Faces:
    """Crops (N, S, S, 3) uint8 as the tool reads them, one at a time."""

    def __init__(self, crops: NDArray[np.uint8], show: Callable[[int], None]) -> None:
        self.crops, self.show, self.done = crops, show, 0

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next face, None behind the last one."""
        self.show(self.done)
        face = self.crops[self.done : self.done + 1]
        self.done += 1
        return {"image": face} if len(face) else None


def size_bytes(graph: Path) -> int:
    """Return the size of a graph with the weights beside it."""
    return sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*"))


def load(graph: Path, threads: int, image: NDArray[np.uint8]) -> Callable[[], object]:
    """Return one run of a graph on a face (1, S, S, 3) uint8."""
    return partial(open_session(graph, threads).run, None, {"image": image})


def open_session(graph: Path, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """Load a graph with the settings of our own engine; `profile` begins the name of a profile's file."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as our engine does, before the import
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.inter_op_num_threads, settings.intra_op_num_threads = 1, threads
    if profile is not None:
        settings.enable_profiling, settings.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])


def profile(graph: Path, threads: int, image: NDArray[np.uint8], runs: int) -> Profile:
    """Return where the time of a graph goes."""
    from edge_fer.bench.profile import summarise
    from edge_fer.engines.base import NodeTime

    with tempfile.TemporaryDirectory() as folder:
        session = open_session(graph, threads, Path(folder) / "profile")
        for _ in range(runs):
            session.run(None, {"image": image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = [event for event in events if event["name"].endswith("_kernel_time")]
    nodes = [NodeTime(event["args"]["op_name"], event["dur"] / 1e3) for event in ran]
    each = len(nodes) // runs
    return summarise([nodes[start : start + each] for start in range(0, len(nodes), each)])
