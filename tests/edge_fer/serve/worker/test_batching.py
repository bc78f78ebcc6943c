"""Which faces run together: the rule against all ways to cut, the choice on engines of known speed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fer.engines.base import Outputs
from edge_fer.errors import EngineError
from edge_fer.recognizer import Recognizer
from edge_fer.serve import batching
from edge_fer.serve.batching import SIZES, Batching, measure

SIDE = 8


class Timed:
    """An engine whose time is known, so much for a run and so much for each of its faces, and its clock."""

    name = "timed"
    now = 0.0
    inexact = "reliability"  # which output changes in runs larger than `exact_up_to`

    def __init__(self, run_s: float, face_s: float, exact_up_to: int = 99, takes: int = 99) -> None:
        self.run_s, self.face_s = run_s, face_s
        self.exact_up_to, self.takes = exact_up_to, takes
        self.sizes: list[int] = []

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        self.sizes.append(len(images))
        if len(images) > self.takes:
            raise EngineError("too many")
        self.now += self.run_s + len(images) * self.face_s
        values = images.reshape(len(images), -1)[:, :8].astype(np.float32) + 1
        answers = values / values.sum(axis=1, keepdims=True)
        outputs = Outputs(answers, answers.copy(), answers[:, 0].copy())
        if len(images) > self.exact_up_to:
            changed = getattr(outputs, self.inexact)
            changed[-1] = np.nextafter(changed[-1], np.float32(2))
        return outputs

    def perf_counter(self) -> float:
        return self.now


@given(
    st.sampled_from([(1,), (1, 2), (1, 2, 4), (1, 4), (1, 2, 4, 8, 16)]),
    st.lists(st.integers(0, 5) | st.integers(0, 20), min_size=1, max_size=12),
)
@example((1, 2, 4), [3, 1])
@example((1, 2, 4), [0, 1, 1, 1])
@example((1, 2, 4), [0, 0, 5])
def test_the_most_first_pictures_whose_faces_make_a_size(sizes: tuple[int, ...], faces: list[int]) -> None:
    allowed = {0, *sizes}
    possible = [
        count
        for count in range(1, len(faces) + 1)
        if sum(faces[:count]) in allowed and set(faces[:count]) <= allowed
    ]
    assert Batching(sizes).together(faces) == max(possible, default=1)


Choose = Callable[[Timed], Batching]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    def measured(engine: Timed) -> Batching:
        monkeypatch.setattr(batching, "time", engine)
        return measure(engine, SIDE)  # type: ignore[arg-type]

    return measured


@pytest.mark.parametrize(
    ("run_s", "face_s", "sizes"),
    [
        (0.01, 0, SIZES),
        (0, 0.005, (1,)),
        (0.0001, 0.005, (1,)),  # 5.1 ms alone, 5.05, 5.03, 5.01 ...: all within 3 %
        (0.001, 0.005, (1, 2, 4, 8)),  # 6, 5.5, 5.25, 5.125, 5.0625
        (0.0006, 0.005, (1, 2, 4)),  # 5.6, 5.3, 5.15, 5.075, 5.0375
        (0.0003, 0.005, (1, 2)),  # 5.3, 5.15, 5.075, 5.0375, 5.01875
    ],
)
def test_the_smallest_size_near_the_fastest_is_taken(
    choose: Choose, run_s: float, face_s: float, sizes: tuple[int, ...]
) -> None:
    assert choose(Timed(run_s, face_s)).sizes == sizes


@pytest.mark.parametrize(
    ("exact_up_to", "sizes"), [(1, (1,)), (2, (1, 2)), (7, (1, 2, 4)), (15, (1, 2, 4, 8))]
)
def test_sizes_that_change_one_bit_of_one_row_are_not_used(
    choose: Choose, exact_up_to: int, sizes: tuple[int, ...]
) -> None:
    for output in ("probabilities", "primary", "reliability"):
        engine = Timed(run_s=0.01, face_s=0, exact_up_to=exact_up_to)
        engine.inexact = output
        assert choose(engine).sizes == sizes


def test_an_engine_that_refuses_a_size_keeps_those_below(choose: Choose) -> None:
    assert choose(Timed(run_s=0.01, face_s=0, takes=4)).sizes == (1, 2, 4)
    with pytest.raises(EngineError):
        choose(Timed(run_s=0, face_s=0, takes=0))


@pytest.mark.parametrize("face_s", [0.0005, 0.005, 0.03, 0.1, 0.3, 1.0, 10.0])
def test_measuring_ends_in_time(choose: Choose, face_s: float) -> None:
    engine = Timed(run_s=0, face_s=face_s)
    choose(engine)
    assert engine.now <= max(2.0, 2 * face_s)  # two runs of a single face go before everything else
    assert face_s > 0.005 or engine.now < 1


def test_the_embedded_network_is_measured_within_a_second() -> None:
    recognizer = Recognizer.load(threads=1)
    started = time.process_time()
    chosen = measure(recognizer.engine, recognizer.spec.input.size)
    assert time.process_time() - started < 1
    faces = np.random.default_rng(3).integers(0, 256, (chosen.largest, 64, 64, 3)).astype(np.uint8)
    for size in chosen.sizes:
        together = recognizer.engine.run(faces[:size])
        for row in range(size):
            alone = recognizer.engine.run(faces[row : row + 1])
            assert alone.probabilities.tobytes() == together.probabilities[row].tobytes()
            assert alone.primary.tobytes() == together.primary[row].tobytes()
            assert alone.reliability.tobytes() == together.reliability[row].tobytes()
