"""Two halves of the calibration faces: disjoint, complete, and compared by the project's own figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from calibrate.stability import check_stability
from edge_fer.engines.base import Outputs
from edge_fer.errors import CalibrationError

Crops = NDArray[np.uint8]


def draw(count: int, seed: int) -> Crops:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def mean_of(crops: Crops) -> float:
    """Stand for a quantiser whose graph knows the faces it was calibrated on."""
    return float(crops.mean())


def answer(graph: float, crops: Crops) -> Outputs:
    """Put a face into one of two classes by its brightness beside the graph's."""
    shade = 1 / (1 + np.exp((crops.mean(axis=(1, 2, 3)) - graph) / 8))
    probabilities = np.stack([shade, 1 - shade], axis=1).astype(np.float32)
    return Outputs(probabilities, probabilities, np.ones(len(crops), np.float32))


def test_the_halves_are_disjoint_and_complete() -> None:
    crops, held, halves = draw(21, 1), draw(5, 2), []

    def quantise(half: Crops) -> float:
        halves.append(half)
        return mean_of(half)

    found = check_stability(quantise, answer, crops, held)
    assert [len(half) for half in halves] == [11, 10] == list(found.calibration_faces)
    both = sorted(crop.tobytes() for half in halves for crop in half)
    assert both == sorted(crop.tobytes() for crop in crops)
    assert not np.array_equal(halves[0], crops[:11])  # shuffled: the classes take turns in a manifest


def test_the_figures_are_those_of_the_two_answers() -> None:
    crops, held = draw(9, 3), draw(400, 4)
    labels = np.random.default_rng(5).integers(-1, 2, 400)
    graphs: list[float] = []

    def quantise(half: Crops) -> float:
        graphs.append(mean_of(half))
        return graphs[-1]

    found = check_stability(quantise, answer, crops, held, labels=labels)
    p, q = (answer(graph, held).probabilities.astype(np.float64) for graph in graphs)
    same = p.argmax(axis=1) == q.argmax(axis=1)
    assert 0 < same.mean() < 1
    middle = (p + q) / 2
    divergence = ((p * np.log(p / middle) + q * np.log(q / middle)) / 2).sum(axis=1)
    known = labels >= 0
    accuracies = [float((x.argmax(axis=1) == labels)[known].mean()) for x in (p, q)]
    assert found.agreement == pytest.approx(same.mean(), rel=1e-12)
    assert found.divergence_mean == pytest.approx(divergence.mean(), rel=1e-5)
    assert found.divergence_max == pytest.approx(divergence.max(), rel=1e-5)
    assert found.accuracies == pytest.approx(tuple(accuracies), rel=1e-12)
    assert found.accuracy_spread == pytest.approx(abs(accuracies[0] - accuracies[1]), rel=1e-12)
    content = json.loads(json.dumps(found.to_json()))
    assert content["calibration_faces"] == [5, 4] and content["held_faces"] == 400


def test_the_seed_decides_the_halves() -> None:
    crops, held = draw(20, 6), draw(300, 7)
    first, again, other = (check_stability(mean_of, answer, crops, held, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("labels", [None, np.full(8, -1)])
def test_without_labels_there_is_no_accuracy(labels: NDArray[np.int64] | None) -> None:
    found = check_stability(mean_of, answer, draw(6, 8), draw(8, 9), labels=labels)
    assert (found.accuracies, found.accuracy_spread) == (None, None)
    assert found.to_json()["accuracies"] is None


def test_faces_that_cannot_be_compared_are_refused() -> None:
    crops = draw(6, 10)
    for some, held in ((crops[:1], draw(3, 11)), (crops, crops[:0])):
        with pytest.raises(CalibrationError, match=f"got {len(some)} and {len(held)}"):
            check_stability(mean_of, answer, some, held)
    with pytest.raises(CalibrationError, match="outside the calibration set, 2 are in it"):
        check_stability(mean_of, answer, crops, np.concatenate([draw(3, 11), crops[2:4]]))
