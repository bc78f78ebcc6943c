"""Where frames come from: pictures, video files, cameras, network streams and JPEGs on standard input.

`resolve` turns what the user typed into plans without opening anything; `SourcePlan.open` gives a `Source`.
"""

from __future__ import annotations

from edge_fer.sources.base import Frame, Selection, Source
from edge_fer.sources.plan import SourcePlan, resolve

__all__ = ["Frame", "Selection", "Source", "SourcePlan", "resolve"]
