"""Annotated pictures, videos and time lines in the folder of `--output`. Knows where they go, not how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edge_fer.images import WRITTEN, write_image
from edge_fer.output import plan_outputs
from edge_fer.pipeline.events import Result

if TYPE_CHECKING:
    from edge_fer.draw import Annotation
    from edge_fer.placement import Placement
    from edge_fer.recognizer import FaceResult
    from edge_fer.sources import Source, SourcePlan
    from edge_fer.timeline import Timeline
    from edge_fer.video_writer import VideoWriter

_TIMELINE = " (time line)"
_LONGEST_STEM = 100  # letters of an address; a pipeline of GStreamer's may be longer than a file's name
_LIVE_GAP_S = 5.0  # writing out a longer outage, frame by frame, would hold up what comes after it


class AnnotatedOutput(AbstractContextManager["AnnotatedOutput"]):
    """A picture for every picture; for a video or stream a video, and for a video a time line, too.

    Args:
        plans: the sources.
        folder: made if it is not there.

    Attributes:
        files: what may be written, through links.

    Raises:
        InputError: the folder cannot be written to, or a source would be overwritten.
    """

    def __init__(self, plans: Sequence[SourcePlan], folder: Path) -> None:
        originals = [path for plan in plans for path in plan.paths]
        self._places = plan_outputs(_wanted(plans), originals, folder)
        self.files = frozenset(path.resolve() for path in self._places.values())
        self._video: VideoWriter | None = None
        self._placement: Placement | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the video that is being written; after an error nothing is left of it."""
        video, self._video = self._video, None
        if video is not None:
            video.__exit__(kind, error, trace)

    def write(self, source: Source, result: Result) -> None:
        """Draw the faces of a frame and write it.

        Raises:
            InputError: the place cannot be written to.
        """
        from edge_fer.draw import draw_faces

        frame = result.frame
        faces = [annotation(face) for face in result.analysis.faces]
        if source.kind == "pictures":
            write_image(self._places[frame.source], draw_faces(frame.image, faces))
            return
        if self._video is None:
            from edge_fer.placement import Placement
            from edge_fer.video_writer import LONGEST_GAP_S, VideoWriter

            height, width = frame.image.shape[:2]
            gap_s = _LIVE_GAP_S if source.kind == "live" else LONGEST_GAP_S
            self._video = VideoWriter(self._places[source.name], (width, height), source.fps, gap_s)
            self._placement = Placement()
        self._video.write(draw_faces(frame.image, faces, self._placement), frame.time_s or 0.0)

    def close(self, source: Source, timeline: Timeline | None) -> None:
        """Finish the video of a source, and draw its time line.

        Raises:
            InputError: the place cannot be written to.
        """
        video, self._video = self._video, None
        if video is not None:
            video.close()
        if timeline is not None and timeline.people():
            write_image(self._places[source.name + _TIMELINE], timeline.draw())


def annotation(face: FaceResult) -> Annotation:
    """Return what is drawn of a face."""
    from edge_fer.draw import Annotation

    told = face.prediction
    probabilities = dict(zip(told.labels, told.probabilities.tolist(), strict=True))
    return Annotation(
        box=face.box,
        label=told.label,
        probability=probabilities[told.label],
        reliability=told.reliability,
        abstained=told.abstained,
        probabilities=probabilities,
        track=face.place.track,
        landmarks=face.landmarks,
    )


def _wanted(plans: Sequence[SourcePlan]) -> dict[str, str]:
    """Return the outputs of all sources, and the file names that they would like."""
    wanted: dict[str, str] = {}
    for plan in plans:
        if plan.kind == "pictures":
            for path in plan.paths:
                wanted[str(path)] = path.name if path.suffix.lower() in WRITTEN else f"{path.stem}.png"
            continue
        stem = plan.paths[0].stem if plan.paths else _plain(plan.name)
        wanted[plan.name] = f"{stem or 'stdin'}.mp4"
        if plan.kind == "video":
            wanted[plan.name + _TIMELINE] = f"{stem or 'stdin'}-timeline.png"
    return wanted


def _plain(address: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", address)[:_LONGEST_STEM].strip("-")
