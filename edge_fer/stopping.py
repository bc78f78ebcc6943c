"""Ends a command between two frames when it is told to stop, so that its outputs are whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP: the terminal is gone. Windows has none.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_PATIENCE_S = 1.0  # a second signal within it is the same wish, passed on by a shell or a wrapper as well


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP ended the work early, as Ctrl-C does with KeyboardInterrupt."""


class Stop(threading.Event):
    """An event that SIGINT, SIGTERM or SIGHUP set. It is there to be asked: a signal wakes nobody who waits.

    Attributes:
        signal: the number of the first signal; None while there was none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signal: int | None = None
        self._first_s = 0.0

    def is_set(self) -> bool:
        """Tell whether a signal came, or somebody called `set`."""
        return self.signal is not None or super().is_set()

    def error(self) -> KeyboardInterrupt:
        """Return what tells the command line's edge that the work was ended early."""
        return KeyboardInterrupt() if self.signal == signal.SIGINT else Terminated()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is not None and number == signal.SIGINT and now - self._first_s > _PATIENCE_S:
            raise KeyboardInterrupt  # who presses Ctrl-C again does not want to wait
        self._first_s = now if self.signal is None else self._first_s
        # Not `set()`: it takes a lock, which the thread that is interrupted here may hold for ever then.
        self.signal = self.signal or number


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Give an event that signals set instead of ending the process; a second SIGINT ends it."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # Python takes signals there alone
        yield stop
        return
    # nohup, and a shell for what it starts in the background, have signals ignored: that stays.
    wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop._handle) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
