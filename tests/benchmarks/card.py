"""Print the figures of docs/model-card.md from a bundle's own certificate and reference outputs, as Markdown.

    python -m tests.benchmarks.card [BUNDLE]

Runs no model: what is printed was measured when the bundle was exported. Intervals are 95 %: exact ones of
shares (Clopper & Pearson), and of the gain of balancing a paired bootstrap over the float network's answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from edge_fer.bundle import Bundle, default_bundle
from edge_fer.errors import EdgeFerError, InputError
from edge_fer.parity import metrics
from edge_fer.parity.certificate import bundle_reports
from edge_fer.parity.intervals import clopper_pearson
from edge_fer.samples import Reference

RESAMPLES = 10_000


def with_interval(share: float, faces: int) -> str:
    """Return a share of faces with its interval."""
    low, high = clopper_pearson(round(share * faces), faces, two_sided=True)
    return f"{share:.4f} ({low:.4f}–{high:.4f})"


def figure_rows(figures: dict[str, Any], kept: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the figures of all faces: name, of the bundle, of the float network."""
    faces = int(figures["labelled_faces"])
    rows = [
        ("accuracy", *(with_interval(figures[f"{of}accuracy"], faces) for of in ("", "reference_"))),
        ("accuracy of `primary`", *(f"{figures[f'{of}primary_accuracy']:.4f}" for of in ("", "reference_"))),
    ]
    names = {"mean_recall": "mean recall", "macro_f1": "macro F1", "ece": "ECE", "nll": "NLL, nat"}
    rows += [
        (name, *(f"{figures[f'{of}{key}']:.4f}" for of in ("", "reference_"))) for key, name in names.items()
    ]
    shares = (f"{kept[f'{of}coverage']:.3f}: {1 - kept[f'{of}risk']:.4f}" for of in ("", "reference_"))
    rows.append((f"kept at reliability {kept['threshold']:.4f}, and right", *shares))
    rows.append(("area under risk–coverage", *(f"{kept[f'{of}aurc']:.4f}" for of in ("", "reference_"))))
    return rows


def recall_rows(classes: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row per class: faces, recall of the bundle with its interval, recall of the float network."""
    return [
        (
            one["label"],
            f"{one['faces']:,}",
            f"{one['recall']:.3f} ({one['interval'][0]:.3f}–{one['interval'][1]:.3f})",
            f"{one['reference_recall']:.3f}",
        )
        for one in classes
    ]


def balancing(reference: Reference) -> str:
    """Return in one line what balancing adds to the float network's accuracy."""
    known = reference.labels >= 0
    labels = reference.labels[known]
    ours, primary = (
        metrics.correct(answers[known], labels).astype(float)
        for answers in (reference.probabilities, reference.primary)
    )
    gains = ours - primary
    generator = np.random.default_rng(0)
    means = [gains[generator.integers(0, len(gains), len(gains))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    changed = metrics.flips(reference.primary, reference.probabilities).mean()
    return (
        f"Balancing: {gains.mean():+.4f} ({low:+.4f} to {high:+.4f}); it changes {changed:.1%} of the labels."
    )


def print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a Markdown table."""
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="default: the embedded one")
    given = parser.parse_args()
    try:
        bundle = Bundle.load(given.bundle or default_bundle())
        reports, reference = bundle_reports(bundle), bundle.reference()
        if not reports or reference is None or "accuracy" not in reports[0]["figures"]:  # type: ignore[operator]
            raise InputError(
                f"{bundle.path}: expected a certificate over labelled faces: export --parity-data"
            )
    except EdgeFerError as error:
        raise SystemExit(f"error: {error}") from None
    report: dict[str, Any] = reports[0]
    spec = bundle.spec
    print(f"{spec.model} {spec.target} {spec.precision}, {report['figures']['labelled_faces']:,} faces.")
    print_table(
        ("figure", "bundle", "float"), figure_rows(report["figures"], report["details"]["abstention"])
    )
    print_table(("class", "faces", "recall (95 %)", "float"), recall_rows(report["details"]["recall"]))
    print(f"\n{balancing(reference)}")


if __name__ == "__main__":
    main()
