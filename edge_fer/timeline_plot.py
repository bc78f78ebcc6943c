"""The picture of a time line: one band per person, coloured by label. Knows drawing, no frames or tracks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer import canvas
from edge_fer.canvas import Colour, Pixels
from edge_fer.draw import label_colour, track_colour
from edge_fer.timeline import LETTERS, UNSURE, Person, Timeline, clock

ROWS = 16  # people; of more, those seen longest are drawn
GROUND: Colour = (26, 28, 34)
HATCHING: tuple[Colour, Colour] = ((150, 150, 150), (74, 76, 82))
_TEXT: Colour = (235, 235, 235)
_FAINT: Colour = (160, 164, 172)
_GRID: Colour = (58, 61, 70)
_EMPTY: Colour = (36, 39, 46)
_DARK: Colour = (20, 20, 20)
_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAY_S = 86400
_NO_LETTER = "·"
_RELIABILITY = "thin line: reliability, 0 to 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things are, in pixels.

    Attributes:
        width: of the picture.
        size: letters' height.
        left: where the bands begin.
        right: where they end.
        top: of the first person's row.
        pitch: from one row to the next.
        band: height of a band.
        line: height of the reliability's field below it.
    """

    width: int
    size: int
    left: int
    right: int
    top: int
    pitch: int
    band: int
    line: int

    @classmethod
    def of(cls, width: int, rows: int) -> Layout:
        """Return the layout of a picture: many people get lower rows, a wide picture larger letters."""
        size = max(round(width / 80), 11)
        pitch = round(size * (4.2 if rows <= 3 else 3.2 if rows <= 8 else 2.3))
        band = round(0.58 * pitch)
        return cls(
            width=width,
            size=size,
            left=round(13 * size),
            right=width - 2 * size,
            top=round(3.6 * size),
            pitch=pitch,
            band=band,
            line=round(0.24 * pitch),
        )

    def x(self, time_s: float, span: tuple[float, float]) -> float:
        """Return where a time stands."""
        return self.left + (time_s - span[0]) / (span[1] - span[0]) * (self.right - self.left)


def draw_timeline(timeline: Timeline, width: int) -> NDArray[np.uint8]:
    """Draw who showed what when, on a dark ground: title, a row per person, the time, what the colours mean.

    Each band begins its stretches with the label's letter, so that nobody has to tell the colours apart;
    hatched is unsure, empty is absent. Below the band a thin line shows the reliability from 0 to 1.

    Args:
        timeline: with or without people.
        width: of the picture in pixels; below 640 it is 640.

    Returns:
        (H, W, 3) uint8 RGB 0..255.
    """
    people = timeline.people()
    shown = sorted(people[:ROWS], key=lambda person: (person.first_s, person.track))
    layout = Layout.of(max(width, 640), len(shown))
    hidden = len(people) - len(shown) + timeline.more
    legend = _legend(shown, layout)
    bottom = layout.top + max(len(shown), 1) * layout.pitch
    height = bottom + round((2.6 + 2 * len(legend) + (2 if hidden else 0)) * layout.size)
    pixels = np.empty((height, layout.width, 3), np.uint8)
    pixels[:] = GROUND
    _draw_title(pixels, timeline, layout, len(people) + timeline.more)
    if not shown:
        at = (layout.left + layout.size, layout.top + layout.pitch / 2)
        canvas.write(pixels, at, "no face was seen", layout.size, colour=_FAINT)
    _draw_axis(pixels, timeline.span, layout, bottom)
    for row, person in enumerate(shown):
        _draw_person(pixels, timeline, person, layout, layout.top + row * layout.pitch)
    middle = bottom + 3.1 * layout.size
    if hidden:
        text = f"and {hidden} more, seen more briefly" if people else f"and {hidden} more"
        canvas.write(pixels, (layout.left, middle - 0.2 * layout.size), text, layout.size, colour=_FAINT)
        middle += 2 * layout.size
    for entries in legend:
        _draw_legend(pixels, entries, layout, middle)
        middle += 2 * layout.size
    return pixels


def _draw_title(pixels: Pixels, timeline: Timeline, layout: Layout, people: int) -> None:
    first, end = timeline.span
    size = round(1.25 * layout.size)
    middle = 1.7 * layout.size
    facts = f"{clock(first)} to {clock(end)}, {people} {'person' if people == 1 else 'people'}"
    canvas.write(pixels, (layout.right, middle), facts, layout.size, colour=_FAINT, anchor="rm")
    room = layout.right - 3 * layout.size - canvas.text_width(facts, layout.size)
    title = timeline.source
    while len(title) > 1 and canvas.text_width(title, size) > room:
        title = "…" + title[2:] if title.startswith("…") else "…" + title[1:]  # a path's end tells most
    canvas.write(pixels, (layout.size, middle), title, size, colour=_TEXT)


def _draw_axis(pixels: Pixels, span: tuple[float, float], layout: Layout, bottom: int) -> None:
    step = _tick_step(span[1] - span[0], (layout.right - layout.left) / (6 * layout.size))
    for number in range(math.ceil(span[0] / step - 1e-9), math.floor(span[1] / step + 1e-9) + 1):
        x = round(layout.x(number * step, span))
        canvas.fill(pixels, (x, layout.top, x + 1, bottom + layout.size // 2), _GRID)
        text = clock(number * step + 1e-9)
        if step < 1:
            text += f"{number * step % 1:.1f}"[1:]
        half = canvas.text_width(text, layout.size) / 2
        middle = (min(x, layout.width - half - 2), bottom + 1.3 * layout.size)
        canvas.write(pixels, middle, text, layout.size, colour=_FAINT, anchor="mm")


def _tick_step(seconds: float, most: float) -> float:
    """Return the smallest round step that gives at most so many ticks."""
    for step in _TICKS_S:
        if seconds / step <= most:
            return step
    return _DAY_S * math.ceil(seconds / _DAY_S / most)


def _draw_person(pixels: Pixels, timeline: Timeline, person: Person, layout: Layout, top: int) -> None:
    size, bottom = layout.size, top + layout.band
    middle = top + layout.band / 2
    chip = max(canvas.text_width(f"#{person.track}", size) + size // 2, round(2.6 * size))
    left = layout.size
    canvas.fill(pixels, (left, top, left + chip, bottom), track_colour(person.track))
    canvas.write(pixels, (left + chip / 2, middle), f"#{person.track}", size, colour=_DARK, anchor="mm")
    small = round(0.9 * size)
    told = f"{person.label} {person.shares[person.label]:.0%}" if person.label else UNSURE
    canvas.write(pixels, (left + chip + size // 2, middle), told, small, colour=_TEXT)
    shown, reliability = timeline.bands(person.track, layout.right - layout.left)
    band = pixels[top:bottom, layout.left : layout.right]
    _paint(band, shown, timeline.labels)
    for start, end in _stretches(shown):
        if shown[start] >= 0:
            letter = LETTERS.get((*timeline.labels, UNSURE)[shown[start]], _NO_LETTER)
            colour = _DARK if shown[start] < len(timeline.labels) else _TEXT
            half = canvas.text_width(letter, size) / 2
            at = (layout.left + min(start + 3 + half, (start + end) / 2), middle)
            if end - start >= 2 * half + 4:
                canvas.write(pixels, at, letter, size, colour=colour, anchor="mm")
    field = pixels[bottom + 2 : bottom + 2 + layout.line, layout.left : layout.right]
    _draw_reliability(field, reliability)


def _paint(band: Pixels, shown: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Colour each column of a band by what was shown in it."""
    colours = np.array([*(label_colour(label) for label in labels), HATCHING[0], _EMPTY], np.uint8)
    absent = shown < 0
    band[:, ~absent] = colours[shown[~absent]]
    rows, columns = np.ogrid[: band.shape[0], : band.shape[1]]
    stripes = (rows + columns) // 4 % 2 == 1
    band[stripes & (shown == len(labels))] = HATCHING[1]


def _draw_reliability(field: Pixels, reliability: NDArray[np.float64]) -> None:
    height = field.shape[0]
    there = ~np.isnan(reliability)
    field[:, there] = _EMPTY
    for start, end in _stretches(there.astype(np.int64)):
        if there[start]:
            columns = np.arange(start, end)
            rows = (height - 1.5) - reliability[start:end] * (height - 2)
            points = np.stack([columns, rows], axis=1)
            cv2.polylines(field, [np.round(points * 8).astype(np.int32)], False, _TEXT, 1, cv2.LINE_AA, 3)


def _stretches(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where equal values begin and end."""
    borders = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return list(pairwise(borders))


def _legend(shown: Sequence[Person], layout: Layout) -> list[list[str]]:
    """Return the entries, broken into lines that fit: labels that occur, unsure if anybody was."""
    seen = {label for person in shown for label in person.shares}
    names = [label for label in LETTERS if label in seen] + sorted(seen - LETTERS.keys())
    if any(person.abstained > 0 for person in shown):
        names.append(UNSURE)
    lines: list[list[str]] = [[]]
    used = 0
    for name in [*names, *([_RELIABILITY] if shown else [])]:
        wide = _entry_width(name, layout.size)
        if used + wide > layout.right - layout.left and lines[-1]:
            lines.append([])
            used = 0
        lines[-1].append(name)
        used += wide
    return lines


def _entry_width(name: str, size: int) -> int:
    return round(canvas.text_width(name, size) + 4 * size)


def _draw_legend(pixels: Pixels, entries: Sequence[str], layout: Layout, middle: float) -> None:
    size, left = layout.size, layout.left
    above = round(middle - 0.7 * size)
    for name in entries:
        swatch = pixels[above : above + round(1.4 * size), left : left + round(1.6 * size)]
        centre = (left + 0.8 * size, middle)
        if name == _RELIABILITY:
            canvas.fill(pixels, (left, round(middle), left + round(1.6 * size), round(middle) + 1), _TEXT)
        else:
            _paint(swatch, np.full(swatch.shape[1], int(name == UNSURE)), [name])
            colour = _TEXT if name == UNSURE else _DARK
            canvas.write(pixels, centre, LETTERS.get(name, _NO_LETTER), size, colour=colour, anchor="mm")
        canvas.write(pixels, (left + 2.1 * size, middle), name, size, colour=_TEXT)
        left += _entry_width(name, size)
