"""From what the user typed to plans: which sources there are and of which kind. Opens none of them."""

from __future__ import annotations

import glob
import itertools
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_fer.errors import InputError, UsageError
from edge_fer.images import SUFFIXES, folder_files
from edge_fer.sources.address import shown
from edge_fer.sources.base import Kind, Selection, Source

if TYPE_CHECKING:
    from edge_fer.sources.live import Connection

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov"}
    | {".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)
_NETWORK = ("rtsp://", "rtsps://", "http://", "https://")
_CAMERA = "camera:"
_GSTREAMER = "gst:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """One source that is not open yet.

    Attributes:
        kind: as `Source.kind`.
        name: as `Source.name`; holds no credentials.
        paths: files that it will read.
    """

    kind: Kind
    name: str
    paths: tuple[Path, ...] = ()
    address: str = field(default="", repr=False)  # as typed, credentials and all

    def check(self, selection: Selection) -> None:
        """Refuse a selection that cannot be meant for this source.

        Raises:
            UsageError: times or frames per second are asked of pictures.
        """
        if self.kind == "pictures" and (timed := selection.timed()):
            raise UsageError(f"{self.name}: {', '.join(timed)}: a picture has no time; leave it out")

    def open(self, selection: Selection, stop: threading.Event) -> Source:
        """Open the source; once `stop` is set, its `read` returns None within half a second.

        Raises:
            InputError: it cannot be opened.
            UsageError: see `check`.
        """
        self.check(selection)
        if self.kind == "pictures":
            from edge_fer.sources.pictures import PictureSource

            return PictureSource(self.paths, selection, stop)
        if self.name == "-":
            from edge_fer.sources.jpeg_stream import open_standard_input

            return open_standard_input(selection, stop)
        if self.kind == "video":
            from edge_fer.sources.video import VideoSource

            return VideoSource(self.paths[0], selection, stop)
        from edge_fer.sources.live import LiveSource

        return LiveSource(self.name, self._connect, selection, stop)

    def _connect(self) -> Connection:
        if self.address.startswith(_CAMERA):
            from edge_fer.sources.cameras import connect_camera

            return connect_camera(self.address[len(_CAMERA) :], self.name)
        if self.address.startswith(_GSTREAMER):
            from edge_fer.sources.cameras import connect_gstreamer

            return connect_gstreamer(self.address[len(_GSTREAMER) :], self.name)
        from edge_fer.sources.network import connect_stream

        return connect_stream(self.address, self.name)


def resolve(texts: Sequence[str]) -> list[SourcePlan]:
    """Return the sources that these texts stand for, in their order; a folder's files are sorted by name.

    Pictures that follow each other are one source. Nothing is opened.

    Raises:
        InputError: nothing there, or nothing of use in it.
    """
    return [plan for text in texts for plan in _resolve_one(text)]


def _resolve_one(text: str) -> list[SourcePlan]:
    if text == "-":
        return [SourcePlan(kind="video", name="-")]
    if text.startswith(_GSTREAMER) or text.lower().startswith(_NETWORK):
        return [SourcePlan(kind="live", name=shown(text), address=text)]
    if text.startswith(_CAMERA):
        if not text[len(_CAMERA) :]:
            raise InputError(f"{text}: expected camera:0, camera:/dev/video2 or camera:picamera2")
        return [SourcePlan(kind="live", name=text, address=text)]
    if "://" in text:
        raise InputError(f"{shown(text)}: expected rtsp://, http:// or https://, got another kind of address")
    return _group(_files(text))


def _files(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        return folder_files(path, SUFFIXES | VIDEO_SUFFIXES, "no pictures and no videos")
    if path.is_char_device():
        raise InputError(
            f"{text}: expected a file or a folder, got a device; a camera is given as camera:{text}"
        )
    if path.exists():
        return [path]
    if not glob.has_magic(text):
        raise InputError(f"{text}: no such file or folder")
    found = sorted(Path(match) for match in glob.glob(text, recursive=True) if Path(match).is_file())
    if not found:
        raise InputError(f"{text}: no file matches this pattern")
    return found


def _group(files: Iterable[Path]) -> list[SourcePlan]:
    plans: list[SourcePlan] = []
    for is_video, run in itertools.groupby(files, key=_is_video):
        paths = tuple(run)
        if is_video:
            plans += [SourcePlan(kind="video", name=str(path), paths=(path,)) for path in paths]
        else:
            plans.append(SourcePlan(kind="pictures", name=str(paths[0]), paths=paths))
    return plans


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES
