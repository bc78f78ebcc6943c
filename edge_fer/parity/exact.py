"""The gates without sampling: one counterexample is enough. preprocess, batch and fp32 export.

Knows the golden samples and the engine's `run`; the sampled gates are in `sampled`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import EdgeFerError
from edge_fer.images import decode_image
from edge_fer.parity import metrics
from edge_fer.parity.gates import BATCH, FP32, PREPROCESS, Gate, Thresholds, not_run
from edge_fer.parity.metrics import FloatArray
from edge_fer.preprocess import crop_face, crop_whole

if TYPE_CHECKING:
    from edge_fer.engines.base import Engine, Outputs
    from edge_fer.samples import Golden
    from edge_fer.spec import ModelSpec

BATCH_FACES = 16


def preprocess_gate(golden: Golden | None, spec: ModelSpec) -> Gate:
    """Judge whether this machine decodes and crops every golden source to the same pixels.

    Args:
        golden: the golden samples of the bundle, None when it has none.
        spec: of the bundle; its `input` says how faces are cropped.
    """
    if golden is None or len(golden.sources) == 0:
        return not_run(PREPROCESS, "the bundle holds no golden samples")
    wrong = [index for index in range(len(golden.sources)) if not _same_crop(golden, index, spec)]
    total = len(golden.sources)
    reason = f"{total} of {total} golden crops are identical"
    if wrong:
        which = ", ".join(map(str, wrong))
        reason = f"{len(wrong)} of {total} golden crops differ from the export: sample {which}"
    return Gate(PREPROCESS, len(wrong), None, 0, "failed" if wrong else "passed", reason)


def _same_crop(golden: Golden, index: int, spec: ModelSpec) -> bool:
    try:
        image = decode_image(golden.sources[index], f"golden sample {index}")
        if golden.whole[index]:
            crop = crop_whole(image, spec.input)
        else:
            x, y, width, height = (float(side) for side in golden.boxes[index])
            points = golden.landmarks[index]
            landmarks = None if np.isnan(points).any() else points
            crop = crop_face(image, (x, y, width, height), landmarks, spec.input)
    except EdgeFerError:
        return False  # a source this machine cannot decode is a difference like any other
    return np.array_equal(crop, golden.crops[index])


def batch_gate(
    engine: Engine, crops: NDArray[np.uint8] | None, precision: str, limits: Thresholds | None = None
) -> Gate:
    """Judge whether a face's outputs depend on the faces beside it.

    Up to 16 faces run alone, then all in one batch, in reverse among black, white and mirrored pictures, and
    in small groups of a shuffled order.

    Args:
        engine: that holds the bundle.
        crops: (N, S, S, 3) uint8 RGB; None when there are none.
        precision: fp32, fp16 (largest absolute difference of any output) or int8 (changed labels).
        limits: thresholds; None for the defaults.
    """
    limits = Thresholds() if limits is None else limits
    if crops is None or len(crops) == 0:
        return not_run(BATCH, "there are no crops to run")
    spread = np.linspace(0, len(crops) - 1, min(BATCH_FACES, len(crops))).astype(np.int64)
    crops = crops[spread]
    alone = [engine.run(crop[None]) for crop in crops]
    largest, changed = 0.0, set[int]()
    for faces, positions, outputs in _company(engine, crops, limits.seed):
        for face, position in zip(faces, positions, strict=True):
            # np.maximum, unlike max(), lets a NaN through to the verdict
            largest = float(np.maximum(largest, _row_difference(alone[face], 0, outputs, position)))
            if alone[face].probabilities[0].argmax() != outputs.probabilities[position].argmax():
                changed.add(face)
    reason = (
        f"{len(crops)} faces alone and in other company: max abs diff {largest:.2g}, {len(changed)} flips"
    )
    if precision == "int8":
        passed = len(changed) <= limits.batch_flips and np.isfinite(largest)
        value, threshold = float(len(changed)), float(limits.batch_flips)
    else:
        passed, value, threshold = largest <= limits.batch_diff, largest, limits.batch_diff
    return Gate(BATCH, value, None, threshold, "passed" if passed else "failed", reason)


def _company(
    engine: Engine, crops: NDArray[np.uint8], seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Outputs]]:
    """Yield batches as the faces they hold, the rows these stand in, and the outputs."""
    faces = np.arange(len(crops))
    yield faces, faces, engine.run(crops)
    strangers = [np.zeros_like(crops[:1]), np.full_like(crops[:1], 255), crops[:, :, ::-1]]
    mixed = np.concatenate([strangers[0], crops[::-1], *strangers[1:]])
    yield faces[::-1], faces + 1, engine.run(mixed)
    shuffled = np.random.default_rng(seed).permutation(len(crops))
    for group in np.array_split(shuffled, max(1, len(crops) // 3)):
        yield group, np.arange(len(group)), engine.run(crops[group])


def _row_difference(one: Outputs, row: int, other: Outputs, position: int) -> float:
    pairs = (
        (one.probabilities[row], other.probabilities[position]),
        (one.primary[row], other.primary[position]),
        (one.reliability[row], other.reliability[position]),
    )
    return float(np.max([np.abs(np.subtract(a, b, dtype=np.float64)).max() for a, b in pairs]))


def fp32_gate(expected: FloatArray, got: FloatArray, limits: Thresholds | None = None) -> Gate:
    """Judge whether the fp32 graph computes what the checkpoint does.

    Top-1 agreement has to be complete. Where the checkpoint itself holds its top class and the graph's within
    1e-6 of each other, it has no single top label, and either one agrees.

    Args:
        expected: (N, C) `probabilities` of the checkpoint.
        got: (N, C) `probabilities` of the fp32 graph on the same faces.
        limits: thresholds; None for the defaults.
    """
    limits = Thresholds() if limits is None else limits
    faces = len(expected)
    if faces == 0:
        return not_run(FP32, "there are no faces to compare")
    largest = float(np.abs(np.subtract(got, expected, dtype=np.float64)).max())
    rows, theirs, ours = np.arange(faces), metrics.top1(expected), metrics.top1(got)
    margin = np.subtract(expected[rows, theirs], expected[rows, ours], dtype=np.float64)
    agreed = int((margin <= limits.fp32_tie).sum())
    passed = largest <= limits.fp32_diff and agreed == faces
    reason = f"max abs diff {largest:.2g}, the top label agrees on {agreed} of {faces} faces"
    return Gate(FP32, largest, None, limits.fp32_diff, "passed" if passed else "failed", reason)
