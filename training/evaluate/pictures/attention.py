"""Faces under the class attention maps of the labels that the network gives them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from training.evaluate.attention import EACH, Attention, attend
from training.evaluate.pictures.style import GREEN, RED, blank, canvas, heading
from training.evaluate.results import Result


def draw_attention(result: Result) -> Figure | None:
    """Draw a row per class, each face plain and under its map; None for networks without maps."""
    found = attend(result)
    if not found:
        return None
    figure, axes = canvas(
        f"Where the label is found: class attention maps, {heading(result)}",
        len(found), 4 * EACH, 0.9 + 1.75 * len(found),
    )  # fmt: skip
    for line, (label, faces) in zip(axes, found.items(), strict=True):
        for place in line:
            blank(place)
        line[0].set_ylabel(result.faces.labels[label], fontsize=13, fontweight="bold")
        right = [face for face in faces if face.predicted == label]
        wrong = [face for face in faces if face.predicted != label]
        for first, group in ((0, right), (2 * EACH, wrong)):
            for number, face in enumerate(group):
                _draw_pair(line[first + 2 * number : first + 2 * number + 2], result, face, label)
    figure.supxlabel(
        "per class the surest right faces and the surest wrong ones, each plain and under the map of "
        "the label given: yellow speaks most for it",
        fontsize=11,
    )
    return figure


def _draw_pair(places: np.ndarray, result: Result, face: Attention, label: int) -> None:
    crop = result.faces.tensors.crops[face.row].numpy()
    probability = result.answers.probabilities[face.row, face.predicted]
    places[0].imshow(crop)
    places[1].imshow(crop)
    places[1].imshow(face.map, cmap="cividis", alpha=0.6)
    colour = GREEN if face.predicted == label else RED
    places[0].set_title(
        f"{result.faces.labels[face.predicted]} {probability:.2f}", loc="left", fontsize=11, color=colour
    )
