"""What comes out of a pipeline, in order: a source opens, gives results or faults, and closes."""

from __future__ import annotations

from dataclasses import dataclass

from edge_fer.errors import EdgeFerError
from edge_fer.recognizer import Analysis
from edge_fer.sources import Frame, Source


@dataclass(frozen=True, slots=True)
class Opened:
    """A source was opened; what follows is of it until it is closed."""

    source: Source


@dataclass(frozen=True, slots=True)
class Closed:
    """A source has come to its end, or was stopped."""

    source: Source


@dataclass(frozen=True, slots=True)
class Faulty:
    """A source that cannot be opened, or one picture that cannot be read."""

    error: EdgeFerError


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The faces of one frame.

    Attributes:
        frame: the frame.
        analysis: its faces; latencies as `Analysis` has them, besides decode and track. All of them are work
            alone, without time in a queue; but for a live source `total` is the age of the frame.
    """

    frame: Frame
    analysis: Analysis


Event = Opened | Closed | Faulty | Result
