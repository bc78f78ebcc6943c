"""The average over time against its formula, and what it is for: less flicker, changes at once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import entropy

from edge_fer.tracking.smoothing import Smoother

CLASSES = 8
Rows = NDArray[np.float32]


def distribution(top: int, share: float) -> Rows:
    row = np.full(CLASSES, (1 - share) / (CLASSES - 1), np.float32)
    row[top] = share
    return row


def reliability(row: NDArray[np.floating]) -> float:
    return 1 - float(entropy(row.astype(np.float64))) / np.log(len(row))


def smoothed(times: NDArray[np.float64], rows: Rows) -> Rows:
    smoother = Smoother()
    return np.stack(
        [smoother.smooth(1, t, row, row, reliability(row))[0] for t, row in zip(times, rows, strict=True)]
    )


def test_the_average_is_the_formula() -> None:
    generator = np.random.default_rng(0)
    times = np.cumsum(generator.uniform(0.01, 0.3, 12))  # a variable frame rate
    rows = generator.dirichlet(np.r_[6, np.ones(7)], 12).astype(np.float32)
    rows[:, 0] += 1  # one label throughout: nothing cuts the memory short
    rows /= rows.sum(axis=1, keepdims=True)
    primary = generator.dirichlet(np.ones(8), 12).astype(np.float32)
    trust = generator.uniform(0.1, 1, 12)
    smoother = Smoother()
    for n in range(12):
        got = smoother.smooth(3, times[n], rows[n], primary[n], float(trust[n]))
        weights = trust[: n + 1] * np.exp(-(times[n] - times[: n + 1]) / 0.3)
        np.testing.assert_allclose(got[0], np.average(rows[: n + 1], axis=0, weights=weights), rtol=1e-5)
        np.testing.assert_allclose(got[1], np.average(primary[: n + 1], axis=0, weights=weights), rtol=1e-5)
        assert got[2] == pytest.approx(reliability(got[0]), abs=1e-5)
        assert got[0].dtype == got[1].dtype == np.float32


def test_the_first_frame_is_given_back_as_it_is() -> None:
    row = distribution(2, 1.0)  # zeros elsewhere: 0 log 0 = 0
    probabilities, primary, trust = Smoother().smooth(1, 5.0, row, distribution(1, 0.4), 1.0)
    np.testing.assert_array_equal(probabilities, row)
    np.testing.assert_allclose(primary, distribution(1, 0.4), rtol=1e-6)
    assert trust == 1.0


def test_a_flat_distribution_counts_next_to_nothing_but_is_no_error() -> None:
    smoother, flat = Smoother(), np.full(CLASSES, 1 / CLASSES, np.float32)
    assert smoother.smooth(1, 0.0, flat, flat, 0.0)[2] == pytest.approx(0, abs=1e-6)
    after = smoother.smooth(1, 0.03, distribution(4, 0.9), distribution(4, 0.9), 0.7)[0]
    assert after[4] > 0.89


def test_tracks_do_not_mix_and_gaps_and_backward_times_start_afresh() -> None:
    smoother, old, new = Smoother(), distribution(1, 0.9), distribution(5, 0.6)
    smoother.smooth(1, 0.0, old, old, 0.9)
    for track, time_s in ((2, 0.1), (1, 1.2), (1, 0.9)):
        np.testing.assert_allclose(smoother.smooth(track, time_s, new, new, 0.2)[0], new, rtol=1e-6)
    smoother.smooth(3, 0.0, old, old, 0.9)
    assert smoother.smooth(3, 0.9, new, new, 0.2)[0][1] > 0.1


def test_forgotten_tracks_start_afresh_and_take_no_memory() -> None:
    smoother, old, new = Smoother(), distribution(1, 0.9), distribution(5, 0.6)
    for track in range(1000):
        smoother.smooth(track, 0.0, old, old, 0.9)
        smoother.forget({1, track})
    assert len(smoother._memories) == 2
    smoother.forget([])
    np.testing.assert_allclose(smoother.smooth(1, 0.1, new, new, 0.2)[0], new, rtol=1e-6)


def flips(rows: Rows) -> int:
    return int((np.diff(rows.argmax(axis=1)) != 0).sum())


def noisy_rows(labels: NDArray[np.int_], strength: float, noise: float, seed: int) -> Rows:
    """A made-up model's answers: a logit above 0 for the true label, and noise on all of them."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, noise, (len(labels), CLASSES))
    logits[np.arange(len(labels)), labels] += strength
    rows = np.exp(logits)
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("fps", [10, 30, 60])
@pytest.mark.parametrize("noise", [0.7, 1.0, 1.4])
def test_flicker_is_less_than_half(fps: int, noise: float) -> None:
    before = after = 0
    for seed in range(5):
        rows = noisy_rows(np.zeros(10 * fps, int), 2.0, noise, seed)
        before += flips(rows)
        after += flips(smoothed(np.arange(len(rows)) / fps, rows))
    assert before >= 10
    assert after <= before / 2


@pytest.mark.parametrize("fps", [8, 15, 30, 60])
@pytest.mark.parametrize(("sure_before", "sure_after"), [(6.0, 6.0), (6.0, 2.5), (3.0, 3.0), (2.5, 6.0)])
def test_a_change_shows_within_half_a_second(fps: int, sure_before: float, sure_after: float) -> None:
    delays = []
    for seed in range(10):
        change = 3 * fps
        rows = np.concatenate(
            [
                noisy_rows(np.full(change, 1), sure_before, 0.3, seed),
                noisy_rows(np.full(2 * fps, 0), sure_after, 0.3, seed + 100),
            ]
        )
        assert (rows.argmax(axis=1) == np.repeat([1, 0], [change, 2 * fps])).all()
        labels = smoothed(np.arange(len(rows)) / fps, rows).argmax(axis=1)
        # The first frame that shows the change is 0 s late.
        delays.append((np.flatnonzero(labels != 0).max() + 1 - change) / fps)
    assert max(delays) <= 0.5


def test_neither_a_short_burst_nor_every_other_frame_cuts_the_memory_short() -> None:
    usual, odd = distribution(0, 0.9), distribution(1, 0.6)
    burst = np.stack([usual] * 120 + [odd] * 6)
    assert (smoothed(np.arange(126) / 60, burst).argmax(axis=1) == 0).all()
    alternating = np.stack([usual, odd] * 60)
    assert (smoothed(np.arange(120) / 30, alternating).argmax(axis=1) == 0).all()
