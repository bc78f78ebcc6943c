"""Recall of each class and its share of all errors, beside another run's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.evaluate.document import Beside
from training.evaluate.pictures.style import AFTER, BEFORE, OTHER, PURPLE, SKY, canvas
from training.evaluate.results import Result

Series = tuple[str, str, list[dict[str, Any]]]  # name, colour, a row per class


def draw_recall(results: Sequence[Result], beside: Beside | None) -> Figure:
    """Draw both figures by class, for every checkpoint, its primary distribution and the other run's."""
    series = _series(results, beside)
    names = results[0].faces.labels
    figure, axes = canvas(
        f"Recall and errors by class, n = {len(results[0].faces.names):,}",
        1, 2, 1.8 + 0.85 * len(names), sharey=True,
    )  # fmt: skip
    step = 0.8 / len(series)
    for number, (name, colour, rows) in enumerate(series):
        at = np.arange(len(names)) + (number - (len(series) - 1) / 2) * step
        recall, shares = (
            np.array([row[key] for row in rows], dtype=float) for key in ("recall", "error_share")
        )
        bounds = np.array([row["interval"] or (np.nan, np.nan) for row in rows], dtype=float).T
        whiskers = np.abs(bounds - recall)
        axes[0, 0].barh(at, recall, height=0.9 * step, color=colour, label=name)
        axes[0, 0].errorbar(recall, at, xerr=whiskers, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
        axes[0, 1].barh(at, shares, height=0.9 * step, color=colour)
    totals = [row["faces"] for row in series[0][2]]
    axes[0, 0].set_yticks(
        range(len(names)), [f"{name}\n{n:,}" for name, n in zip(names, totals, strict=True)]
    )
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlim(0, 1)
    axes[0, 0].set_title("recall, with its 95 % interval", loc="left")
    axes[0, 1].set_title("share of all errors, by true label", loc="left")
    for place, decimals in zip(axes[0], (0, None), strict=True):  # None: as many as the ticks need
        place.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))
        place.grid(visible=False, axis="y")
    axes[0, 1].set_xlabel("of 100 wrong faces so many are of this class")
    axes[0, 0].set_xlabel("of 100 faces of this class so many are recognised")
    figure.legend(
        loc="outside lower center", ncols=2 if len(series) == 4 else min(3, len(series)), fontsize=12
    )
    return figure


def _series(results: Sequence[Result], beside: Beside | None) -> list[Series]:
    found: list[Series] = []
    for result, colours in zip(results, ((AFTER, BEFORE, OTHER), (SKY, "#f5cf7a", PURPLE)), strict=False):
        figures: Any = result.figures
        prefix = "" if len(results) == 1 else f"{result.name}: "
        if result.balanced:
            found.append((f"{prefix}primary", colours[1], figures["primary_per_class"]))
        found.append((f"{prefix}probabilities", colours[0], figures["per_class"]))
        other: Any = None if beside is None else beside.counterpart(result.name)
        if beside is not None and other is not None:
            entry = (f"beside, {beside.title(result.name)}", colours[2], other["per_class"])
            if entry not in found:
                found.append(entry)
    return found
