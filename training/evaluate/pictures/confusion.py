"""The confusion matrix before and after balancing, with counts and shares of each true class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edge_fer.parity import metrics
from training.evaluate.answers import Floats
from training.evaluate.pictures.style import canvas, heading
from training.evaluate.results import Result

DARK_SHARE = 0.5


def draw_confusion(result: Result) -> Figure:
    """Draw one matrix, or with a balancing head two."""
    panels = {"with balancing (probabilities)": result.answers.probabilities}
    if result.balanced:
        panels = {"without balancing (primary)": result.answers.primary, **panels}
    height = 1.8 + (0.7 if len(panels) > 1 else 0.8) * len(result.faces.labels)
    figure, axes = canvas(f"Confusion: {heading(result)}", 1, len(panels), height, sharey=True)
    labels, names = result.faces.numbers, result.faces.labels
    for place, (title, rows) in zip(axes[0], panels.items(), strict=True):
        _draw_matrix(place, rows, labels, names, small=len(panels) > 1)
        accuracy, recall = metrics.accuracy(rows, labels), metrics.mean_recall(rows, labels)
        kind = f"{title}\n" if len(panels) > 1 else ""
        place.set_title(f"{kind}accuracy {accuracy:.2%}, mean recall {recall:.2%}", loc="left")
        place.set_xlabel("predicted label; a cell: faces, and % of the true label's")
    axes[0, 0].set_ylabel("true label, and its faces")
    return figure


def _draw_matrix(axes: Axes, rows: Floats, labels: np.ndarray, names: Sequence[str], *, small: bool) -> None:
    counts = metrics.confusion(rows, labels)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), [f"{name}\n{n:,}" for name, n in zip(names, totals, strict=True)])
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{counts[row, column]}\n{100 * share:.0f}"
                if share >= 0.005
                else f"{counts[row, column]}\n<1",
                ha="center",
                va="center",
                fontsize=9.5 if small else 12,
                color="white" if share > DARK_SHARE else "black",
            )
