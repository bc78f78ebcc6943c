"""Pictures of the embedding space: t-SNE with cluster indices, and which anchors faces are nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluate.pictures.style import CLASS_COLOURS, CLASS_MARKERS, GRAY, blank, canvas, heading
from training.evaluate.results import Result

RARE, RARE_LARGER = 0.03, 2.5
"""Classes below this share of the faces are drawn larger, or nobody would find them."""


def draw_embeddings(results: Sequence[Result]) -> Figure | None:
    """Draw the faces in the plane, coloured by true label; None for too few faces."""
    shown = [result for result in results if result.projection is not None]
    if not shown:
        return None
    figure, axes = canvas("Embeddings in the plane (t-SNE), by true label", 1, len(shown), 7.6)
    for place, result in zip(axes[0], shown, strict=True):
        _scatter(place, result)
        clusters: Any = result.figures["clusters"]
        texts = [
            f"{name}: Davies–Bouldin {_digits(found['davies_bouldin'])}, "
            f"Calinski–Harabasz {_digits(found['calinski_harabasz'])}"
            for name, found in (
                (f"{clusters['embeddings']['dimensions']}-d embeddings", clusters["embeddings"]),
                ("this picture", clusters["tsne"]),
            )
        ]
        drawn = clusters["tsne"]["faces"]
        part = "" if drawn == len(result.faces.names) else f", {drawn:,} of them drawn"
        place.set_title("\n".join([heading(result) + part, *texts]), loc="left", fontsize=12)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(4, len(names)), markerscale=1.8, fontsize=12,
        handletextpad=0.1, columnspacing=1.0,
    )  # fmt: skip
    return figure


def _scatter(place: Axes, result: Result) -> None:
    projection = result.projection
    assert projection is not None
    labels = result.faces.numbers[projection.rows]
    order = np.argsort(-np.bincount(labels, minlength=len(result.faces.labels)), kind="stable")
    size = float(np.clip(45000 / len(labels), 10, 60))
    for level, number in enumerate(order):  # rare classes on top
        name = result.faces.labels[number]
        x, y = projection.places[labels == number].T
        larger = RARE_LARGER if len(x) < RARE * len(labels) else 1.0
        place.scatter(
            x, y, s=larger * size, marker=CLASS_MARKERS.get(name, "o"), color=CLASS_COLOURS.get(name, GRAY),
            alpha=0.75, linewidths=0.3, edgecolors="white", label=f"{name} {len(x):,}", zorder=2 + level,
        )  # fmt: skip
    blank(place)


def _digits(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def draw_anchors(results: Sequence[Result]) -> Figure | None:
    """Draw how many faces each anchor is nearest to; None without anchors."""
    shown = [result for result in results if result.figures["anchors"] is not None]
    if not shown:
        return None
    rows = len(shown[0].faces.labels)
    figure, axes = canvas(
        "Anchors: faces that each one is nearest to", 1, len(shown), 1.6 + 0.5 * rows, sharey=True
    )
    for place, result in zip(axes[0], shown, strict=True):
        anchors: Any = result.figures["anchors"]
        counts = np.stack([row["nearest"] for row in anchors["per_class"]])
        place.imshow(np.sqrt(counts), cmap="Blues", aspect="auto", vmin=0)
        place.grid(visible=False)
        for row, column in np.ndindex(*counts.shape):
            count = counts[row, column]
            dark = np.sqrt(count) > 0.6 * np.sqrt(counts.max())
            colour = "white" if dark else "black" if count else "#b0b0b0"
            place.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=11)
        place.set_yticks(
            range(rows), [f"{row['label']} ({row['used']} used)" for row in anchors["per_class"]]
        )
        place.set_xticks(range(counts.shape[1]), range(1, counts.shape[1] + 1))
        place.set_xlabel("anchor of the class")
        place.set_title(
            f"{heading(result)}: {anchors['used']} of {anchors['total']} used\nrms per dimension: anchors "
            f"{anchors['rms']:.3g}, embeddings {anchors['embedding_rms']:.3g}",
            loc="left",
            fontsize=12,
        )
    return figure
