"""What people see of `infer` on standard error: progress while it runs, tables when sources have ended."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from edge_fer.pipeline.events import Result
from edge_fer.recognizer import Analysis
from edge_fer.status import Progress, Show, status

if TYPE_CHECKING:
    from edge_fer.sources import Source
    from edge_fer.timeline import Timeline

_RATE_S = 5.0  # the frame rate shown is of the last few seconds
_LARGEST_TABLE = 10_000  # pictures; of more, the last ones


class Screen(AbstractContextManager["Screen"]):
    """Progress of the source that is open, a table of all pictures, and one of the people of each video.

    Args:
        tables: whether tables are due; they are not when the results go to standard output.
    """

    def __init__(self, *, tables: bool) -> None:
        self._tables = tables
        self._pictures: deque[tuple[str, Analysis]] = deque(maxlen=_LARGEST_TABLE)
        self._stack = ExitStack()
        self._show: Show | None = None
        self._frames = 0
        self._times: deque[float] = deque()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the progress; the table of all pictures comes last."""
        self._stack.close()
        if error is None and self._pictures:
            _print_pictures(list(self._pictures))

    def open(self, source: Source) -> None:
        """Begin to show the progress of a source."""
        self._frames = 0
        self._times.clear()
        # Where lines of results share the terminal, nothing is rewritten between them.
        if self._tables or (source.kind != "pictures" and not _on_screen()):
            self._show = self._stack.enter_context(status(source.kind, source.frames))

    def give(self, source: Source, result: Result, skipped: int) -> None:
        """Show that a frame is done.

        Args:
            source: the one that is open.
            result: its newest result.
            skipped: frames that were too many for the pipeline so far.
        """
        if source.kind == "pictures" and self._tables:
            self._pictures.append((result.frame.source, _without_pixels(result.analysis)))
        self._frames += 1
        now = time.monotonic()
        self._times.append(now)
        while now - self._times[0] > _RATE_S:
            self._times.popleft()
        if self._show is None:
            return
        first = result.analysis.faces[0].prediction if result.analysis.faces else None
        seconds = now - self._times[0]
        self._show(
            Progress(
                frames=self._frames,
                faces=len(result.analysis.faces),
                fps=(len(self._times) - 1) / seconds if seconds else None,
                dropped=source.dropped + skipped,
                reopened=source.reopened,
                age_ms=1000 * (now - result.frame.captured) if source.kind == "live" else None,
                label=first.label if first and not first.abstained else None,
                detector=result.analysis.detector,
            )
        )

    def close(self, timeline: Timeline | None) -> None:
        """End the progress of a source, and show the people of a video."""
        self._stack.close()
        self._show = None
        if self._tables and timeline is not None and timeline.people():
            from edge_fer.tables import print_people

            print_people(timeline)


def _on_screen() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _without_pixels(analysis: Analysis) -> Analysis:
    # The table comes last; a folder of a hundred thousand pictures must not keep every crop until then.
    return replace(analysis, faces=tuple(replace(face, crop=face.crop[:0].copy()) for face in analysis.faces))


def _print_pictures(shown: list[tuple[str, Analysis]]) -> None:
    """Print the table, and the whole distribution of a face that is the only one."""
    from edge_fer.tables import face_rows, print_distribution, print_faces

    print_faces([row for source, analysis in shown for row in face_rows(source, analysis)])
    faces = [face for _, analysis in shown for face in analysis.faces]
    if len(faces) == 1:
        print_distribution(faces[0].prediction)
