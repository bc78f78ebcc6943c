"""How the pictures of an evaluation look: 1200 pixels wide, colours that colour-blind people tell apart."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edge_fer.labels import LABELS
from training.evaluate.results import Result

# Okabe & Ito (2008), Color Universal Design; gray for their black, which would drown the others.
GRAY, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#8a8a8a", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip
CLASS_COLOURS = dict(zip(LABELS, (GRAY, ORANGE, SKY, BLUE, RED, GREEN, PURPLE, YELLOW), strict=True))
CLASS_MARKERS = dict(zip(LABELS, "osDv^PX*", strict=True))
AFTER, BEFORE, OTHER = BLUE, ORANGE, GREEN
"""Probabilities, primary, and another run."""
WIDTH_INCHES, DPI = 12.0, 100
STYLE: Any = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}


def canvas(title: str, rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure of this height in inches and its (rows, columns) axes; `STYLE` has to be in force."""
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold")
    return figure, axes


def png(figure: Figure) -> bytes:
    """Return the PNG file of a figure; the same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def heading(result: Result) -> str:
    """Return what a panel of a checkpoint is called: its name, its epoch and n."""
    epoch = result.source.checkpoint.info.get("epoch")
    where = "" if epoch is None else f" (epoch {epoch})"
    return f"{result.name}{where}, n = {len(result.faces.names):,}"


def blank(axes: Axes) -> None:
    """Leave an axes without a frame, ticks and grid."""
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
