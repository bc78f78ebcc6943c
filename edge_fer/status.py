"""How a run goes, on standard error: a bar for files, one line for live sources. Knows figures, no frames."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from edge_fer.cli_errors import notice, one_line
from edge_fer.tables import console

Show = Callable[["Progress"], None]

_BAR_CELLS = 30
_EVERY_S = 0.25  # on a terminal
_PIPED_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        frames: frames, or pictures, done so far.
        faces: faces in the newest one.
        fps: frames done per second of late; None: not known yet.
        dropped: frames of the source that were broken or came too fast, so far.
        reopened: times that the source was opened again.
        age_ms: a live source: from the capture of the newest result's frame until now, in milliseconds.
        label: what the first face of the newest result shows; None: no face, or unsure.
        detector: what finds the faces; None: nothing does.
    """

    frames: int
    faces: int = 0
    fps: float | None = None
    dropped: int = 0
    reopened: int = 0
    age_ms: float | None = None
    label: str | None = None
    detector: str | None = None


@contextmanager
def status(kind: Literal["pictures", "video", "live"], total: int | None) -> Iterator[Show]:
    """Show how far a run is; the block is given the function that takes its progress.

    It may be called for every frame, and while a live source is silent: something is drawn at most four times
    a second. On a terminal a bar with frame rate, faces and the time that is left stands for files, and one
    line that is rewritten in place for live sources. Elsewhere there are no colours and nothing is rewritten:
    files show nothing, live sources a line every ten seconds and a last one. All of it goes to standard
    error.

    Args:
        kind: as of the source.
        total: frames in all; None: not known. It may be an estimate.
    """
    out = console()
    in_place = sys.stderr.isatty() and not out.is_dumb_terminal
    if kind == "live":
        with _live_line(out) if in_place else _plain_lines() as show:
            yield show
    elif in_place:
        with _bar(out, kind, total) as show:
            yield show
    else:
        yield lambda progress: None


def describe(progress: Progress) -> str:
    """Return the line of a live source; what never happened is left out."""
    parts = ["-- frames/s" if progress.fps is None else f"{progress.fps:.1f} frames/s"]
    parts.append(_count(progress.faces, "face"))
    if progress.label is not None:
        parts.append(progress.label)
    if progress.age_ms is not None:
        parts.append(f"age {progress.age_ms:.0f} ms")
    parts.append(_count(progress.frames, "frame"))
    if progress.dropped:
        parts.append(f"{progress.dropped:,} dropped")
    if progress.reopened:
        parts.append(f"re-opened {_count(progress.reopened, 'time')}")
    if progress.detector is not None:
        parts.append(progress.detector)
    return one_line(", ".join(parts))


@contextmanager
def _live_line(out: Console) -> Iterator[Show]:
    newest: Progress | None = None
    due = 0.0
    # Lines for people go above this one. Data is left alone, but where both share the screen.
    with Live(console=out, auto_refresh=False, redirect_stdout=_on_screen()) as live:

        def draw() -> None:
            if newest is not None:
                line = Text(describe(newest), no_wrap=True, overflow="ellipsis")
                live.update(line, refresh=True)

        def show(progress: Progress) -> None:
            nonlocal newest, due
            newest = progress
            if time.monotonic() >= due:
                draw()
                due = time.monotonic() + _EVERY_S

        try:
            yield show
        finally:
            draw()


@contextmanager
def _plain_lines() -> Iterator[Show]:
    newest: Progress | None = None
    due = time.monotonic() + _PIPED_EVERY_S

    def show(progress: Progress) -> None:
        nonlocal newest, due
        newest = progress
        if time.monotonic() >= due:
            notice(describe(progress))
            newest = None
            due = time.monotonic() + _PIPED_EVERY_S

    try:
        yield show
    finally:
        if newest is not None:
            notice(describe(newest))


@contextmanager
def _bar(out: Console, kind: str, total: int | None) -> Iterator[Show]:
    unit = "frames" if kind == "video" else "pictures"
    columns = (
        BarColumn(_BAR_CELLS),
        TextColumn("{task.description}"),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(),
        TextColumn("" if total is None else "left"),
    )
    due = 0.0
    with Bar(*columns, console=out, auto_refresh=False, transient=True, redirect_stdout=_on_screen()) as bar:
        task = bar.add_task("", total=total)

        def show(progress: Progress) -> None:
            nonlocal due
            if time.monotonic() < due:
                return
            # An estimate that was too low: the end is wherever it is.
            whole = None if total is None else max(total, progress.frames)
            count = f"{progress.frames:,}" if whole is None else f"{progress.frames:,}/{whole:,}"
            rate = "--" if progress.fps is None else f"{progress.fps:.1f}"
            text = f"{count} {unit}, {rate}/s, {_count(progress.faces, 'face')}"
            bar.update(task, completed=progress.frames, total=whole, description=text, refresh=True)
            due = time.monotonic() + _EVERY_S

        yield show


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _on_screen() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
