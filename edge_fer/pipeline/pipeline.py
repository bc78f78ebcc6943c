"""Runs the stages side by side: a thread reads, one finds faces, the caller's recognises and takes results.

Files give every frame, and the slowest stage sets the pace. Of a live source only the newest frame waits in
front of a stage that is busy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from edge_fer.detectors import Detector
from edge_fer.errors import EdgeFerError, InputError
from edge_fer.pipeline.channel import Channel
from edge_fer.pipeline.events import Closed, Event, Faulty, Opened, Result
from edge_fer.pipeline.stages import Finder, Found, Judge, Located, Read
from edge_fer.recognizer import Recognizer
from edge_fer.sources import Selection, Source, SourcePlan

_WAITING = 4  # frames between two stages: enough to even out their times, few enough for the memory at 4K
_TICK_S = 0.1
_LAST_S = 0.5
"""Seconds after a stop in which frames that are under way may still finish."""

_NAME = "edge-fer"  # how the names of all threads begin

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Pipeline:
    """Every source in turn, through its threads. Use it in a `with` block and iterate over it.

    Args:
        plans: the sources, in order.
        recognizer: the model.
        detector: what finds faces; None: every frame is one face.
        selection: which frames of a source are wanted.
        smooth: whether what is said of a tracked face is the mean over time.
        stop: set it to end early: no further frame is read, those under way are given out.
    """

    def __init__(
        self,
        plans: Sequence[SourcePlan],
        recognizer: Recognizer,
        detector: Detector | None,
        *,
        selection: Selection,
        smooth: bool,
        stop: threading.Event,
    ) -> None:
        self._plans = plans
        self._selection = selection
        self._stop = stop
        self._deadline: float | None = None
        self._before: set[threading.Thread] = set()
        self._read: Channel[Read] = Channel(_WAITING)
        self._found: Channel[Found] = Channel(_WAITING)
        finder, self._judge = Finder(detector), Judge(recognizer, smooth)
        self._threads = [
            _thread("read", self._read, self._read_sources),
            _thread("find", self._found, lambda: _work(finder, self._read, self._found)),
        ]

    @property
    def skipped(self) -> int:
        """Frames of live sources that newer ones replaced before they were searched or recognised."""
        return self._read.skipped + self._found.skipped

    def __enter__(self) -> Pipeline:
        """Start the threads."""
        self._before = set(threading.enumerate())
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads; one that is held by a library is left behind (it keeps no process alive)."""
        self._stop.set()
        self._read.abandon()
        self._found.abandon()
        deadline = self._deadline or time.monotonic() + _LAST_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def held(self) -> bool:
        """Whether a library still holds a thread of the pipeline or of its sources."""
        return any(thread.name.startswith(_NAME) for thread in set(threading.enumerate()) - self._before)

    def __iter__(self) -> Iterator[Event]:
        """Give out events until the last source is closed or the pipeline is stopped.

        Raises:
            EdgeFerError: the detector or the engine failed.
        """
        given = _Given(self._selection.max_frames)
        while not self._found.exhausted:
            item = self._found.take(_TICK_S)  # short waits, so that a signal's handler is run in between
            if item is not None and given.takes(event := self._judge(item)):
                yield event
            if self._stop.is_set():
                self._deadline = self._deadline or time.monotonic() + _LAST_S
                if time.monotonic() > self._deadline:
                    return

    def _read_sources(self) -> None:
        for plan in self._plans:
            if self._stop.is_set():
                return
            selection = replace(self._selection, max_frames=None) if plan.kind == "live" else self._selection
            try:
                source = plan.open(selection, self._stop)
            except EdgeFerError as error:
                self._read.put(Faulty(error))
                continue
            try:
                self._read_source(source)
            finally:
                source.close()

    def _read_source(self, source: Source) -> None:
        self._read.put(Opened(source))
        going_on = True
        while going_on and not self._stop.is_set():
            try:
                frame = source.read()
            except InputError as error:
                going_on = self._read.put(Faulty(error))
                continue
            if frame is None:
                break
            going_on = self._read.put(frame, replaceable=source.kind == "live")
        self._read.put(Closed(source))


class _Given:
    """Ends a live source after so many results: of the frames that it gives, newer ones replace some."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._source: Source | None = None
        self._results = 0

    def takes(self, event: Event) -> bool:
        """Tell whether an event is given out; a result is not that was under way when there were enough."""
        if isinstance(event, Opened):
            self._source, self._results = event.source, 0
        if self._limit is None or not isinstance(event, Result):
            return True
        assert self._source is not None  # a source opens before it gives results
        self._results += 1
        if self._source.kind == "live" and self._results == self._limit:
            self._source.close()
        return self._source.kind != "live" or self._results <= self._limit


def _thread(name: str, outlet: Channel[_Out], work: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (who takes from the channel raises it)
            outlet.close(error)
        outlet.close()

    return threading.Thread(target=run, name=f"{_NAME} {name}", daemon=True)


def _work(stage: Callable[[_In], _Out], inlet: Channel[_In], outlet: Channel[_Out]) -> None:
    for item in inlet:
        done = stage(item)
        if not outlet.put(done, replaceable=isinstance(done, Located) and done.live):
            return
