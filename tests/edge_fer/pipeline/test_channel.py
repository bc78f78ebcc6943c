"""The queue between two threads: order, room, the newest frame, and ends that wake who waits."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.pipeline.channel import Channel


@given(
    st.lists(st.tuples(st.integers(), st.just(False)), max_size=20),
    st.integers(1, 4),
)
def test_everything_arrives_in_order(items: list[tuple[int, bool]], capacity: int) -> None:
    channel: Channel[int] = Channel(capacity)

    def put() -> None:
        for item, replaceable in items:
            channel.put(item, replaceable=replaceable)
        channel.close()

    thread = threading.Thread(target=put)
    thread.start()
    assert list(channel) == [item for item, _ in items]
    thread.join()
    assert channel.skipped == 0 and channel.exhausted


@given(st.lists(st.tuples(st.integers(), st.booleans()), min_size=1, max_size=30))
def test_only_the_newest_of_frames_in_a_row_waits(items: list[tuple[int, bool]]) -> None:
    channel: Channel[tuple[int, bool]] = Channel(len(items))
    for item in items:
        assert channel.put(item, replaceable=item[1])
    channel.close()
    expected = [
        item
        for number, item in enumerate(items)
        if not (item[1] and number + 1 < len(items) and items[number + 1][1])
    ]
    assert list(channel) == expected
    assert channel.skipped == len(items) - len(expected)


def test_put_waits_for_room_and_take_for_items() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    put = threading.Thread(target=channel.put, args=(2,))
    put.start()
    time.sleep(0.05)
    assert put.is_alive()
    assert channel.take() == 1
    put.join(1)
    assert not put.is_alive() and channel.take() == 2
    started = time.monotonic()
    assert channel.take(0.05) is None
    assert 0.04 < time.monotonic() - started < 1
    assert not channel.exhausted


def test_closing_wakes_both_sides() -> None:
    full: Channel[int] = Channel(1)
    full.put(1)
    answers: list[bool] = []
    put = threading.Thread(target=lambda: answers.append(full.put(2)))
    put.start()
    full.close()
    put.join(1)
    assert answers == [False]
    assert list(full) == [1]

    empty: Channel[int] = Channel(1)
    taken: list[int | None] = []
    take = threading.Thread(target=lambda: taken.append(empty.take()))
    take.start()
    empty.close()
    take.join(1)
    assert taken == [None] and not empty.put(3)


def test_an_abandoned_channel_is_empty() -> None:
    channel: Channel[int] = Channel(3)
    channel.put(1)
    channel.abandon()
    assert channel.exhausted and list(channel) == []


def test_an_error_comes_after_what_was_put_before_it() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.close(ValueError("it broke"))
    channel.close()
    assert not channel.exhausted and channel.take() == 1
    with pytest.raises(ValueError, match="it broke"):
        channel.take()
