"""Picture files as a source, in their order."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from edge_fer.images import read_image
from edge_fer.sources.base import Frame, Kind, Selection


class PictureSource:
    """Gives each picture; `--every` and `--max-frames` count files."""

    kind: Kind = "pictures"

    def __init__(self, paths: Sequence[Path], selection: Selection, stop: threading.Event) -> None:
        self.name = str(paths[0])
        self.paths = tuple(paths)
        self.fps: float | None = None
        self.dropped = 0
        self.reopened = 0
        chosen = self.paths[:: selection.every][: selection.max_frames]
        self.frames: int | None = len(chosen)
        self._left = iter(chosen)
        self._stop = stop

    def read(self) -> Frame | None:
        """Return the next picture; see `Source.read`."""
        path = None if self._stop.is_set() else next(self._left, None)
        if path is None:
            return None
        started = time.perf_counter()
        image = read_image(path)
        return Frame(
            image=image,
            source=str(path),
            index=None,
            time_s=None,
            captured=time.monotonic(),
            decode_ms=1000 * (time.perf_counter() - started),
        )

    def close(self) -> None:
        """Give no further picture."""
        self._left = iter(())
