"""Signals become an event: the first one wherever the main thread is, the second Ctrl-C an end at once."""

from __future__ import annotations

import signal
import threading

import pytest

from edge_fer.stopping import Stop, Terminated, stop_on_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def deliver(number: int) -> None:
    """Do what Python does when a signal comes; real ones go to processes of their own, in other tests.

    In this process libraries have changed the stack on which the system calls handlers.
    """
    handler = signal.getsignal(number)
    assert callable(handler)
    handler(number, None)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated), (signal.SIGHUP, Terminated)],
)
def test_a_signal_sets_the_event_and_the_old_handlers_come_back(
    number: signal.Signals, kind: type[KeyboardInterrupt]
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_on_signals() as stop:
        assert not stop.is_set() and stop.signal is None
        deliver(number)
        assert stop.is_set() and stop.signal == number and type(stop.error()) is kind
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_second_ctrl_c_ends_and_a_second_sigterm_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_on_signals() as stop:
        deliver(signal.SIGTERM)
        deliver(signal.SIGINT)  # at once: the same wish, passed on by somebody else as well
    monkeypatch.setattr("edge_fer.stopping._PATIENCE_S", -1.0)
    with stop_on_signals() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM):
            deliver(number)
        with pytest.raises(KeyboardInterrupt):
            deliver(signal.SIGINT)
        assert stop.signal == signal.SIGTERM


def test_a_handler_waits_for_no_lock_that_the_interrupted_thread_may_hold() -> None:
    stop = Stop()
    with stop._cond:  # as within the `set()` that the signal interrupts
        handler = threading.Thread(target=stop._handle, args=(signal.SIGTERM, None), daemon=True)
        handler.start()
        handler.join(2)
        assert not handler.is_alive()
        assert stop.is_set()
    assert not Stop().is_set()
