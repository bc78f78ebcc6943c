"""Video files through OpenCV's FFmpeg: every frame in order, with the container's times."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.cli_errors import notice
from edge_fer.errors import InputError
from edge_fer.sources.base import Frame, Kind, Selection, Thinning, expected_frames, given_fps
from edge_fer.sources.opencv import check_name, check_size, require_backend, silence, to_rgb

# OpenCV's grab() fails once for each packet that does not decode, and for ever at the end of the file.
_GIVE_UP = 300
# A container may well announce a little more than it holds: rounding, a long last frame, an edit list.
_TOLERATED_S = 0.5
_DEFAULT_FPS = 25.0


class VideoSource:
    """Reads a video file from its beginning.

    There is no seeking: OpenCV computes the place from the average frame rate and lands elsewhere in files of
    variable rate, in transport streams and behind edit lists. Frames before `--start` and those thinned out
    are decoded, as later ones need them, but not converted to RGB.

    Raises:
        InputError: the file cannot be read, is no video, or its frames are absurdly large.
    """

    kind: Kind = "video"

    def __init__(self, path: Path, selection: Selection, stop: threading.Event) -> None:
        self.name = str(path)
        self.paths: tuple[Path, ...] = (path,)
        self.dropped = 0
        self.reopened = 0
        self._stop = stop
        self._closed = threading.Event()
        self._lock = threading.Lock()  # a capture must not be released under a running grab()
        self._thinning = Thinning(selection)
        self._ended = False
        self._index = -1
        self._time_s = -1.0
        self._capture = _open(path)
        fps, total = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self._fps = fps if 0 < fps <= 1000 else _DEFAULT_FPS  # a few containers know none
        self._announced_s = total / self._fps if 0 < total < 1e9 else None
        self.fps = given_fps(self._fps, selection)
        self.frames = None if self._announced_s is None else expected_frames(int(total), self._fps, selection)

    def read(self) -> Frame | None:
        """Return the next frame that the selection leaves; see `Source.read`."""
        with self._lock:
            while not (self._stop.is_set() or self._closed.is_set() or self._ended):
                started = time.perf_counter()
                if self._thinning.is_over(max(self._time_s, 0.0)):
                    break
                if not self._grab():
                    self._finish()
                elif (
                    self._thinning.takes(self._index, self._time_s)
                    and (image := self._retrieve()) is not None
                ):
                    return Frame(
                        image=image,
                        source=self.name,
                        index=self._index,
                        time_s=self._time_s,
                        captured=time.monotonic(),
                        decode_ms=1000 * (time.perf_counter() - started),
                    )
        return None

    def close(self) -> None:
        """Release the file; see `Source.close`."""
        self._closed.set()
        with self._lock:
            self._capture.release()

    def _grab(self) -> bool:
        """Decode the next frame that can be; False: there is none."""
        for broken in range(_GIVE_UP):
            if self._capture.grab():
                self.dropped += broken
                self._index += broken + 1
                # Some frames of old containers have no time of their own: it is 0 then.
                time_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                step = (broken + 1) / self._fps
                self._time_s = time_s if time_s > self._time_s else self._time_s + step
                return True
        return False

    def _retrieve(self) -> NDArray[np.uint8] | None:
        read, image = self._capture.retrieve()
        if not read:
            self.dropped += 1
            return None
        return to_rgb(image)

    def _finish(self) -> None:
        """Count what is missing at the end of the file, and say once what was lost in all of it."""
        self._ended = True
        if self._index < 0:
            raise InputError(f"{self.name}: no frame of this video can be decoded; it is damaged or cut off")
        losses = [f"{self.dropped} damaged frames were left out"] if self.dropped else []
        end_s = self._time_s + 1 / self._fps
        if self._announced_s is not None and self._announced_s - end_s > _TOLERATED_S:
            missing = round((self._announced_s - end_s) * (self._index + 1) / end_s)
            self.dropped += missing
            losses.append(
                f"it ends at {end_s:.1f} s of the {self._announced_s:.1f} s that it announces (cut off,"
                f" damaged or trimmed), about {missing} frames are missing"
            )
        if losses:
            notice(f"{self.name}: {'; '.join(losses)}")


def _open(path: Path) -> cv2.VideoCapture:
    """Open a file; OpenCV itself does not say why it cannot."""
    silence()
    check_name(path.absolute())
    require_backend(cv2.CAP_FFMPEG, str(path), "install the package opencv-python-headless")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if empty:
        raise InputError(f"{path}: expected a video, got an empty file")
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise InputError(
            f"{path}: expected a video file, got something else or a damaged one;"
            f" try ffmpeg -i {path.name} new.mp4"
        )
    check_size(capture, str(path))
    return capture
