"""What balancing does to distributions: their spread over all faces, and single faces before and after.

The second is Fig. 4 of GReFEL's supplement, with the faces chosen by what happened to their label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edge_fer.parity import metrics
from training.evaluate.pictures.style import AFTER, BEFORE, GREEN, RED, blank, canvas, heading
from training.evaluate.results import Result

_BINS = 40
_EXAMPLES = 4  # of each kind


def draw_balancing(result: Result) -> Figure | None:
    """Draw max, min and standard deviation of every face's distribution, before and after."""
    figures: Any = result.figures["balancing"]
    if figures is None:
        return None
    low, high = (100 * bound for bound in figures["gain_interval"])
    figure, axes = canvas(f"Before and after balancing: {heading(result)}", 1, 3, 4.9)
    rows = (
        ("primary", result.answers.primary, BEFORE),
        ("probabilities", result.answers.probabilities, AFTER),
    )
    titles = {
        "highest": "largest probability",
        "lowest": "least probability",
        "deviation": "standard deviation",
    }
    for place, (key, title) in zip(axes[0], titles.items(), strict=True):
        values = {name: getattr(metrics.spread(found), key) for name, found, _ in rows}
        edges = np.linspace(0.0, max(float(each.max()) for each in values.values()), _BINS + 1)
        for name, _, colour in rows:
            place.hist(
                values[name], edges, histtype="stepfilled", alpha=0.35, color=colour, edgecolor=colour,
                linewidth=2, label=f"{name}: mean {values[name].mean():.4f}",
            )  # fmt: skip
        place.set_title(f"{title} of a face", loc="left")
        place.margins(y=0.28)  # room for the legend
        place.legend(loc="upper left" if key != "lowest" else "upper right")
        place.set_xlabel("probability")
    axes[0, 0].set_ylabel("faces")
    figure.supxlabel(
        f"balancing changes {figures['changed']:,} labels: {figures['to_right']} to right, "
        f"{figures['to_wrong']} to wrong; "
        f"accuracy {100 * figures['gain']:+.2f} points [{low:+.2f}, {high:+.2f}], "
        f"weight of the correction {figures['correction_weight']:.2f}, of the anchors in it "
        f"{figures['anchor_weight']:.2f}",
        fontsize=11,
    )  # fmt: skip
    return figure


def draw_examples(result: Result) -> Figure | None:
    """Draw faces with both distributions: put right, put wrong, unsure and sure ones."""
    if not result.balanced:
        return None
    kinds = example_rows(result)
    width = max(len(rows) for rows in kinds.values())
    if width == 0:
        return None
    figure, axes = canvas(
        f"Primary and corrected distribution of single faces: {heading(result)}", len(kinds), 2 * width,
        1.2 + 2.4 * len(kinds), width_ratios=[1.25, 1.0] * width,
    )  # fmt: skip
    for line, (kind, rows) in zip(axes, kinds.items(), strict=True):
        for column in range(width):
            face, bars = line[2 * column], line[2 * column + 1]
            if column >= len(rows):
                blank(face)
                blank(bars)
                continue
            _draw_face(face, result, int(rows[column]), kind if column == 0 else "")
            _draw_bars(bars, result, int(rows[column]), names=column == width - 1)
    figure.supxlabel(
        "orange: primary (before balancing), blue: corrected; ✓ marks the true label", fontsize=11
    )
    return figure


def example_rows(result: Result) -> dict[str, NDArray[np.int64]]:
    """Choose faces of four kinds, in each those that balancing moved most; a kind may be empty."""
    before, after, labels = result.answers.primary, result.answers.probabilities, result.faces.numbers
    moved = -metrics.jensen_shannon(before, after)
    was, now = metrics.correct(before, labels), metrics.correct(after, labels)
    kinds = {
        "put right": ~was & now,
        "put wrong": was & ~now,
        "stays right": was & now,
        "stays wrong": ~was & ~now,
    }
    return {name: _first(np.flatnonzero(chosen), moved) for name, chosen in kinds.items()}


def _first(rows: NDArray[np.int64], order: NDArray[np.float64]) -> NDArray[np.int64]:
    return rows[np.argsort(order[rows], kind="stable")][:_EXAMPLES]


def _draw_face(axes: Axes, result: Result, row: int, kind: str) -> None:
    axes.imshow(result.faces.tensors.crops[row].numpy())
    blank(axes)
    names, label = result.faces.labels, int(result.faces.numbers[row])
    before, after = (
        int(metrics.top1(rows[row : row + 1])[0])
        for rows in (result.answers.primary, result.answers.probabilities)
    )
    axes.set_title(kind, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(f"{names[before]} →\n{names[after]}", fontsize=11, color=GREEN if after == label else RED)


def _draw_bars(axes: Axes, result: Result, row: int, *, names: bool) -> None:
    before, after = result.answers.primary[row], result.answers.probabilities[row]
    label = int(result.faces.numbers[row])
    at = np.arange(len(before))
    axes.barh(at - 0.2, before, height=0.38, color=BEFORE)
    axes.barh(at + 0.2, after, height=0.38, color=AFTER)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=9)
    axes.grid(visible=False, axis="y")
    texts = _short(result.faces.labels, label)
    axes.set_yticks(at, texts, fontsize=9)


def _short(names: Sequence[str], label: int) -> list[str]:
    return [f"✓ {name}" if number == label else name for number, name in enumerate(names)]
