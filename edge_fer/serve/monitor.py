"""What the service counts and measures of itself, as text for Prometheus. Knows no HTTP and no picture.

Besides load and time it watches one thing, the drift: whether the model is as sure of the faces that it gets
here as it was of those that its certificate rests on.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from edge_fer import __version__
from edge_fer.bundle import Bundle
from edge_fer.recognizer import Analysis

STAGES: Final = ("queue", "decode", "detect", "track", "preprocess", "recognise")
WINDOW: Final = 1000  # faces that the drift monitor looks back on
_STREAM_GAP_S: Final = 1.0
# From one compact face on a fast processor to the longest time that a request may take.
_BUCKETS_S: Final = (
    *(0.0003, 0.0005),
    *(0.001, 0.002, 0.003, 0.005),
    *(0.01, 0.02, 0.03, 0.05),
    *(0.1, 0.2, 0.3, 0.5),
    *(1.0, 2.0, 3.0, 5.0, 10.0),
)

Unanswered = Literal["broken", "refused", "late"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Which bundle answers, as far as metrics tell it.

    Attributes:
        model: name of the network.
        precision: fp32, fp16 or int8.
        engine: what runs the graph here, whatever the bundle was made for.
        sha256: of bundle.json, and so of the whole bundle.
        certified_here: whether a certificate covers this class of processors.
        labels: names of the classes.
        reference_reliability: mean reliability of the float checkpoint on the parity set, 0..1; None: the
            bundle has no reference outputs.
    """

    model: str
    precision: str
    engine: str
    sha256: str
    certified_here: bool
    labels: tuple[str, ...]
    reference_reliability: float | None

    @classmethod
    def of(cls, bundle: Bundle, engine: str, certified_here: bool) -> Served:
        """Take from a bundle what metrics tell of it.

        Raises:
            BundleError: its reference outputs do not fit its spec.
        """
        reference = bundle.reference()
        return cls(
            model=bundle.spec.model,
            precision=bundle.spec.precision,
            engine=engine,
            sha256=bundle.digest,
            certified_here=certified_here,
            labels=bundle.spec.labels,
            reference_reliability=None if reference is None else float(reference.reliability.mean()),
        )


class Monitor:
    """Counts what the service does. Every method may be called from any thread.

    Args:
        served: the bundle that answers.
        queue_depth: tells how many pictures wait; called when the metrics are read.
    """

    def __init__(self, served: Served, *, queue_depth: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._requests = counter("edge_fer_requests_total", "Answered requests.", "route", "status")
        self._request_seconds = _Times(
            "edge_fer_request_seconds", "Time from the head of a request to its answer.", "route"
        )
        pictures = counter(
            "edge_fer_pictures_total",
            "Pictures and frames: answered, broken (cannot be read), refused (queue full, or draining), late "
            "(not done in time).",
            "result",
        )
        self._pictures = {name: pictures.labels(name) for name in ("answered", *get_args(Unanswered))}
        self._stage_seconds = _Times(
            "edge_fer_stage_seconds",
            "Time of an answered picture or frame in each stage; in queue nobody works on it.",
            "stage",
            STAGES,
        )
        self._replaced = counter(
            "edge_fer_frames_replaced_total",
            "Frames of streams without an answer, because a newer one came while they waited.",
        )
        self._faces = counter("edge_fer_faces_total", "Recognised faces.")
        self._abstained = counter(
            "edge_fer_abstained_total", "Faces that got no label, their reliability being below the minimum."
        )
        labels = counter("edge_fer_labels_total", "Faces by label; abstained ones have none.", "label")
        self._labels = tuple(labels.labels(name) for name in served.labels)
        self._streams = Gauge("edge_fer_streams", "Open streams.", registry=registry)
        self._drift = _Drift(served.reference_reliability)
        Gauge(
            "edge_fer_queue_depth", "Pictures and frames that wait or are worked on.", registry=registry
        ).set_function(queue_depth)
        for collector in (self._request_seconds, self._stage_seconds, self._drift, _about(served)):
            registry.register(collector)
        ProcessCollector(registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            route: the template, `/v1/infer`, never the path as sent: every new text is a series for ever.
            status: of the HTTP answer.
            seconds: from the request's head to its answer.
        """
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.add(route, seconds)

    def answer(self, analysis: Analysis, waited_s: float, *, streamed: bool = False) -> None:
        """Count a picture or frame that was recognised.

        Args:
            analysis: what was found, with the latency of every stage that ran.
            waited_s: seconds in queues, all of them together.
            streamed: whether it is a frame of a stream.
        """
        self._pictures["answered"].inc()
        self._stage_seconds.add("queue", waited_s)
        for stage in STAGES[1:]:
            latency_ms = analysis.latency_ms.get(stage)
            if latency_ms is not None:
                self._stage_seconds.add(stage, latency_ms / 1000)
        for face in analysis.faces:
            self._faces.inc()
            told = face.prediction
            (self._abstained if told.abstained else self._labels[told.top]).inc()
        self._drift.add([face.prediction.reliability for face in analysis.faces], streamed)

    def unanswered(self, result: Unanswered, pictures: int = 1) -> None:
        """Count pictures or frames that were sent and not recognised; not those that their sender gave up."""
        self._pictures[result].inc(pictures)

    def streams(self, change: int) -> None:
        """Count a stream that opened, 1, or closed, -1."""
        self._streams.inc(change)

    def dropped_frame(self) -> None:
        """Count a frame that a newer one replaced."""
        self._replaced.inc()

    def render(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and its content type."""
        return generate_latest(_WithoutDates(self._registry)), CONTENT_TYPE_LATEST


class _Times(Collector):
    """A histogram of seconds for each value of one label.

    One lock and one search: the package's own took five times as long, six times for every picture.
    """

    def __init__(self, name: str, text: str, label: str, known: Sequence[str] = ()) -> None:
        self._name, self._text, self._label = name, text, label
        self._lock = threading.Lock()
        self._counts = {value: [0] * (len(_BUCKETS_S) + 1) for value in known}
        self._sums = dict.fromkeys(known, 0.0)

    def add(self, value: str, seconds: float) -> None:
        bucket = bisect_left(_BUCKETS_S, seconds)  # a bucket's upper bound belongs to it
        with self._lock:
            if value not in self._counts:
                self._counts[value], self._sums[value] = [0] * (len(_BUCKETS_S) + 1), 0.0
            self._counts[value][bucket] += 1
            self._sums[value] += seconds

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=(self._label,))
        with self._lock:
            counts = {value: tuple(row) for value, row in self._counts.items()}
            sums = dict(self._sums)
        bounds = (*map(floatToGoString, _BUCKETS_S), "+Inf")
        for value, row in counts.items():
            family.add_metric((value,), list(zip(bounds, accumulate(row), strict=True)), sums[value])
        yield family


class _Drift(Collector):
    """The reliability of the latest faces against that of the reference."""

    def __init__(self, reference: float | None) -> None:
        self._reference = reference
        self._latest: deque[float] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()
        self._frame_counts_at = -math.inf

    def add(self, reliabilities: Sequence[float], streamed: bool) -> None:
        if not reliabilities:
            return
        with self._lock:
            if streamed:
                # A visitor's thirty frames a second are one face, and would soon fill the window.
                now = time.monotonic()
                if now < self._frame_counts_at:
                    return
                self._frame_counts_at = now + _STREAM_GAP_S
            self._latest.extend(reliabilities)

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            latest = tuple(self._latest)
        yield GaugeMetricFamily(
            "edge_fer_reliability_faces",
            f"Faces that edge_fer_reliability_mean rests on: the latest, {WINDOW:,} at most. Of all streams "
            "together one frame a second counts.",
            value=len(latest),
        )
        mean = math.fsum(latest) / len(latest) if latest else None
        yield from _gauge(
            "edge_fer_reliability_mean",
            "Mean reliability of the latest faces, 0 to 1; absent before the first.",
            mean,
        )
        yield from _gauge(
            "edge_fer_reliability_reference",
            "Mean reliability of the float checkpoint on the faces that the certificate rests on; absent "
            "when the bundle has no reference outputs.",
            self._reference,
        )
        yield from _gauge(
            "edge_fer_reliability_drift",
            "Drift monitor: edge_fer_reliability_mean minus edge_fer_reliability_reference. Far from 0, the "
            "faces seen here are unlike those of the certificate (camera, light, crop, people, another mix "
            "of expressions), and its figures may not hold for them. It is no accuracy, and tells nothing of "
            "what people feel. Mind edge_fer_reliability_faces: few faces say little.",
            None if mean is None or self._reference is None else mean - self._reference,
        )


class _WithoutDates(Collector):
    """What a registry collects, but for the `_created` series: they are half of the text and nobody asked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _gauge(name: str, text: str, value: float | None) -> Sequence[Metric]:
    return () if value is None else (GaugeMetricFamily(name, text, value=value),)


def _about(served: Served) -> Gauge:
    facts = {
        "model": served.model,
        "precision": served.precision,
        "engine": served.engine,
        "sha256": served.sha256,
        "certified_here": str(served.certified_here).lower(),
        "version": __version__,
    }
    about = Gauge(
        "edge_fer_bundle_info", "1; its labels tell the bundle that answers.", tuple(facts), registry=None
    )
    about.labels(*facts.values()).set(1)
    return about
