"""Which figures of a run a table can show, and how they are written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from edge_fer.labels import LABELS, OTHER

PERCENT = ("accuracy", "primary_accuracy", "mean_recall", "anchors_used")
RECALLS = tuple(f"recall.{label}" for label in (*LABELS, OTHER))
FRACTIONS = ("macro_f1", "ece", "nll")
EPOCHS, PARAMETERS = "epochs", "parameters"


def is_figure(name: str) -> bool:
    """Return whether a run has a figure of this name."""
    return name in (*PERCENT, *RECALLS, *FRACTIONS, EPOCHS, PARAMETERS)


def write_figure(name: str, values: Sequence[float]) -> str:
    """Return the mean over the seeds, with the sample standard deviation where there are several.

    Accuracies, recalls and the share of anchors are in percent, parameters in millions; the rest is as it is.
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return ""
    scale, digits, unit = 1.0, 3, ""
    if name in PERCENT or name in RECALLS:
        scale, digits = 100.0, 2
    elif name == EPOCHS:
        digits = 0 if len(set(finite)) == 1 and finite[0].is_integer() else 1
    elif name == PARAMETERS:
        scale, digits, unit = 1e-6, 2, "M"
    scaled = [scale * value for value in finite]
    text = f"{statistics.fmean(scaled):.{digits}f}{unit}"
    spread = statistics.stdev(scaled) if len(scaled) > 1 else 0.0
    if len(scaled) < 2 or (name in (EPOCHS, PARAMETERS) and spread == 0.0):
        return text
    return f"{text} ± {spread:.{digits}f}"
