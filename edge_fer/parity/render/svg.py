"""Draws on inline SVG: scales, axes, marks, legends. Knows no report; the style sheet holds the colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_fer.parity.render.markup import Markup, coordinate, join, tag

Point = tuple[float, float]

WIDTH = 400.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 20.0, 34.0, 44.0
MARK = 3.6
STEPS = (1, 2, 2.5, 5, 10)
TINY = 1e-290
"""Below it a power of ten has no digits left; as good as zero."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the values `low` to `high` stand between the pixels `start` and `stop`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._place(self.low), self._place(self.high)
        part = 0.5 if high == low else (self._place(value) - low) / (high - low)
        return self.start + part * (self.stop - self.start)

    def inside(self, value: float) -> float:
        """Return the pixel of the value, or of the end of the scale that it lies beyond."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values within the scale, about `most` of them."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, math.ceil((last - first + 1) / most))
            return [10.0**exponent for exponent in range(first, last + 1, every)]
        span = self.high - self.low
        if span < TINY:
            return [self.low]
        rough = span / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * each for each in STEPS if power * each >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def _place(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value


def round_up(value: float) -> float:
    """Return the next round number, for the end of an axis; 1 for zero and below."""
    if value < TINY:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * each for each in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * each >= value * (1 - 1e-9))


@dataclass(slots=True)
class Drawing:
    """An SVG in the making, in its own units of `width` x `height`; the page scales it."""

    height: float
    width: float = WIDTH
    parts: list[Markup] = field(default_factory=list)

    def add(self, name: str, *children: str, **attributes: str | float | None) -> None:
        """Add one element."""
        self.parts.append(tag(name, *children, **attributes))

    def line(self, start: Point, stop: Point, style: str) -> None:
        """Draw a straight line."""
        self.add("line", x1=start[0], y1=start[1], x2=stop[0], y2=stop[1], class_=style)

    def curve(self, points: Sequence[Point], style: str) -> None:
        """Draw a line through the points."""
        drawn = " ".join(f"{coordinate(x)},{coordinate(y)}" for x, y in points)
        self.add("polyline", points=drawn, class_=style)

    def box(self, corner: Point, size: Point, style: str, *, opacity: float | None = None) -> None:
        """Draw a rectangle from its upper left corner."""
        x, y = corner
        self.add(
            "rect",
            x=x,
            y=y,
            width=max(size[0], 0),
            height=max(size[1], 0),
            class_=style,
            fill_opacity=opacity,
        )

    def mark(self, at: Point, series: str) -> None:
        """Draw a mark: a hollow circle for the float model, a filled square for the bundle, else a cross."""
        x, y = at
        if series == "float":
            self.add("circle", cx=x, cy=y, r=MARK, class_="mark float")
        elif series == "bundle":
            self.add("rect", x=x - 3.2, y=y - 3.2, width=6.4, height=6.4, class_="mark bundle")
        else:
            a, b, c, d = (coordinate(each) for each in (x - MARK, y - MARK, x + MARK, y + MARK))
            self.add("path", d=f"M{a} {b}L{c} {d}M{a} {d}L{c} {b}", class_="cross")

    def write(self, at: Point, text: str, style: str = "", *, anchor: str | None = None) -> None:
        """Write a text whose baseline starts (or, by `anchor`, is centred or ends) here."""
        self.add("text", text, x=at[0], y=at[1], class_=style or None, text_anchor=anchor)

    def legend(self, entries: Sequence[tuple[str, str]], y: float = 14.0, x: float = 2.0) -> None:
        """Write names beside their marks, in one row: pairs of series and name."""
        for series, name in entries:
            if series in ("float", "bundle"):
                self.line((x, y - 4), (x + 20, y - 4), f"curve {series}")
                self.mark((x + 10, y - 4), series)
            elif series == "cross":
                self.mark((x + 10, y - 4), series)
            elif series.startswith("curve"):
                self.line((x, y - 4), (x + 20, y - 4), series)
            else:
                self.box((x + 3, y - 11), (14, 12), series)
            self.write((x + 25, y), name)
            x += 25 + 6.7 * len(name) + 16

    def svg(self, name: str, title: str, description: str, style: str = "plot") -> Markup:
        """Return the drawing as an SVG with its title and description for those who cannot see it."""
        names = f"{name}-t {name}-d"
        return tag(
            "svg",
            tag("title", title, id=f"{name}-t"),
            tag("desc", description, id=f"{name}-d"),
            join(self.parts),
            viewBox=f"0 0 {coordinate(self.width)} {coordinate(self.height)}",
            role="img",
            aria_labelledby=names,
            class_=style,
        )


@dataclass(slots=True)
class Chart(Drawing):
    """A drawing with an x and a y axis. Set both, draw the axes, then the data on top."""

    x: Scale = field(init=False)
    y: Scale = field(init=False)
    bottom: float = BOTTOM

    def scale(self, x: Point, y: Point, *, log_x: bool = False) -> None:
        """Set the values that the two axes span."""
        self.x = Scale(*x, LEFT, self.width - RIGHT, log_x)
        self.y = Scale(*y, self.height - self.bottom, TOP)

    def at(self, x: float, y: float) -> Point:
        """Return where a pair of values stands."""
        return self.x(x), self.y(y)

    def axes(
        self,
        names: tuple[str, str],
        formats: tuple[Callable[[float], str], Callable[[float], str]],
    ) -> None:
        """Draw the grid, the ticks and the names of both axes."""
        bottom, right = self.y.start, self.x.stop
        for value in self.y.ticks():
            self.line((LEFT, self.y(value)), (right, self.y(value)), "grid")
            self.write((LEFT - 6, self.y(value) + 4), formats[1](value), "tick", anchor="end")
        for value in self.x.ticks():
            self.line((self.x(value), TOP), (self.x(value), bottom), "grid")
            self.write((self.x(value), bottom + 16), formats[0](value), "tick", anchor="middle")
        self.line((LEFT, bottom), (right, bottom), "axis")
        self.write(((LEFT + right) / 2, self.height - 8), names[0], "name", anchor="middle")
        middle = (TOP + bottom) / 2
        self.add(
            "text",
            names[1],
            x=11,
            y=middle,
            class_="name",
            text_anchor="middle",
            transform=f"rotate(-90 11 {coordinate(middle)})",
        )
