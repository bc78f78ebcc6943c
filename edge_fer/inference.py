"""What `infer` does: runs the pipeline over the sources and gives out every result."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_fer.annotated import AnnotatedOutput
from edge_fer.cli_errors import complain, notice
from edge_fer.engines import spare_cores
from edge_fer.errors import EdgeFerError, InputError, MissingPackageError, UsageError
from edge_fer.output import FaceWriter, Moment, analysis_record, json_line, open_csv, print_line
from edge_fer.pipeline.events import Closed, Event, Faulty, Opened, Result
from edge_fer.pipeline.pipeline import Pipeline
from edge_fer.recognizer import Recognizer
from edge_fer.screen import Screen
from edge_fer.sources import Selection, Source, SourcePlan, resolve
from edge_fer.timeline import Timeline, TimelineFace

if TYPE_CHECKING:
    from edge_fer.detectors import Detector
    from edge_fer.mqtt.address import Address
    from edge_fer.mqtt.publisher import Publisher
    from edge_fer.recognizer import FaceResult
    from edge_fer.stopping import Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class InferOptions:
    """What the user asked `infer` for.

    Attributes:
        json: print one JSON object per picture or frame; otherwise tables on standard error.
        csv: file for one row per face; None: none.
        output: folder for annotated pictures and videos; None: none.
        mqtt: where the JSON objects are published; None: nowhere.
        mqtt_discovery: first level of Home Assistant's discovery topics; None: it is told nothing.
        detector: what `load_detector` takes.
        detect: False: every picture or frame is one face crop.
        selection: which frames of a video or stream are wanted.
        smooth: give the mean over time of a face that is tracked.
    """

    json: bool = False
    csv: Path | None = None
    output: Path | None = None
    mqtt: Address | None = None
    mqtt_discovery: str | None = None
    detector: str | None = None
    detect: bool = True
    selection: Selection = field(default_factory=Selection)
    smooth: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the work ended.

    Attributes:
        faulty: sources and pictures that could not be read; each got its line.
        cut: a signal ended a picture or a file early; a live source has no other end.
        held: a library still holds a thread: Python must not tidy up under it.
        undelivered: results that did not reach the broker; they got one line.
    """

    faulty: int
    cut: bool
    held: bool
    undelivered: int


def resolve_sources(texts: Sequence[str], selection: Selection) -> tuple[list[SourcePlan], int]:
    """Return what the sources stand for, and how many of them are broken; each gets its line.

    Raises:
        UsageError: an empty source, a selection that cannot be meant for one of them, or more sources behind
            one that never ends.
    """
    if not all(text.strip() for text in texts):
        raise UsageError("an empty SOURCE: expected a picture, a video, a folder, a glob or a stream")
    plans: list[SourcePlan] = []
    faulty = 0
    for text in texts:
        try:
            plans += resolve([text])
        except InputError as error:
            complain(error)
            faulty += 1
    for plan in plans:
        plan.check(selection)
        if plan.kind == "live" and plan is not plans[-1] and not selection.ends():
            raise UsageError(
                f"{plan.name} never ends, so what follows would never be read: give it last, or --max-frames"
                " or --end, or run one process for each camera"
            )
    return list(_joined(plans)), faulty


def _joined(plans: Sequence[SourcePlan]) -> Iterator[SourcePlan]:
    """Make one source of pictures that follow each other."""
    for kind, run in itertools.groupby(plans, key=lambda plan: plan.kind):
        if kind == "pictures":
            pictures = list(run)
            paths = tuple(path for plan in pictures for path in plan.paths)
            yield replace(pictures[0], paths=paths)
        else:
            yield from run


def default_threads(plans: Sequence[SourcePlan]) -> int | None:
    """Return how many threads one inference gets when nobody says; None: the engine's choice.

    Videos leave a core to reading and finding faces.
    """
    if all(plan.kind == "pictures" for plan in plans):
        return None
    return spare_cores()


def infer_sources(
    plans: Sequence[SourcePlan], recognizer: Recognizer, options: InferOptions, stop: Stop
) -> Outcome:
    """Recognise every face of every source and give out what was asked for.

    When something fails while a live source is open, what was done until then is kept.

    Raises:
        BrokerError: the broker does not accept the login.
        DetectorError: the detector cannot be made, or failed.
        EngineError: the engine failed.
        InputError: a place for results cannot be written to, or is a source.
    """
    originals = [path for plan in plans for path in plan.paths]
    annotated = None if options.output is None else AnnotatedOutput(plans, options.output)
    if annotated and options.csv and options.csv.resolve() in annotated.files:
        raise InputError(f"{options.csv}: an annotated file gets this name, name another for the table")
    detector = _load_detector(options)
    publisher = _publisher(options, recognizer, stop)
    with ExitStack() as stack:
        if publisher:  # first in, last out: files are whole before the last deliveries are waited for
            stack.enter_context(publisher)
        rows = stack.enter_context(open_csv(options.csv, recognizer.spec.labels, originals))
        if annotated:
            stack.enter_context(annotated)
        screen = stack.enter_context(Screen(tables=not options.json))
        pipeline = stack.enter_context(
            Pipeline(
                plans,
                recognizer,
                detector,
                selection=options.selection,
                smooth=options.smooth,
                stop=stop,
            )
        )
        delivery = _Delivery(options.json, recognizer.spec.labels, rows, annotated, publisher, screen)
        failure: Exception | None = None
        try:
            for event in pipeline:
                delivery.deliver(event, pipeline.skipped)
        except (EdgeFerError, OSError) as error:
            if not delivery.live:  # a file can be run again; what a camera gave in weeks cannot
                raise
            failure = error
        delivery.close()
    if failure is not None:
        raise failure
    cut = stop.signal is not None and not delivery.live
    return Outcome(delivery.faulty, cut, pipeline.held, publisher.undelivered if publisher else 0)


class _Delivery:
    """Hands every event to all who want it."""

    def __init__(
        self,
        as_json: bool,
        labels: Sequence[str],
        rows: FaceWriter,
        annotated: AnnotatedOutput | None,
        publisher: Publisher | None,
        screen: Screen,
    ) -> None:
        self.faulty = 0
        self.live = False
        self._json = as_json
        self._labels = labels
        self._rows = rows
        self._annotated = annotated
        self._publisher = publisher
        self._screen = screen
        self._source: Source | None = None
        self._timeline: Timeline | None = None

    def deliver(self, event: Event, skipped: int) -> None:
        if isinstance(event, Opened):
            self._open(event.source)
        elif isinstance(event, Closed):
            self.close()
        elif isinstance(event, Faulty):
            self.faulty += 1
            complain(event.error)
        else:
            self._give(event, skipped)

    def _open(self, source: Source) -> None:
        self._source = source
        self.live = source.kind == "live"
        self._timeline = Timeline(source.name, self._labels) if source.kind == "video" else None
        self._screen.open(source)

    def close(self) -> None:
        """End the source that is open, if one is: with the people that were in it."""
        source, self._source = self._source, None
        if source is None:
            return
        self._screen.close(self._timeline)
        if self._annotated:
            self._annotated.close(source, self._timeline)

    def _give(self, result: Result, skipped: int) -> None:
        assert self._source is not None  # a source opens before it gives results
        frame, analysis = result.frame, result.analysis
        moment = Moment(frame.source, frame.index, frame.time_s)
        self._rows.write(moment, analysis)
        if self._json or self._publisher:
            line = json_line(analysis_record(moment, analysis))
            if self._publisher:
                self._publisher.publish(line)
            if self._json:
                print_line(line)
        if self._json and not analysis.faces and frame.index is None:
            notice(f"{frame.source}: no face found")
        if self._timeline is not None and frame.time_s is not None:
            self._timeline.add(frame.time_s, [_seen(face) for face in analysis.faces])
        if self._annotated:
            self._annotated.write(self._source, result)
        self._screen.give(self._source, result, skipped)


def _seen(face: FaceResult) -> TimelineFace:
    told = face.prediction
    return TimelineFace(
        track=face.place.track or 0,
        label=None if told.abstained else told.label,
        probabilities=dict(zip(told.labels, told.probabilities.tolist(), strict=True)),
        reliability=told.reliability,
    )


def _load_detector(options: InferOptions) -> Detector | None:
    if not options.detect:
        return None
    from edge_fer.detectors import load_detector

    return load_detector(options.detector)


def _publisher(options: InferOptions, recognizer: Recognizer, stop: Stop) -> Publisher | None:
    if options.mqtt is None:
        return None
    try:
        from edge_fer.mqtt.discovery import announce_sensors
        from edge_fer.mqtt.publisher import Publisher
    except ImportError as error:
        raise MissingPackageError(
            f"--mqtt needs the package paho-mqtt ({error}): pip install 'edge-fer[mqtt]'"
        ) from error
    announcements = []
    if options.mqtt_discovery is not None:
        spec = recognizer.spec
        model = f"{spec.model} {spec.precision}"
        announcements = announce_sensors(
            options.mqtt, options.mqtt_discovery, model=model, labels=spec.labels
        )
    return Publisher(options.mqtt, stop, announcements=announcements)
