"""DMUE: what else the faces of each class could be, as its branches mined it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.evaluate.figures import Values
from training.evaluate.pictures.style import canvas

_KINDS = {"negatives": "LD-N", "average": "LD-A, the ablation"}


def draw_latent(dmue: Values | None) -> Figure | None:
    """Draw the mean latent distribution of each class, and say how the uncertainty ranked planted labels."""
    if dmue is None:
        return None
    rows: Any = dmue["mined"]
    planted: Any = dmue["planted"]
    names = [row["label"] for row in rows]
    means = np.array([row["mean"] for row in rows])
    kind = _KINDS[str(dmue["latent"])]
    figure, axes = canvas(f"DMUE: mined latent distributions ({kind})", 1, 1, 2.2 + 0.62 * len(rows))
    place = axes[0, 0]
    place.imshow(means, cmap="Blues", aspect="auto", vmin=0.0)
    place.grid(visible=False)
    for row, column in np.ndindex(*means.shape):
        share = means[row, column]
        colour = "white" if share > 0.6 * means.max() else "black" if share else "#b0b0b0"
        place.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour)
    place.set_xticks(range(len(names)), names)
    place.set_yticks(range(len(names)), [f"{row['label']}\nn = {row['faces']:,}" for row in rows])
    place.set_ylabel("true label")
    place.set_xlabel("what else it could be, mean over the faces")
    place.set_title(
        f"{planted['faces']} planted wrong labels ({planted['share']:.0%}): the uncertainty ranks them with "
        f"an AUROC of {planted['auroc']:.3f}\nand finds {planted['share_found']:.0%} of them among as many "
        "of the most uncertain faces",
        loc="left",
        fontsize=12,
    )
    return figure
