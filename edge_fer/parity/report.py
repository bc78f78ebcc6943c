"""Runs every gate of a bundle on this machine and collects the report.

Knows the engine and the bundle only by what they offer. Writes no file.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_fer.engines.base import run_all
from edge_fer.errors import InputError
from edge_fer.faces import face_hash
from edge_fer.parity import exact, metrics
from edge_fer.parity.certificate import bundle_reports
from edge_fer.parity.comparison import Report, abstention, compare, sampled_not_run
from edge_fer.parity.documents import gates_of
from edge_fer.parity.environment import environment
from edge_fer.parity.figures import divergence_figures
from edge_fer.parity.gates import FP32, SPEED, Gate, Thresholds, not_run
from edge_fer.parity.metrics import FloatArray
from edge_fer.parity.slices import check_column, make_slice

if TYPE_CHECKING:
    from edge_fer.bundle import Bundle
    from edge_fer.engines.base import Engine, Outputs
    from edge_fer.samples import Golden, Reference
    from edge_fer.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Faces:
    """What a bundle is compared on.

    Attributes:
        reference: the float checkpoint's outputs; None when there are none.
        crops: (N, S, S, 3) uint8 RGB, any of the reference's faces in any order; None when they are not at
            hand, which leaves the golden samples.
        columns: name to the value of each of the N crops: a slice for every value.
        labels: (N,) int of the crops, -1 where unknown; None when nobody names any. The reference's count:
            these must not say otherwise.
    """

    reference: Reference | None = None
    crops: NDArray[np.uint8] | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    labels: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class _Answers:
    """The checkpoint's outputs and this machine's on the same faces."""

    reference: Reference
    outputs: Outputs


def run_parity(
    bundle: Bundle,
    engine: Engine,
    faces: Faces,
    *,
    thresholds: Thresholds | None = None,
    exported: Mapping[str, Gate] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Run every gate of a bundle on this machine.

    Args:
        bundle: what is measured.
        engine: that holds it.
        faces: that it is compared on.
        thresholds: None for the defaults.
        exported: by name, the gates that only export can measure (fp32 export, speed); None on a device,
            which finds them in the certificate.
        progress: called with the number of faces done so far.

    Raises:
        InputError: a crop is not among the faces of the reference, or the two name other classes or labels.
        BundleError: the bundle's certificate cannot be read.
    """
    limits = Thresholds() if thresholds is None else thresholds
    spec, golden = bundle.spec, bundle.golden()
    for column, values in faces.columns.items():
        check_column(column, values)
    answers = _answers(engine, faces, spec.labels, progress)
    replayed = None if golden is None or len(golden.crops) == 0 else engine.run(golden.crops)
    company = None if golden is None else golden.crops
    if faces.crops is not None and len(faces.crops):
        company = faces.crops
    stored = _stored_gates(bundle) if exported is None else exported
    measured = (
        exact.preprocess_gate(golden, spec),
        exact.batch_gate(engine, company, spec.precision, limits),
        _fp32_gate(spec, stored, golden, replayed, answers, limits),
    )
    if answers is None or spec.untrained:
        reason = "no faces were given" if faces.reference is not None else "there are no reference outputs"
        skipped = sampled_not_run("untrained" if spec.untrained else reason)
        report = Report(faces=0, gates=(*measured, *skipped), thresholds=limits)
    else:
        report = _compare(answers, faces.columns, spec.min_reliability, limits, measured)
    return replace(
        report,
        gates=(*report.gates, _speed_gate(spec, stored, at_export=exported is not None)),
        figures={**report.figures, **_golden_figures(golden, replayed)},
        reference=_about(faces.reference),
        bundle=_identity(bundle),
        environment=environment(engine),
    )


def _compare(
    answers: _Answers,
    columns: Mapping[str, Sequence[str]],
    min_reliability: float | None,
    limits: Thresholds,
    measured: Sequence[Gate],
) -> Report:
    """Compare all faces, then those of every slice at the same abstention threshold."""
    reference, outputs = answers.reference, answers.outputs
    report = compare(
        reference, outputs, thresholds=limits, min_reliability=min_reliability, measured=measured
    )
    threshold, _ = abstention(reference, min_reliability, limits)
    slices = tuple(
        make_slice(reference, outputs, column, values, threshold, limits)
        for column, values in columns.items()
    )
    return replace(report, slices=slices)


def _answers(
    engine: Engine, faces: Faces, labels: tuple[str, ...], progress: Callable[[int], None] | None
) -> _Answers | None:
    """Run the crops and pick the reference's rows for them; None when one of the two is missing."""
    reference, crops = faces.reference, faces.crops
    if reference is not None and reference.names != labels:
        raise InputError(
            f"expected reference outputs for {', '.join(labels)}, got {', '.join(reference.names)}: "
            "make them from the checkpoint of this bundle"
        )
    if reference is None or crops is None or len(crops) == 0:
        return None
    matched = reference.rows(_match(reference, crops))
    _check_labels(matched, faces.labels)
    return _Answers(matched, run_all(engine, crops, progress))


def _check_labels(reference: Reference, labels: NDArray[np.int64] | None) -> None:
    if labels is None:
        return
    other = (labels >= 0) & (reference.labels >= 0) & (labels != reference.labels)
    if other.any():
        raise InputError(
            f"expected the labels of the reference ({reference.name}), got other ones for {int(other.sum())} "
            f"of {len(labels)} faces: make a reference of this data (export --reference-only)"
        )


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


def _fp32_gate(
    spec: ModelSpec,
    stored: Mapping[str, Gate],
    golden: Golden | None,
    replayed: Outputs | None,
    answers: _Answers | None,
    limits: Thresholds,
) -> Gate:
    """Measure the gate of an fp32 bundle on golden samples and faces; that of others comes from export."""
    if spec.precision != "fp32":
        missing = f"this {spec.precision} bundle has no fp32 graph, and no certificate tells"
        return stored.get(FP32) or not_run(FP32, f"measured at export: {missing}")
    pairs: list[tuple[FloatArray, FloatArray]] = []
    if golden is not None and replayed is not None:
        pairs.append((golden.probabilities, replayed.probabilities))
    if answers is not None:
        pairs.append((answers.reference.probabilities, answers.outputs.probabilities))
    if not pairs:
        return not_run(FP32, "there are neither golden samples nor faces")
    expected, got = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return exact.fp32_gate(expected, got, limits)


def _speed_gate(spec: ModelSpec, stored: Mapping[str, Gate], *, at_export: bool) -> Gate:
    """Return the gate that export measured; a device has no float graph to take turns with."""
    found = stored.get(SPEED)
    if spec.untrained:
        return not_run(SPEED, "untrained")
    if spec.precision == "fp32":
        return not_run(SPEED, "this is the float graph")
    if at_export and found is not None:
        return found
    was = "" if found is None or found.value is None else f", {found.value:.2f}x at export"
    return not_run(SPEED, f"no float graph here to take turns with{was}; `edge-fer bench` times it here")


def _stored_gates(bundle: Bundle) -> dict[str, Gate]:
    """Return the gates of the bundle's own certificate by name, marked as measured at export."""
    reports = bundle_reports(bundle)
    return {
        gate.name: gate if gate.verdict == "not run" else replace(gate, reason=f"at export: {gate.reason}")
        for gate in (gates_of(reports[0]) if reports else [])
    }


def _golden_figures(golden: Golden | None, replayed: Outputs | None) -> dict[str, object]:
    if golden is None or replayed is None:
        return {}
    figures = divergence_figures(golden.probabilities, replayed.probabilities)
    differences = np.abs(np.subtract(replayed.probabilities, golden.probabilities, dtype=np.float64))
    return {
        "golden_samples": len(golden.crops),
        "golden_max_abs_diff": figures["max_abs_diff"],
        "golden_abs_diffs": differences.max(axis=1),
        "golden_js_max": figures["js_max"],
        "golden_flips": int(metrics.flips(golden.probabilities, replayed.probabilities).sum()),
    }


def _about(reference: Reference | None) -> dict[str, object] | None:
    """Return what tells one reference from another: reports are merged only when it is the same."""
    if reference is None:
        return None
    digest = hashlib.sha256(reference.to_bytes()).hexdigest()
    return {"name": reference.name, "faces": len(reference.hashes), "sha256": digest}


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
        "min_reliability": spec.min_reliability,
        "digest": hashlib.sha256(graph).hexdigest(),
    }
