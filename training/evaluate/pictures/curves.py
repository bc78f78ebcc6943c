"""Pictures that are curves: risk by coverage, accuracy by confidence, losses and validation by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.evaluate.history import Curves, History
from training.evaluate.pictures.style import AFTER, BEFORE, GRAY, canvas, heading
from training.evaluate.results import Result

_PERCENT = PercentFormatter(1.0, decimals=0)
_FINE_PERCENT = PercentFormatter(1.0)  # as many decimals as the ticks need
_COLUMNS = 3


def _kinds(result: Result) -> list[tuple[str, str, str, str]]:
    """Return key, name, colour and line of the distributions that differ."""
    after = ("probabilities", "probabilities", AFTER, "-")
    return [("primary", "primary", BEFORE, "--"), after] if result.balanced else [after]


def draw_risk_coverage(results: Sequence[Result]) -> Figure:
    """Draw the error rate of the faces that are kept when the least reliable ones are abstained from."""
    figure, axes = canvas("Risk–coverage: errors among the faces kept", 1, len(results), 6.0, sharey=True)
    for place, result in zip(axes[0], results, strict=True):
        for key, name, colour, line in _kinds(result):
            found: Any = result.figures[key]
            curve = found["risk_coverage"]
            place.plot(
                curve["coverage"], curve["risk"], line, color=colour, linewidth=2.2,
                label=f"{name}: area {found['aurc']:.4f}, {found['risk_at_80']:.1%} at 80 %",
            )  # fmt: skip
        place.axvline(0.8, color=GRAY, linewidth=1, linestyle=":")
        place.set_title(heading(result), loc="left")
        place.set_xlabel("coverage: share of faces kept, the most reliable first")
        place.xaxis.set_major_formatter(_PERCENT)
        place.yaxis.set_major_formatter(_FINE_PERCENT)
        place.set_xlim(0, 1)
        place.margins(y=0.2)  # room for the legend
        place.legend(loc="upper left")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("risk: share of wrong labels among them")
    return figure


def draw_reliability(results: Sequence[Result]) -> Figure:
    """Draw accuracy over confidence in the bins of the ECE."""
    figure, axes = canvas(
        "Reliability diagram: below the dotted line it is too sure", 1, len(results), 6.6, sharey=True
    )
    for place, result in zip(axes[0], results, strict=True):
        place.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=":")
        for key, name, colour, line in _kinds(result):
            found: Any = result.figures[key]
            x, y = ([bin_[axis] for bin_ in found["calibration"]] for axis in ("confidence", "accuracy"))
            marker = "o" if key == "probabilities" else "s"
            place.plot(
                x,
                y,
                line,
                marker=marker,
                color=colour,
                linewidth=1.8,
                label=f"{name}: ECE {found['ece']:.4f}",
            )
        bins = len(x)
        place.set_title(heading(result), loc="left")
        place.set_xlabel(f"mean confidence of the bin ({bins} bins of equally many faces)")
        place.set_xlim(0, 1)
        place.set_ylim(0, 1)
        place.set_aspect("equal" if len(results) > 1 else "auto")
        place.xaxis.set_major_formatter(_PERCENT)
        place.yaxis.set_major_formatter(_PERCENT)
        place.legend(loc="lower right")
    axes[0, 0].set_ylabel("accuracy in the bin")
    return figure


def draw_losses(history: History) -> Figure | None:
    """Draw every loss term, weight and rate of training; None before the first line."""
    return _small_multiples("Training: means over the batches between two lines", history.train)


def draw_validation(history: History) -> Figure | None:
    """Draw every figure of the validation after each epoch; None before the first one."""
    curves = history.validation
    best: Mapping[str, int] = {}
    if "accuracy" in curves.values:
        best = {"best accuracy": int(np.nanargmax(curves.values["accuracy"]))}
    return _small_multiples("Validation after each epoch", curves, best)


def _small_multiples(title: str, curves: Curves, marks: Mapping[str, int] | None = None) -> Figure | None:
    values = {name: column for name, column in curves.values.items() if np.isfinite(column).any()}
    if not values:
        return None
    rows = math.ceil(len(values) / _COLUMNS)
    figure, axes = canvas(title, rows, _COLUMNS, 0.9 + 2.3 * rows)
    style = "-" if len(curves.steps) > 1 else "o"
    for place, (name, column) in zip(axes.flat, values.items(), strict=False):
        place.plot(curves.steps, column, style, color=AFTER, linewidth=1.6)
        last = next(value for value in reversed(column) if math.isfinite(value))
        place.set_title(f"{name.replace('_', ' ')}: {last:.4g} at the end", loc="left", fontsize=12)
        for at in (marks or {}).values():
            place.axvline(curves.steps[at], color=BEFORE, linewidth=1.2, linestyle="--")
        place.margins(x=0.01)
    for place in axes.flat[len(values) :]:
        place.set_visible(False)
    for place in axes.flat[max(0, len(values) - _COLUMNS) : len(values)]:
        place.set_xlabel("optimiser step")
    for name, at in (marks or {}).items():
        figure.text(
            0.99,
            0.995,
            f"dashed: {name}, epoch {curves.epochs[at]}",
            ha="right",
            va="top",
            color=BEFORE,
            fontsize=12,
        )
    return figure
