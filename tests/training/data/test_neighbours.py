"""Neighbours in valence and arousal, beside a computation over all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from edge_fer.errors import TrainingError
from edge_fer.labels import LABELS, LABELS_WITH_OTHER
from training.data.neighbours import (
    NearestFaces,
    load_nearest,
    nearest_faces,
    prototype_valence_arousal,
)


def points(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("count", [1, 8])
def test_neighbours_and_similarity_are_those_of_all_pairs(count: int, squared: bool) -> None:
    values = points(60)
    found = nearest_faces(values, count, squared=squared)
    assert found.rows.shape == found.similarity.shape == (60, count)
    assert found.rows.dtype == torch.int64 and found.similarity.dtype == torch.float32
    exact = values.double().numpy()
    for row in range(60):
        apart = exact - exact[row]
        distance = np.hypot(apart[:, 0], apart[:, 1])
        distance[row] = np.inf
        expected = np.argsort(distance)[:count]
        assert found.rows[row].tolist() == expected.tolist()
        power = (apart**2).sum(axis=1) if squared else np.abs(apart).sum(axis=1)
        np.testing.assert_allclose(found.similarity[row], np.exp(-power[expected] / 0.5), rtol=1e-6)


@settings(deadline=None)
@given(
    places=st.lists(st.integers(0, 3), min_size=2, max_size=40),
    count=st.integers(1, 8),
)
def test_no_face_is_its_own_neighbour_even_where_many_are_alike(places: list[int], count: int) -> None:
    values = torch.tensor([[place / 4, -place / 4] for place in places])
    if count >= len(places):
        with pytest.raises(TrainingError, match=f"1 to {len(places) - 1} neighbours"):
            nearest_faces(values, count)
        return
    found = nearest_faces(values, count)
    for row, near in enumerate(found.rows.tolist()):
        assert row not in near and len(set(near)) == count
        distances = sorted(abs(places[row] - place) for other, place in enumerate(places) if other != row)
        assert [abs(places[row] - places[other]) for other in near] == distances[:count]


def test_missing_values_are_refused() -> None:
    values = points(9)
    values[3, 1] = torch.nan
    with pytest.raises(TrainingError, match="every face, 1 have none"):
        nearest_faces(values, 2)
    with pytest.raises(TrainingError, match="1 to 8 neighbours, got 0"):
        nearest_faces(points(9), 0)


@pytest.mark.parametrize("names", [LABELS, LABELS_WITH_OTHER])
def test_prototypes_lie_around_their_labels(names: tuple[str, ...]) -> None:
    labels = torch.arange(len(names)).repeat_interleave(400)
    values = prototype_valence_arousal(labels, names, seed=1)
    assert values.shape == (len(labels), 2) and values.dtype == torch.float32
    assert float(values.abs().max()) <= 1
    means = torch.stack([values[labels == label].mean(dim=0) for label in range(len(names))])
    assert float(torch.cdist(means, means).fill_diagonal_(9).min()) > 0.1
    valence, arousal = means.T
    at = {name: place for place, name in enumerate(names)}
    assert valence[at["happiness"]] > 0.5 and valence[at["sadness"]] < -0.5 and valence[at["anger"]] < -0.3
    assert arousal[at["surprise"]] > 0.5 and arousal[at["fear"]] > 0.5 and arousal[at["sadness"]] < 0
    assert torch.equal(prototype_valence_arousal(labels, names, seed=1), values)
    assert not torch.equal(prototype_valence_arousal(labels, names, seed=2), values)
    alone = prototype_valence_arousal(labels, names, seed=1, scatter=0.0)
    assert len(torch.unique(alone, dim=0)) == len(names)


def write_nearest(nearest: NearestFaces, path: Path) -> None:
    """Write the file that docs/training.md describes."""
    tensors = {"rows": nearest.rows, "similarity": nearest.similarity}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def test_neighbours_are_read_from_a_file(tmp_path: Path) -> None:
    found, path = nearest_faces(points(20), 3), tmp_path / "nearest.safetensors"
    write_nearest(found, path)
    again = load_nearest(path, 20, 3)
    assert torch.equal(again.rows, found.rows) and torch.equal(again.similarity, found.similarity)
    with pytest.raises(TrainingError, match=r"expected rows of shape \(21, 3\) torch.int64, got \(20, 3\)"):
        load_nearest(path, 21, 3)
    for rows, similarity in (
        (found.rows + 18, found.similarity),
        (found.rows - 5, found.similarity),
        (found.rows, found.similarity + 1),
        (found.rows, found.similarity * torch.nan),
    ):
        write_nearest(NearestFaces(rows, similarity), path)
        with pytest.raises(TrainingError, match="rows of 0 to 19 and similarities of 0 to 1"):
            load_nearest(path, 20, 3)
    with pytest.raises(TrainingError, match=r'data.valence_arousal "", "prototypes" or a file.*got .*/none'):
        load_nearest(tmp_path / "none", 20, 3)
