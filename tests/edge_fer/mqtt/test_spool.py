"""The spool against a plain list: nothing below the bound is lost, the oldest goes first, order stays."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.mqtt.spool import Spool

MESSAGES, BYTES = 5, 20
STEPS = st.lists(
    st.integers(0, 24).map(lambda size: ("put", size))
    | st.tuples(st.sampled_from(["take", "settle", "rewind"]), st.integers(0, 4))
)


@settings(deadline=None)
@given(STEPS)
def test_it_is_a_bounded_list(steps: list[tuple[str, int]]) -> None:
    spool = Spool(MESSAGES, BYTES)
    waiting: list[tuple[int, int]] = []  # number and size
    sent: list[tuple[int, int]] = []
    put = settled = dropped = 0
    for step, value in steps:
        if step == "put":
            before = dropped
            if value > BYTES:
                dropped += 1
            else:
                waiting.append((put, value))
                while waiting and (
                    len(waiting + sent) > MESSAGES or sum(size for _, size in waiting + sent) > BYTES
                ):
                    del waiting[0]
                    dropped += 1
            put += 1
            assert spool.put(bytes(value)) == (dropped == before)
        elif step == "take":
            entry = spool.take()
            assert (entry is None) == (not waiting)
            if entry is not None:
                sent.append(waiting.pop(0))
                assert (entry.number, len(entry.payload)) == sent[-1]
        elif step == "settle" and sent:
            spool.settle(sent.pop(value % len(sent))[0])
            settled += 1
        elif step == "rewind":
            spool.rewind()
            waiting, sent = sent + waiting, []
        assert (len(spool), spool.dropped, spool.given) == (len(waiting + sent), dropped, put)
        assert put == settled + dropped + len(spool)
    spool.rewind()
    assert [spool.take().number for _ in range(len(spool))] == [  # type: ignore[union-attr]
        number for number, _ in sent + waiting
    ]


def test_what_is_sent_is_not_dropped() -> None:
    spool = Spool(2, 100)
    assert spool.put(b"a") and spool.put(b"b")
    assert spool.take() is not None
    assert not spool.put(b"c")
    spool.rewind()
    taken = [spool.take(), spool.take(), spool.take()]
    assert [entry and entry.payload for entry in taken] == [b"a", b"c", None]
