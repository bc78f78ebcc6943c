"""Annotated frames into a video file that is whole or absent, through OpenCV. Knows time, no faces.

The file has a constant frame rate, as MPEG-4 players want it; the source need not. Each frame is shown from
its own time until the next one's, rounded to the file's frames: it is repeated where the source is slower
and left out where the source is faster, so that the film stays as long as what it shows.

The index of an .mp4 is kept in memory until the end: 75 bytes a frame, 160 MB a day at 25 frames a second.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.native_log import without_opencv_messages
from edge_fer.output import replaceable, temporary_name
from edge_fer.sources.opencv import check_name, silence

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_USUAL_FPS = 30.0  # where a source claims none or an impossible one, such as the 1000 of some containers
_HIGHEST_FPS = 240.0
LONGEST_GAP_S = 600.0  # a wrong time stamp must not fill the disk with one frame
_CHECK_EVERY = 30  # frames
_SPARE_BYTES = 8_000_000  # of the disk; the index that is written at the end has to fit in
_INDEX_BYTES = 64  # of one frame, at most
_SILENT = 0  # OpenCV's log level


class VideoWriter:
    """Writes .mp4 (MPEG-4 part 2) or .avi (Motion JPEG) under a hidden name and renames it on closing.

    As a context manager it closes at the end of the block, and discards the file if the block fails.

    Attributes:
        path: the file, replaced if it is there.
        fps: its frames per second, between 1 and 240 and a whole number of thousandths.
        frames: frames in the file so far, repeated ones counted.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: float | None,
        longest_gap_s: float = LONGEST_GAP_S,
    ) -> None:
        """Open the file.

        Args:
            path: ends in .mp4 or .avi; the folders above it are made.
            size: width, height; an odd one is made even by repeating the last column or row.
            fps: nominal frames per second of the source; None or an impossible one: 30.
            longest_gap_s: seconds between two frames beyond which the second follows at once.

        Raises:
            InputError: another suffix, a name that is no UTF-8, the place cannot be written to, or this
                OpenCV lacks the codec.
        """
        self.path = path
        self.fps = _usable_fps(fps)
        self.frames = 0
        self._size = size
        self._longest_gap_s = longest_gap_s
        self._target = replaceable(path)
        check_name(self._target)
        self._temporary = temporary_name(self._target).with_suffix(path.suffix.lower())
        self._pending: NDArray[np.uint8] | None = None
        self._first_s = self._last_s = 0.0
        self._slot = 0  # the file's frame from which on the pending one is shown
        self._writer = self._open()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) uint8 RGB 0..255; one of another size is scaled to the file's. It may be changed
                once this returns.
            time_s: its time in seconds on any clock. One that does not follow the last frame's, or follows it
                after more than `longest_gap_s`, counts as one frame later.

        Raises:
            InputError: the disk is almost full. What was written until then is kept as a whole file.
        """
        if self._pending is None:
            self._first_s = time_s
        else:
            step = time_s - self._last_s
            if not 0 <= step <= self._longest_gap_s:
                self._first_s += step - 1 / self.fps
            slot = max(math.floor((time_s - self._first_s) * self.fps + 0.5), self._slot)
            self._emit(slot - self._slot)
            self._slot = slot
        self._last_s = time_s
        self._pending = self._converted(image)

    def close(self) -> None:
        """Finish the file and give it its name; without a frame there is no file. Doing it again is harmless.

        Raises:
            InputError: not every frame is in the file; then nothing is left of it.
        """
        if not self._writer.isOpened():
            return
        if self._pending is None:
            self.discard()
            return
        try:
            self._emit(1, watch=False)
            with without_opencv_messages():
                self._writer.release()
                readable = _readable_frames(self._temporary)
            if readable != self.frames:
                raise InputError(
                    f"{self.path}: expected a video of {self.frames} frames, {readable} can be read back; "
                    "is the disk full? free some space or name another place"
                )
            os.replace(self._temporary, self._target)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}; name another place"
            ) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Give the file up, unless it is closed: nothing is left of it."""
        if self._writer.isOpened():
            with without_opencv_messages():
                self._writer.release()
        self._temporary.unlink(missing_ok=True)

    def _open(self) -> cv2.VideoWriter:
        codec = CODECS.get(self.path.suffix.lower())
        if codec is None:
            raise InputError(f"{self.path}: expected a video's name ending in {' or '.join(CODECS)}")
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()  # its reason is better than OpenCV's, which has none
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}; name another place"
            ) from error
        even = (self._size[0] + self._size[0] % 2, self._size[1] + self._size[1] % 2)
        fourcc = cv2.VideoWriter.fourcc(*codec)
        silence()  # a writer may be what starts FFmpeg in this process
        with without_opencv_messages():
            writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, fourcc, self.fps, even)
        if not writer.isOpened():
            self._temporary.unlink(missing_ok=True)
            raise InputError(
                f"{self.path}: expected an OpenCV that writes {codec} video of {even[0]}x{even[1]}, this one "
                "does not; install opencv-python-headless, or name another suffix "
                f"({' or '.join(CODECS)})"
            )
        return writer

    def _converted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame as OpenCV writes it: BGR, of even width and height."""
        width, height = self._size
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        # The frame before is written already: its memory is free for this one.
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR, self._pending if not (width % 2 or height % 2) else None)
        if width % 2 or height % 2:
            bgr = cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        return np.asarray(bgr, np.uint8)

    def _emit(self, times: int, *, watch: bool = True) -> None:
        """Write the pending frame."""
        assert self._pending is not None
        level = _set_log_level(_SILENT)
        try:
            for _ in range(times):
                self._writer.write(self._pending)
                self.frames += 1
                if watch and self.frames % _CHECK_EVERY == 0:
                    self._watch_disk()
        finally:
            _set_log_level(level)

    def _watch_disk(self) -> None:
        free = shutil.disk_usage(self._temporary.parent).free
        if free < _SPARE_BYTES + _INDEX_BYTES * self.frames:
            self.close()
            raise InputError(
                f"{self.path}: only {free / 1e6:.0f} MB are free on its disk; the video ends after "
                f"{self.frames / self.fps:.0f} s, free some space or name another place"
            )


def _usable_fps(fps: float | None) -> float:
    """Return a rate that containers keep exactly: they store thousandths."""
    if fps is None or not 0 < fps <= _HIGHEST_FPS:
        return _USUAL_FPS
    return round(max(fps, 1.0), 3)


def _set_log_level(level: int) -> int:
    """Set how much OpenCV says, which costs less per frame than holding it back; return what it was."""
    if hasattr(cv2.utils, "logging"):
        return int(cv2.utils.logging.setLogLevel(level))
    return int(cv2.setLogLevel(level))  # type: ignore[attr-defined]  # OpenCV 4.10


def _readable_frames(path: Path) -> int:
    """Return how many frames the file's own index promises; 0 when it cannot be opened."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
