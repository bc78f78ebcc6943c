"""Ends a command between two frames when it is told to stop, so that its outputs are whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM ended the work early, as Ctrl-C does with KeyboardInterrupt."""


class Stop(threading.Event):
    """An event that is set by SIGINT or SIGTERM.

    Attributes:
        signal: the number of the first signal; None while there was none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signal: int | None = None

    def error(self) -> KeyboardInterrupt:
        """Return what tells the command line's edge that the work was ended early."""
        return Terminated() if self.signal == signal.SIGTERM else KeyboardInterrupt()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # who presses Ctrl-C twice does not want to wait
        self.signal = self.signal or number
        self.set()


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Give an event that SIGINT and SIGTERM set instead of ending the process; a second SIGINT ends it."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # Python takes signals there alone
        yield stop
        return
    before = {number: signal.signal(number, stop._handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
