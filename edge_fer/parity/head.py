"""The reliability head apart from the final labels: what balancing did in both models, and who abstains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_fer.parity import metrics, risk
from edge_fer.parity.rates import share, share_interval

if TYPE_CHECKING:
    from edge_fer.engines.base import Outputs
    from edge_fer.samples import Reference


def head_figures(reference: Reference, outputs: Outputs, confidence: float) -> dict[str, object]:
    """Compare `primary`, what balancing made of it, and `reliability` on the same N faces.

    A face is relabelled when the top label of `probabilities` is not that of `primary`. Float and bundle
    agree on a face that neither relabels, and on one that both relabel to the same label. Corrections are the
    Jensen-Shannon divergence between `primary` and `probabilities`, in nat.

    Args:
        reference: the float checkpoint's outputs.
        outputs: the bundle's, N rows in the same order.
        confidence: of each two-sided interval.
    """
    faces = len(outputs.probabilities)
    final, reference_final = metrics.top1(outputs.probabilities), metrics.top1(reference.probabilities)
    moved = metrics.flips(outputs.primary, outputs.probabilities)
    reference_moved = metrics.flips(reference.primary, reference.probabilities)
    same = moved & reference_moved & (final == reference_final)
    agreed = int((same | ~(moved | reference_moved)).sum())
    relabelled, reference_relabelled = int(moved.sum()), int(reference_moved.sum())
    return {
        "relabelled": relabelled,
        "reference_relabelled": reference_relabelled,
        "relabelled_share": share(relabelled, faces),
        "relabelled_interval": share_interval(relabelled, faces, confidence),
        "reference_relabelled_share": share(reference_relabelled, faces),
        "relabelled_both": int((moved & reference_moved).sum()),
        "relabelled_same": int(same.sum()),
        "agreement": share(agreed, faces),
        "agreement_interval": share_interval(agreed, faces, confidence),
        **_primary_figures(reference, outputs),
        "correction_js_mean": _mean_divergence(outputs.primary, outputs.probabilities),
        "reference_correction_js_mean": _mean_divergence(reference.primary, reference.probabilities),
        **_reliability_figures(reference, outputs),
    }


def _primary_figures(reference: Reference, outputs: Outputs) -> dict[str, object]:
    divergence = metrics.jensen_shannon(reference.primary, outputs.primary)
    difference = np.subtract(outputs.primary, reference.primary, dtype=np.float64)
    return {
        "primary_flips": int(metrics.flips(reference.primary, outputs.primary).sum()),
        "primary_js_mean": float(divergence.mean()),
        "primary_js_p95": float(np.quantile(divergence, 0.95)),
        "primary_max_abs_diff": float(np.abs(difference).max()),
    }


def _mean_divergence(p: metrics.FloatArray, q: metrics.FloatArray) -> float:
    return float(metrics.jensen_shannon(p, q).mean())


def _reliability_figures(reference: Reference, outputs: Outputs) -> dict[str, object]:
    """Describe the change of reliability: its signed mean, and the size of it that 95 % stay below."""
    shift = np.subtract(outputs.reliability, reference.reliability, dtype=np.float64)
    return {
        "reliability_shift_mean": float(shift.mean()),
        "reliability_shift_p95": float(np.quantile(np.abs(shift), 0.95)),
        "reliability_shift_max": float(np.abs(shift).max()),
    }


def abstention_figures(
    reference: Reference, outputs: Outputs, threshold: float, origin: str, confidence: float
) -> dict[str, object]:
    """Say which faces both models keep at one threshold, and how often they are wrong on those.

    A face is kept when its reliability is not below the threshold. Coverage is of all N faces; risk, the
    error rate of the kept ones, and the area under the risk-coverage curve are of those with a label.

    Args:
        reference: the float checkpoint's outputs, and labels (N,), -1 for a face without one.
        outputs: the bundle's, N rows in the same order.
        threshold: of reliability.
        origin: where the threshold comes from, in words.
        confidence: of each two-sided interval.
    """
    kept = outputs.reliability.astype(np.float64) >= threshold
    reference_kept = reference.reliability.astype(np.float64) >= threshold
    faces = len(kept)
    return {
        "threshold": threshold,
        "origin": origin,
        "coverage": share(int(kept.sum()), faces),
        "coverage_interval": share_interval(int(kept.sum()), faces, confidence),
        "reference_coverage": share(int(reference_kept.sum()), faces),
        **_risk_figures("", outputs, reference.labels, kept, confidence),
        **_risk_figures("reference_", reference, reference.labels, reference_kept, confidence),
        "kept_both": int((kept & reference_kept).sum()),
        "dropped_by_bundle": int((reference_kept & ~kept).sum()),
        "kept_by_bundle": int((kept & ~reference_kept).sum()),
    }


def _risk_figures(
    prefix: str,
    answers: Reference | Outputs,
    labels: metrics.IntArray,
    kept: NDArray[np.bool_],
    confidence: float,
) -> dict[str, object]:
    known = labels >= 0
    if not known.any():
        return dict.fromkeys((f"{prefix}risk", f"{prefix}risk_interval", f"{prefix}aurc"))
    right = metrics.top1(answers.probabilities) == labels
    kept = kept & known
    wrong, total = int((kept & ~right).sum()), int(kept.sum())
    return {
        f"{prefix}risk": share(wrong, total),
        f"{prefix}risk_interval": share_interval(wrong, total, confidence),
        f"{prefix}aurc": risk.aurc(right[known], answers.reliability[known]),
    }
