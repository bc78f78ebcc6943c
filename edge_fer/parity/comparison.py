"""Compares what a bundle answers with what the float checkpoint answered on the same faces.

Arrays in, `Report` out. Knows no engine, no bundle and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.parity import gates as gate
from edge_fer.parity import metrics
from edge_fer.parity.figures import divergence_figures, flip_figures, label_figures, plain, recall_figures
from edge_fer.parity.gates import Gate, Thresholds, Verdict
from edge_fer.parity.metrics import FloatArray

if TYPE_CHECKING:
    from edge_fer.engines.base import Outputs
    from edge_fer.samples import Reference

SCHEMA = "edge-fer-parity-1"
ROW_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What parity found.

    Attributes:
        faces: faces that the sampled gates rest on.
        gates: in the order of the table.
        figures: everything measured, plain JSON values.
        bundle: model, target, engine, precision, labels and the SHA-256 of the graph measured.
        environment: where it was measured.
    """

    faces: int
    gates: tuple[Gate, ...]
    figures: Mapping[str, object] = field(default_factory=dict)
    bundle: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Failed if any gate failed, else undecided if any is or none was run, else passed."""
        return gate.overall(self.gates)

    def to_json(self) -> dict[str, object]:
        """Return the content of parity.json: plain values, None for what is absent."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "faces": self.faces,
            "gates": [one.to_json() for one in self.gates],
            "figures": plain(self.figures),
            "bundle": plain(self.bundle),
            "environment": plain(self.environment),
        }


def compare(
    reference: Reference,
    outputs: Outputs,
    *,
    thresholds: Thresholds | None = None,
    measured: Sequence[Gate] = (),
) -> Report:
    """Compare a bundle's outputs with the float checkpoint's on the same faces, row by row.

    Args:
        reference: labels (N,) int, -1 for none, and the checkpoint's outputs.
        outputs: the bundle's outputs, N rows in the same order.
        thresholds: None for the defaults.
        measured: gates measured elsewhere, put before the sampled ones.

    Raises:
        InputError: the two do not have the same faces and classes.
    """
    limits = Thresholds() if thresholds is None else thresholds
    expected, got = reference.probabilities, outputs.probabilities
    if expected.shape != got.shape:
        raise InputError(f"expected outputs of shape {expected.shape} as in the reference, got {got.shape}")
    if len(expected) == 0:
        return Report(faces=0, gates=(*measured, *sampled_not_run("no faces were given")))
    broken = _broken_rows(got)
    if broken:
        reason = f"{broken} of {len(got)} faces have probabilities that are not finite or do not sum to 1"
        failed = [Gate(name, None, None, None, "failed", reason) for name in gate.SAMPLED]
        return Report(faces=len(got), gates=(*measured, *failed), figures={"broken_rows": broken})
    known = np.flatnonzero(reference.labels >= 0)
    figures: dict[str, object] = {"faces": len(got), "labelled_faces": len(known)}
    if len(known):
        primary = (outputs.primary[known], reference.primary[known])
        labels = reference.labels[known]
        figures |= label_figures(expected[known], got[known], *primary, labels)
        figures |= recall_figures(expected[known], got[known], labels, reference.names)
    figures |= divergence_figures(expected, got) | flip_figures(expected, got, reference.names)
    figures["reliability_shift_mean"] = float(np.mean(outputs.reliability - reference.reliability))
    return Report(
        faces=len(got), gates=(*measured, *_sampled_gates(reference, got, known, limits)), figures=figures
    )


def _broken_rows(probabilities: FloatArray) -> int:
    """Count the rows that are no distribution; a NaN must end in `failed`, not in `undecided`."""
    with np.errstate(invalid="ignore"):  # inf - inf is one of the things sought
        sums = probabilities.sum(axis=1, dtype=np.float64)
    sound = (np.abs(sums - 1.0) <= ROW_SUM_TOLERANCE) & (probabilities >= 0).all(axis=1)
    return int((~sound).sum())


def _sampled_gates(
    reference: Reference, got: FloatArray, known: NDArray[np.int64], limits: Thresholds
) -> tuple[Gate, ...]:
    expected = reference.probabilities
    changed = metrics.flips(expected, got)
    surest = metrics.surest_half(expected)
    if len(known):
        labelled = (expected[known], got[known], reference.labels[known], limits)
        accuracy, calibration = gate.accuracy_gate(*labelled), gate.calibration_gate(*labelled)
    else:
        accuracy, calibration = (
            gate.not_run(name, "no labels") for name in (gate.ACCURACY, gate.CALIBRATION)
        )
    return (
        accuracy,
        gate.flips_gate(changed, gate.FLIPS, limits.flips, limits),
        gate.flips_gate(changed[surest], gate.SURE_FLIPS, limits.sure_flips, limits),
        gate.distribution_gate(expected, got, limits),
        calibration,
    )


def sampled_not_run(reason: str) -> list[Gate]:
    """Return every sampled gate as not run, for one reason."""
    return [gate.not_run(name, reason) for name in gate.SAMPLED]
