"""Draws every picture of an evaluation as PNG files by name; knows no figure that is not in the results."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context

from training.evaluate.document import Beside
from training.evaluate.figures import Values
from training.evaluate.history import History
from training.evaluate.pictures.attention import draw_attention
from training.evaluate.pictures.balancing import draw_balancing, draw_examples
from training.evaluate.pictures.confusion import draw_confusion
from training.evaluate.pictures.curves import (
    draw_losses,
    draw_reliability,
    draw_risk_coverage,
    draw_validation,
)
from training.evaluate.pictures.embeddings import draw_anchors, draw_embeddings
from training.evaluate.pictures.latent import draw_latent
from training.evaluate.pictures.recall import draw_recall
from training.evaluate.pictures.style import STYLE, png
from training.evaluate.results import Result


def draw(
    results: Sequence[Result], history: History | None, beside: Beside | None, dmue: Values | None
) -> dict[str, bytes]:
    """Return the pictures of one or two checkpoints by file name; those that do not apply are left out."""
    with rc_context(STYLE):
        figures = {
            "risk-coverage.png": draw_risk_coverage(results),
            "reliability.png": draw_reliability(results),
            "recall.png": draw_recall(results, beside),
            "embeddings.png": draw_embeddings(results),
            "anchors.png": draw_anchors(results),
            "latent.png": draw_latent(dmue),
        }
        for result in results:
            suffix = f"-{result.name}" if len(results) > 1 else ""
            figures[f"confusion{suffix}.png"] = draw_confusion(result)
            figures[f"balancing{suffix}.png"] = draw_balancing(result)
            figures[f"examples{suffix}.png"] = draw_examples(result)
            figures[f"attention{suffix}.png"] = draw_attention(result)
        if history is not None:
            figures |= {"losses.png": draw_losses(history), "validation.png": draw_validation(history)}
        return {name: png(figure) for name, figure in figures.items() if figure is not None}
