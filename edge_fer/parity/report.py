"""Runs every gate of a bundle on this machine and collects the report.

Knows the engine and the bundle only by what they offer. Writes no file. The parts it ties together are
importable from here, so that a caller needs this module alone.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import BundleError, InputError
from edge_fer.faces import face_hash
from edge_fer.parity import exact, metrics
from edge_fer.parity.comparison import Report, compare, sampled_not_run
from edge_fer.parity.environment import environment
from edge_fer.parity.exact import batch_gate, fp32_gate, preprocess_gate
from edge_fer.parity.figures import divergence_figures
from edge_fer.parity.gates import FP32, Gate, Thresholds, not_run, overall
from edge_fer.parity.metrics import FloatArray
from edge_fer.parity.table import COLUMNS, exit_code, table_rows

if TYPE_CHECKING:
    from edge_fer.bundle import Bundle
    from edge_fer.engines.base import Engine, Outputs
    from edge_fer.samples import Golden, Reference

__all__ = [
    "COLUMNS",
    "Gate",
    "Report",
    "Thresholds",
    "batch_gate",
    "compare",
    "environment",
    "exit_code",
    "fp32_gate",
    "not_run",
    "overall",
    "preprocess_gate",
    "run_parity",
    "table_rows",
]

CHUNK = 64


@dataclass(frozen=True, slots=True)
class _Answers:
    """The checkpoint's outputs and this machine's on the same faces."""

    reference: Reference
    outputs: Outputs


def run_parity(
    *,
    bundle: Bundle,
    engine: Engine,
    reference: Reference | None,
    crops: NDArray[np.uint8] | None,
    thresholds: Thresholds | None = None,
    fp32_gate: Gate | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Run every gate of a bundle on this machine.

    Args:
        bundle: what is measured.
        engine: that holds it.
        reference: the float checkpoint's outputs; None when there are none.
        crops: (N, S, S, 3) uint8 RGB, any of the reference's faces in any order; None when they are not at
            hand, which leaves the golden samples.
        thresholds: None for the defaults.
        fp32_gate: measured by export on the fp32 graph of an int8 bundle; None on a device.
        progress: called with the number of faces done so far.

    Raises:
        InputError: a crop is not among the faces of the reference, or the reference has other labels.
        BundleError: the bundle's certificate cannot be read.
    """
    limits = Thresholds() if thresholds is None else thresholds
    spec, golden = bundle.spec, bundle.golden()
    answers = _answers(engine, reference, crops, spec.labels, progress)
    replayed = None if golden is None or len(golden.crops) == 0 else engine.run(golden.crops)
    company = crops if crops is not None and len(crops) else None if golden is None else golden.crops
    measured = (
        exact.preprocess_gate(golden, spec),
        exact.batch_gate(engine, company, spec.precision, limits),
        fp32_gate or _fp32_gate(bundle, golden, replayed, answers, limits),
    )
    if spec.untrained:
        report = Report(faces=0, gates=(*measured, *sampled_not_run("untrained")))
    elif answers is None:
        reason = "there are no reference outputs" if reference is None else "no faces were given"
        report = Report(faces=0, gates=(*measured, *sampled_not_run(reason)))
    else:
        report = compare(answers.reference, answers.outputs, thresholds=limits, measured=measured)
    figures = {**report.figures, **_golden_figures(golden, replayed), **_set_figures(reference)}
    return replace(report, figures=figures, bundle=_identity(bundle), environment=environment(engine))


def _answers(
    engine: Engine,
    reference: Reference | None,
    crops: NDArray[np.uint8] | None,
    labels: tuple[str, ...],
    progress: Callable[[int], None] | None,
) -> _Answers | None:
    """Run the crops and pick the reference's rows for them; None when one of the two is missing."""
    if reference is not None and reference.names != labels:
        raise InputError(
            f"expected reference outputs for {', '.join(labels)}, got {', '.join(reference.names)}: "
            "make them from the checkpoint of this bundle"
        )
    if reference is None or crops is None or len(crops) == 0:
        return None
    rows = _match(reference, crops)
    chosen = replace(
        reference,
        labels=reference.labels[rows],
        hashes=reference.hashes[rows],
        probabilities=reference.probabilities[rows],
        primary=reference.primary[rows],
        reliability=reference.reliability[rows],
    )
    return _Answers(chosen, _run(engine, crops, progress))


def _match(reference: Reference, crops: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the reference row of each crop; a picture that occurs k times takes k rows, in their order."""
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for row, known in enumerate(reference.hashes.tolist()):
        waiting[known].append(row)
    queues = [waiting.get(face_hash(crop)) for crop in crops]
    rows = [queue.popleft() if queue else -1 for queue in queues]
    missing = rows.count(-1)
    if missing:
        raise InputError(
            f"expected faces of the reference ({reference.name}, {len(reference.hashes)} faces), got "
            f"{missing} of {len(crops)} that are not in it: give the data it is of, or another --reference"
        )
    return np.array(rows, dtype=np.int64)


def _run(engine: Engine, crops: NDArray[np.uint8], progress: Callable[[int], None] | None) -> Outputs:
    parts = []
    for start in range(0, len(crops), CHUNK):
        parts.append(engine.run(crops[start : start + CHUNK]))
        if progress is not None:
            progress(min(start + CHUNK, len(crops)))
    return replace(
        parts[0],
        probabilities=np.concatenate([part.probabilities for part in parts]),
        primary=np.concatenate([part.primary for part in parts]),
        reliability=np.concatenate([part.reliability for part in parts]),
        embedding=None,
    )


def _fp32_gate(
    bundle: Bundle,
    golden: Golden | None,
    replayed: Outputs | None,
    answers: _Answers | None,
    limits: Thresholds,
) -> Gate:
    """Measure the gate of an fp32 bundle on golden samples and faces; take another's from its certificate."""
    precision = bundle.spec.precision
    if precision != "fp32":
        stored = _stored_fp32_gate(bundle)
        missing = f"measured at export: this {precision} bundle has no fp32 graph, and no certificate tells"
        return not_run(FP32, missing) if stored is None else stored
    pairs: list[tuple[FloatArray, FloatArray]] = []
    if golden is not None and replayed is not None:
        pairs.append((golden.probabilities, replayed.probabilities))
    if answers is not None:
        pairs.append((answers.reference.probabilities, answers.outputs.probabilities))
    if not pairs:
        return not_run(FP32, "there are neither golden samples nor faces")
    expected, got = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return exact.fp32_gate(expected, got, limits)


def _stored_fp32_gate(bundle: Bundle) -> Gate | None:
    gates = (bundle.certificate() or {}).get("gates")
    for entry in gates if isinstance(gates, list) else []:
        if isinstance(entry, Mapping) and entry.get("name") == FP32:
            try:
                found = Gate.from_json(entry)
            except ValueError as error:
                raise BundleError(
                    f"{bundle.path}: parity.json cannot be read: {error}: export it again"
                ) from error
            return (
                found if found.verdict == "not run" else replace(found, reason=f"at export: {found.reason}")
            )
    return None


def _golden_figures(golden: Golden | None, replayed: Outputs | None) -> dict[str, object]:
    if golden is None or replayed is None:
        return {}
    figures = divergence_figures(golden.probabilities, replayed.probabilities)
    return {
        "golden_samples": len(golden.crops),
        "golden_max_abs_diff": figures["max_abs_diff"],
        "golden_js_max": figures["js_max"],
        "golden_flips": int(metrics.flips(golden.probabilities, replayed.probabilities).sum()),
    }


def _set_figures(reference: Reference | None) -> dict[str, object]:
    if reference is None:
        return {}
    return {"reference_name": reference.name, "reference_faces": len(reference.hashes)}


def _identity(bundle: Bundle) -> dict[str, object]:
    spec = bundle.spec
    # not the digest of the whole bundle, which cannot be known to a certificate inside it
    graph = b"".join(bundle.member(name) for name in spec.graph_files)
    return {
        "model": spec.model,
        "target": spec.target,
        "engine": spec.engine,
        "precision": spec.precision,
        "labels": list(spec.labels),
        "digest": hashlib.sha256(graph).hexdigest(),
    }
