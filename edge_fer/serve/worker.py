"""Recognises pictures for many askers at once: one thread decodes and finds faces, one recognises them.

Knows no HTTP and no asyncio. Answers are those of `infer`: who else asks changes no bit of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Literal

import numpy as np

from edge_fer.detectors import Detector
from edge_fer.errors import DetectorError
from edge_fer.output import Moment
from edge_fer.pipeline.stages import Finder, Judge
from edge_fer.recognizer import Recognizer
from edge_fer.serve.finding import find_faces
from edge_fer.serve.handover import Found, Handover
from edge_fer.serve.jobs import Answer, Busy, Job, JobQueue
from edge_fer.serve.recognition import Recognition
from edge_fer.serve.streams import Stream

__all__ = ["Answer", "Busy", "Status", "Stream", "Worker"]

MAX_STREAMS = 8
MAX_PIXELS = 40_000_000
Status = Literal["starting", "ready", "busy", "failing", "draining"]

_PROBE_S = 5.0  # an engine that fails is tried so often when nobody asks
_LAST_S = 5.0  # a thread may take so long to end
_RETRY_STREAM_S = 10  # streams last long


class Worker:
    """A recogniser and a detector that many threads may ask at once.

    Args:
        recognizer: the model; nobody else uses its engine from `start` on.
        detector: what finds faces; nobody else uses it from `start` on.
        capacity: pictures that may be under way; streams have bounds of their own.
        capacity_bytes: encoded bytes of pictures that may wait; one alone may be larger.
        max_pixels: larger pictures are refused, by their header.
        on_answer: called with every answer, in the thread that recognises: it should be quick.

    Attributes:
        capacity: as given.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        detector: Detector,
        *,
        capacity: int = 64,
        capacity_bytes: int = 256_000_000,
        max_pixels: int = MAX_PIXELS,
        on_answer: Callable[[Answer], None] | None = None,
    ) -> None:
        self.capacity = capacity
        self._recognizer = recognizer
        self._detector = detector
        self._max_pixels = max_pixels
        self._on_answer = on_answer
        self._finders = {True: Finder(detector), False: Finder(None)}
        self._queue = JobQueue(capacity, capacity_bytes)
        self._handover = Handover()
        self._recognition = Recognition(recognizer)
        self._crop_spec = recognizer.spec.input
        self._streams: set[Stream] = set()
        self._streams_lock = threading.RLock()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"edge-fer {name}", daemon=True)
            for name, work in (("find", self._find_all), ("recognise", self._recognise_all))
        ]

    @property
    def batch(self) -> int:
        """Faces of the largest run that is made of several pictures; 1 until it was measured."""
        return self._recognition.batching.largest

    @property
    def pending(self) -> int:
        """Pictures and frames that have no answer yet."""
        return self._queue.pending

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until what is under way now should be done."""
        return self._queue.retry_after_s()

    @property
    def status(self) -> Status:
        """What to expect: an answer (ready), or why rather none now."""
        if self._queue.refusing:
            return "draining"
        if self._recognition.failing:
            return "failing"
        if not self._recognition.warm:
            return "starting"
        return "busy" if self._queue.full else "ready"

    @property
    def ready(self) -> bool:
        """Whether a picture would be taken and, as far as is known, answered."""
        return self.status == "ready"

    def start(self) -> None:
        """Start the threads. They warm up for up to a few seconds; pictures are taken meanwhile."""
        for thread in self._threads:
            thread.start()

    def submit(self, data: bytes, name: str, *, detect: bool = True, deadline: float) -> Future[Answer]:
        """Take a picture.

        Args:
            data: the encoded picture.
            name: what the answer and errors call it.
            detect: False: the whole picture is one face.
            deadline: `time.monotonic()` after which no work is begun on it.

        Returns:
            The answer to come. Instead of it: InputError (no picture, too large), DetectorError, EngineError,
            TimeoutError (the deadline passed first), Busy (the worker was closed). Cancelling it drops the
            picture, as long as its faces are not being recognised.

        Raises:
            Busy: there is no room, its turn would come too late, or the worker takes no new work.
        """
        job = Job(
            data=data,
            moment=Moment(name),
            finder=self._finders[detect],
            received=time.monotonic(),
            deadline=deadline,
        )
        job.future.add_done_callback(self._tell)
        self._queue.put(job)
        return job.future

    def stream(self, *, detect: bool = True) -> Stream:
        """Open a client's stream of frames.

        Args:
            detect: False: every frame is one face, and nothing is tracked or smoothed.

        Raises:
            Busy: there are as many as there may be, or the worker takes no new work.
        """
        self._queue.check_open()
        finder = Finder(self._detector if detect else None)
        judge = Judge(self._recognizer, smooth=True)
        with self._streams_lock:
            if len(self._streams) >= MAX_STREAMS:
                raise Busy(
                    f"{MAX_STREAMS} streams are open, expected fewer: try again later", _RETRY_STREAM_S
                )
            stream = Stream(self._queue, finder, judge, on_close=self._leave, on_end=self._tell)
            self._streams.add(stream)
        return stream

    def drain(self, timeout_s: float) -> bool:
        """Take no new work and wait until all is answered; tell whether it is."""
        return self._queue.drain(timeout_s)

    def close(self) -> None:
        """End the threads. What has no answer yet gets Busy; `drain` first to answer it.

        A thread that a library still holds after some seconds is left behind; it keeps no process alive.
        """
        self._queue.close()
        self._handover.close()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(_LAST_S)

    def _leave(self, stream: Stream) -> None:
        with self._streams_lock:
            self._streams.discard(stream)

    def _tell(self, future: Future[Answer]) -> None:
        if self._on_answer is not None and not future.cancelled() and future.exception() is None:
            self._on_answer(future.result())

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:  # without one of its threads nothing would ever be answered
            self._queue.close()
            self._handover.close()

    def _find_all(self) -> None:
        self._warm_detector()
        while (job := self._queue.take()) is not None:
            if self._queue.goes_on(job):
                self._find(job)
            del job  # nothing is kept while there is nothing to do

    def _warm_detector(self) -> None:
        with suppress(DetectorError):  # who needs it will be told
            self._detector.detect(np.zeros((64, 64, 3), np.uint8))

    def _find(self, job: Job) -> None:
        try:
            found = find_faces(job, self._crop_spec, self._max_pixels)
        except BaseException as error:  # noqa: BLE001 (who asked gets it)
            self._queue.fail(job, error)
        else:
            self._handover.put(found)

    def _recognise_all(self) -> None:
        recognition = self._recognition
        recognition.warm_up()
        while True:
            pause_s = _PROBE_S if recognition.failing else None
            taken = self._handover.take(recognition.together, pause_s)
            if taken is None:
                return
            if not taken:
                recognition.probe()
            while taken := [found for found in taken if self._queue.goes_on(found.job)]:
                count = recognition.together(taken)
                self._recognise(taken[:count])
                del taken[:count]

    def _recognise(self, together: list[Found]) -> None:
        try:
            answers = self._recognition.answers(together)
        except BaseException as error:  # noqa: BLE001 (who asked gets it)
            if len(together) == 1:
                self._recognition.failures += 1
                self._queue.fail(together[0].job, error)
                return
            answers = []
        if not answers:  # one of them may be the cause, and nobody's picture fails for another's
            for found in together:
                self._recognise([found])
            return
        for found, answer in zip(together, answers, strict=True):
            self._queue.answer(found.job, answer)
