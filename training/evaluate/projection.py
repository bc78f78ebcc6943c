"""A picture of the embeddings in two dimensions: t-SNE, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from training.evaluate.answers import Floats

SEED = 0
PERPLEXITY = 30.0
MOST_FACES = 5000
FEWEST_FACES = 5


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Places of faces in the plane.

    Attributes:
        rows: (M,) int64, which of the faces these are.
        places: (M, 2) float32.
        perplexity: in force.
    """

    rows: NDArray[np.int64]
    places: Floats
    perplexity: float


def project(embedding: Floats) -> Projection | None:
    """Lay embeddings (N, D) out in the plane (van der Maaten & Hinton 2008); None for fewer than 5 faces.

    Of more than 5,000 faces as many are drawn at random, seeded, as the time grows faster than their number.
    """
    if len(embedding) < FEWEST_FACES:
        return None
    rows = np.arange(len(embedding))
    if len(rows) > MOST_FACES:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, MOST_FACES, replace=False))
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3.0)
    # From the principal components, not from noise: the picture keeps the large distances, too.
    places = TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(embedding[rows])
    return Projection(rows, np.asarray(places, dtype=np.float32), perplexity)
