"""Compares what a bundle answers with what the float checkpoint answered on the same faces.

Arrays in, `Report` out. Knows no engine, no bundle and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edge_fer.errors import InputError
from edge_fer.parity import gates as gate
from edge_fer.parity import metrics, sampled
from edge_fer.parity.details import details
from edge_fer.parity.figures import divergence_figures, embedding_figures, label_figures, plain
from edge_fer.parity.gates import Gate, Thresholds, Verdict
from edge_fer.parity.risk import abstention_threshold
from edge_fer.parity.schema import REPORT

if TYPE_CHECKING:
    from edge_fer.engines.base import Outputs
    from edge_fer.samples import Reference

ROW_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What parity found.

    Attributes:
        faces: faces that the sampled gates rest on.
        gates: in the order of the table.
        figures: everything measured, plain JSON values.
        details: what lies behind the figures, by class, by band, as curves and face by face.
        slices: the same comparison for the values of columns.
        thresholds: that the gates were held against.
        reference: name, faces and SHA-256 of the reference outputs; None without them.
        bundle: model, target, engine, precision, labels and the SHA-256 of the graph measured.
        environment: where it was measured.
    """

    faces: int
    gates: tuple[Gate, ...]
    figures: Mapping[str, object] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)
    slices: tuple[Mapping[str, object], ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    reference: Mapping[str, object] | None = None
    bundle: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Failed if any gate failed, else undecided if any is or none was run, else passed."""
        return gate.overall(self.gates)

    @property
    def size_only(self) -> bool:
        """True when the graph is not enough faster than float to be worth more than its size."""
        return any(one.verdict == "size only" for one in self.gates)

    def to_json(self) -> dict[str, object]:
        """Return the content of parity.json: plain values, None for what is absent."""
        return {
            "schema": REPORT,
            "verdict": self.verdict,
            "size_only": self.size_only,
            "faces": self.faces,
            "gates": [one.to_json() for one in self.gates],
            "figures": plain(self.figures),
            "details": plain(self.details),
            "slices": plain(self.slices),
            "thresholds": plain(asdict(self.thresholds)),
            "reference": plain(self.reference),
            "bundle": plain(self.bundle),
            "environment": plain(self.environment),
        }


def compare(
    reference: Reference,
    outputs: Outputs,
    *,
    thresholds: Thresholds | None = None,
    min_reliability: float | None = None,
    measured: Sequence[Gate] = (),
) -> Report:
    """Compare a bundle's outputs with the float checkpoint's on the same faces, row by row.

    Args:
        reference: labels (N,) int, -1 for none, and the checkpoint's outputs.
        outputs: the bundle's outputs, N rows in the same order.
        thresholds: None for the defaults.
        min_reliability: the abstention threshold; None: that at which the checkpoint keeps 80 % of the
            faces.
        measured: gates measured elsewhere, put before the sampled ones.

    Raises:
        InputError: the two do not have the same faces and classes.
    """
    limits = Thresholds() if thresholds is None else thresholds
    expected, got = reference.probabilities, outputs.probabilities
    if expected.shape != got.shape:
        raise InputError(f"expected outputs of shape {expected.shape} as in the reference, got {got.shape}")
    if len(expected) == 0:
        return Report(faces=0, gates=(*measured, *sampled_not_run("no faces were given")), thresholds=limits)
    broken = _broken_rows(outputs)
    if broken:
        reason = f"{broken} of {len(got)} faces have outputs that are not finite or do not sum to 1"
        failed = [Gate(name, None, None, None, "failed", reason) for name in gate.SAMPLED]
        figures: dict[str, object] = {"broken_rows": broken}
        return Report(faces=len(got), gates=(*measured, *failed), figures=figures, thresholds=limits)
    threshold, origin = abstention(reference, min_reliability, limits)
    return Report(
        faces=len(got),
        gates=(*measured, *_sampled_gates(reference, outputs, threshold, limits)),
        figures=_figures(reference, outputs),
        details=details(reference, outputs, threshold, origin, limits),
        thresholds=limits,
    )


def abstention(reference: Reference, min_reliability: float | None, limits: Thresholds) -> tuple[float, str]:
    """Return the threshold that faces are kept at, and where it comes from."""
    if min_reliability is not None:
        return min_reliability, "bundle"
    threshold = abstention_threshold(reference.reliability, limits.coverage)
    return threshold, f"{limits.coverage:.0%} coverage of the float model".replace("%", " %")


def _figures(reference: Reference, outputs: Outputs) -> dict[str, object]:
    expected, got = reference.probabilities, outputs.probabilities
    known = np.flatnonzero(reference.labels >= 0)
    figures: dict[str, object] = {"faces": len(got), "labelled_faces": len(known)}
    if len(known):
        primary = (outputs.primary[known], reference.primary[known])
        figures |= label_figures(expected[known], got[known], *primary, reference.labels[known])
    return {
        **figures,
        **divergence_figures(expected, got),
        "flips": int(metrics.flips(expected, got).sum()),
        "repair_temperature": metrics.repair_temperature(expected, got),
        "reliability_shift_mean": float(np.mean(outputs.reliability - reference.reliability)),
        **embedding_figures(reference.embedding, outputs.embedding),
    }


def _broken_rows(outputs: Outputs) -> int:
    """Count the rows that are no distribution; a NaN must end in `failed`, not in `undecided`."""
    sound = np.isfinite(outputs.reliability)
    for values in (outputs.probabilities, outputs.primary):
        with np.errstate(invalid="ignore"):  # inf - inf is one of the things sought
            sums = values.sum(axis=1, dtype=np.float64)
        sound &= (np.abs(sums - 1.0) <= ROW_SUM_TOLERANCE) & (values >= 0).all(axis=1)
    return int((~sound).sum())


def _sampled_gates(
    reference: Reference, outputs: Outputs, threshold: float, limits: Thresholds
) -> tuple[Gate, ...]:
    expected, got = reference.probabilities, outputs.probabilities
    known = np.flatnonzero(reference.labels >= 0)
    changed = metrics.flips(expected, got)
    surest = metrics.surest_half(expected)
    labelled: tuple[Gate, ...] = tuple(
        gate.not_run(name, "no labels") for name in (gate.ACCURACY, gate.CALIBRATION, gate.RECALL)
    )
    if len(known):
        faces = (expected[known], got[known], reference.labels[known])
        labelled = (
            sampled.accuracy_gate(*faces, limits),
            sampled.calibration_gate(*faces, limits),
            sampled.recall_gate(*faces, reference.names, limits),
        )
    accuracy, calibration, recall = labelled
    return (
        accuracy,
        sampled.flips_gate(changed, gate.FLIPS, limits.flips, limits),
        sampled.flips_gate(changed[surest], gate.SURE_FLIPS, limits.sure_flips, limits),
        sampled.distribution_gate(expected, got, limits),
        calibration,
        recall,
        sampled.head_gate(reference.reliability, outputs.reliability, threshold, limits),
    )


def sampled_not_run(reason: str) -> list[Gate]:
    """Return every sampled gate as not run, for one reason."""
    return [gate.not_run(name, reason) for name in gate.SAMPLED]
