"""What waits to be recognised, within bounds, and how each piece of work ends: once, and always.

Knows futures and locks, no pictures. A future is never touched while the lock is held: what its callbacks do
is not known here.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from edge_fer.errors import EdgeFerError
from edge_fer.output import Moment
from edge_fer.pipeline.stages import Finder, Judge
from edge_fer.recognizer import Analysis

_LONGEST_RETRY_S = 60
_AHEAD = 2  # frames of one stream: one whose faces are looked for while those of another are recognised
_WAIT_SHARE = 0.8  # of the time that a picture has; the pace may slacken
_FADE = 31 / 32  # how much of its weight a picture's time keeps with every picture after it


class Busy(EdgeFerError):
    """There is no room for more work, or the service is ending.

    Attributes:
        retry_after_s: whole seconds after which it is worth trying again.
    """

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What is said of one picture or frame.

    Attributes:
        moment: which one.
        analysis: its faces; as `infer` gives it. `recognise` is the time of the run that this picture was in,
            together with others or alone.
        waited_s: seconds in queues, all of them together.
    """

    moment: Moment
    analysis: Analysis
    waited_s: float


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One picture or frame on its way to an answer.

    Attributes:
        data: the encoded picture; empty once it is decoded.
        moment: what its answer calls it.
        finder: finds its faces; of a stream, with its tracks.
        judge: of a stream, recognises and smooths; None: a picture that may be recognised with others.
        received: `time.monotonic()` when it came.
        deadline: `time.monotonic()` after which no work is begun on it.
        future: where its answer goes.
        begun: it was taken from the queue.
        waited_s: seconds in queues so far.
        ended: its answer, or the reason why there is none, is being given or was given.
    """

    data: bytes
    moment: Moment
    finder: Finder
    judge: Judge | None = None
    received: float
    deadline: float = math.inf
    future: Future[Answer] = field(default_factory=Future)
    begun: bool = False
    waited_s: float = 0.0
    ended: bool = False


class JobQueue:
    """Jobs in the order of their arrival, and all that have not ended yet.

    Args:
        capacity: pictures that may be under way, those that wait and those that are worked on.
        capacity_bytes: encoded bytes that may wait; one picture alone may be larger.
    """

    def __init__(self, capacity: int, capacity_bytes: int) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._waiting: deque[Job] = deque()
        self._open: dict[Future[Answer], Job] = {}
        # Reentrant: a finaliser or a signal's handler may come while its own thread holds it.
        lock = threading.RLock()
        self._changed, self._emptied = threading.Condition(lock), threading.Condition(lock)
        self._refusing = False
        self._closed = False
        self._pace = _Pace()

    @property
    def pending(self) -> int:
        """How many jobs have not ended."""
        return len(self._open)

    @property
    def refusing(self) -> bool:
        """Whether no new work is taken, for good."""
        return self._refusing

    @property
    def full(self) -> bool:
        """Whether a picture would be refused now."""
        with self._changed:
            return self._is_full(1)

    def check_open(self) -> None:
        """Refuse when no new work is taken.

        Raises:
            Busy: none is.
        """
        if self._refusing:
            raise Busy("the service is ending: try again later", self.retry_after_s())

    def put(self, job: Job) -> None:
        """Add a picture.

        Raises:
            Busy: there is no room, its turn would come too late, or no new work is taken.
        """
        job.future.add_done_callback(self._forget)
        with self._changed:
            self.check_open()
            if self._is_full(len(job.data)) or self._would_be_late(job):
                raise Busy(
                    f"{len(self._open)} pictures are under way, as many as are answered in time: try again "
                    "later",
                    self.retry_after_s(),
                )
            self._add(job)

    def put_frame(self, job: Job, before: Job | None) -> None:
        """Add a stream's frame, which no bound refuses; it takes the place of one of the stream's that waits.

        Args:
            job: the new frame.
            before: the stream's last one; its future is cancelled if it still waits.

        Raises:
            Busy: no new work is taken.
        """
        job.future.add_done_callback(self._forget)
        with self._changed:
            self.check_open()
            replaced = before is not None and before in self._waiting
            if before is not None and replaced:
                self._waiting[self._waiting.index(before)] = job
                self._open[job.future] = job
            else:
                self._add(job)
        if before is not None and replaced:
            before.future.cancel()

    def take(self) -> Job | None:
        """Wait for the next job; None: closed.

        Of a stream, `_AHEAD` frames are worked on at a time and the newest of the others waits here: behind a
        slow recogniser there would be a row of old ones otherwise.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next() is not None)
            job = self._next()
            if job is None:
                return None
            self._waiting.remove(job)
            job.begun = True
        job.waited_s += time.monotonic() - job.received
        return job

    def goes_on(self, job: Job) -> bool:
        """Tell whether work on a job is still worth it; one whose deadline has passed ends here."""
        if not job.ended and time.monotonic() > job.deadline:
            self.fail(job, TimeoutError(f"{job.moment.source}: not begun within the time limit; try again"))
        return not job.ended

    def answer(self, job: Job, answer: Answer) -> None:
        """End a job with its answer; without effect when it has ended."""
        if self._claim(job):
            with self._settling(job, worked=True):
                if job.future.set_running_or_notify_cancel():
                    job.future.set_result(answer)

    def fail(self, job: Job, error: BaseException) -> None:
        """End a job with the reason why there is no answer; without effect when it has ended."""
        if self._claim(job):
            if isinstance(error, EdgeFerError):
                # The line says it all; frames and causes would keep the picture alive with the error.
                error.__traceback__ = error.__context__ = error.__cause__ = None
            with self._settling(job, worked=not isinstance(error, (Busy, TimeoutError))):
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(error)

    def drain(self, timeout_s: float) -> bool:
        """Take no new work and wait until all has ended; tell whether it has."""
        with self._emptied:
            self._refusing = True
            return self._emptied.wait_for(lambda: not self._open, timeout_s)

    def close(self) -> None:
        """Take no new work, and end all that has not ended."""
        with self._changed:
            self._refusing = self._closed = True
            self._waiting.clear()
            left = list(self._open.values())
            self._changed.notify_all()
        for job in left:
            self.fail(job, Busy("the service is ending: try again later", self.retry_after_s()))

    def retry_after_s(self) -> int:
        """Return in how many seconds what is under way now will be done, by the pace so far; 1 to 60."""
        return min(_LONGEST_RETRY_S, max(1, math.ceil(len(self._open) * self._pace.picture_s)))

    def _next(self) -> Job | None:
        begun = Counter(job.judge for job in self._open.values() if job.begun and job.judge is not None)
        return next((job for job in self._waiting if job.judge is None or begun[job.judge] < _AHEAD), None)

    def _is_full(self, size_bytes: int) -> bool:
        under_way = sum(job.judge is None for job in self._open.values())
        waiting_bytes = sum(len(job.data) for job in self._waiting)
        return under_way >= self._capacity or (
            waiting_bytes > 0 and waiting_bytes + size_bytes > self._capacity_bytes
        )

    def _would_be_late(self, job: Job) -> bool:
        """Tell whether a picture would, by the pace so far, wait until its deadline or almost."""
        waits_s = len(self._open) * self._pace.picture_s
        return waits_s > _WAIT_SHARE * max(0.0, job.deadline - time.monotonic())

    def _add(self, job: Job) -> None:
        self._waiting.append(job)
        self._open[job.future] = job
        self._changed.notify()

    def _forget(self, future: Future[Answer]) -> None:
        """End the job of a future that was cancelled."""
        if not future.cancelled():
            return
        with self._changed:
            job = self._open.get(future)
            if job is not None and job in self._waiting:
                self._waiting.remove(job)
        if job is not None and self._claim(job):
            with self._settling(job, worked=False):
                future.set_running_or_notify_cancel()

    def _claim(self, job: Job) -> bool:
        """Tell whether the caller is the one who ends the job."""
        with self._changed:
            won, job.ended = not job.ended, True
            return won

    @contextmanager
    def _settling(self, job: Job, *, worked: bool) -> Iterator[None]:
        """Count a job as ended once its future has ended, whatever the future's callbacks raise."""
        try:
            yield
        except BaseException:
            logging.getLogger(__name__).exception("a callback failed")
        job.data = b""
        with self._emptied:
            del self._open[job.future]
            self._changed.notify()  # the next frame of its stream may be taken
            if worked:
                self._pace.note(job.received, time.monotonic())
            if not self._open:
                self._emptied.notify_all()


class _Pace:
    """The mean time per picture while there is work, the last ones counting most."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._pictures = 0.0
        self._last = -math.inf

    @property
    def picture_s(self) -> float:
        """Seconds per picture; 0: not known yet."""
        return self._seconds / self._pictures if self._pictures else 0.0

    def note(self, received: float, ended: float) -> None:
        """Count a picture: since the last one ended, or since it came if there was nothing to do before."""
        self._seconds = _FADE * self._seconds + (ended - max(self._last, received))
        self._pictures = _FADE * self._pictures + 1
        self._last = ended
