"""The ranges of an ONNX graph's activations on calibration faces."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, TensorsData, create_calibrator

from calibrate.tails import Tails

Progress = Callable[[int], None]
ESTIMATORS = ("minmax", "percentile", "entropy")
# Whole activations are in memory, of so many faces at a time.
BATCH = 5


class CropReader(CalibrationDataReader):
    """Feeds one batch of crops (N, S, S, 3) uint8 to one of the tool's calibrators."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self.batches = [{"image": crops}]

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the batch, then None."""
        return self.batches.pop() if self.batches else None


def find_ranges(
    model: onnx.ModelProto,
    types: Collection[str],
    crops: NDArray[np.uint8],
    estimator: str,
    progress: Progress,
) -> TensorsData:
    """Run the float graph on every crop and estimate the range of all that nodes of these types touch.

    Args:
        model: the graph that will be quantised, after its preparation: with all shapes.
        types: operator types.
        crops: (N, S, S, 3) uint8 calibration faces.
        estimator: minmax, percentile or entropy.
        progress: called with the number of faces seen.
    """
    if estimator == "percentile":
        return find_percentiles(model, types, crops, progress)
    method = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}[estimator]
    with tempfile.TemporaryDirectory() as folder:
        source, augmented = Path(folder) / "float.onnx", Path(folder) / "augmented.onnx"
        onnx.save(model, source)
        calibrator = create_calibrator(source, list(types), str(augmented), method)
        for batch in batches(crops, progress):
            calibrator.collect_data(CropReader(batch))
        return calibrator.compute_data()


def find_percentiles(
    model: onnx.ModelProto, types: Collection[str], crops: NDArray[np.uint8], progress: Progress
) -> TensorsData:
    """Do `find_ranges` with percentiles, exactly: the tool's histograms take minutes on large graphs."""
    open_graph = onnx.ModelProto()
    open_graph.CopyFrom(model)
    names = activations(model, types)
    known = {output.name for output in model.graph.output}
    open_graph.graph.output.extend(item for item in model.graph.value_info if item.name in names - known)
    options = onnxruntime.SessionOptions()
    # Fused away, a tensor could not be asked for; and the engine's own layouts would be converted back.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        open_graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = [output.name for output in session.get_outputs() if output.name in names]
    tails: dict[str, Tails] = {}
    for batch in batches(crops, progress):
        for name, values in zip(wanted, session.run(wanted, {"image": batch}), strict=True):
            total = values.size // len(batch) * len(crops)
            tails.setdefault(name, Tails(total)).add(values)
    ranges = {name: tuple(np.array(end, np.float32) for end in tail.range()) for name, tail in tails.items()}
    return TensorsData(CalibrationMethod.MinMax, ranges)


def activations(model: onnx.ModelProto, types: Collection[str]) -> set[str]:
    """Return the names of the float tensors with the faces as first axis that nodes of some types touch."""
    constants = {item.name for item in model.graph.initializer}
    touched = {
        name
        for node in model.graph.node
        if node.op_type in types
        for name in (*node.input, *node.output)
        if name not in constants
    }
    described = (*model.graph.value_info, *model.graph.output)
    return {
        item.name
        for item in described
        if item.name in touched and item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }


def batches(crops: NDArray[np.uint8], progress: Progress) -> Iterator[NDArray[np.uint8]]:
    """Yield the crops in batches and tell how many were taken so far."""
    for start in range(0, len(crops), BATCH):
        batch = crops[start : start + BATCH]
        yield batch
        progress(start + len(batch))
