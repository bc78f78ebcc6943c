"""The monitor's text, read back with Prometheus' own parser and held against plain counting."""

from __future__ import annotations

import math
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge_fer import __version__
from edge_fer.bundle import Bundle, ModelSpec, default_bundle, write_bundle
from edge_fer.labels import LABELS
from edge_fer.recognizer import Analysis, FaceResult, Place, Prediction
from edge_fer.serve import monitor as monitor_module
from edge_fer.serve.monitor import STAGES, WINDOW, Monitor, Served

SERVED = Served(
    model="tiny",
    precision="int8",
    engine="tflite",
    sha256="0" * 64,
    certified_here=True,
    labels=LABELS,
    reference_reliability=0.7,
)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def make(served: Served = SERVED, depth: int = 0) -> Monitor:
    return Monitor(served, queue_depth=lambda: depth)


def read(monitor: Monitor) -> Samples:
    """Return every sample of the text by its name and sorted labels."""
    text, _ = monitor.render()
    samples: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples, "a sample is there twice"
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"edge_fer_{name}", tuple(sorted(labels.items()))))


def face(reliability: float = 0.5, top: int = 0, abstained: bool = False) -> FaceResult:
    flat = np.full(len(LABELS), 1 / len(LABELS), np.float32)
    told = Prediction(LABELS, flat, flat, reliability, top, abstained)
    return FaceResult(Place((1.0, 2.0, 30.0, 40.0)), told, np.zeros((16, 16, 3), np.uint8))


def analysis(faces: Sequence[FaceResult], **latency_ms: float) -> Analysis:
    return Analysis(tuple(faces), None, {"total": 99_000.0, **latency_ms})


def test_requests_are_counted_by_route_and_status() -> None:
    monitor = make()
    for status in (200, 200, 503):
        monitor.request("/v1/infer", status, 0.1)
    monitor.request("/health", 200, 0.0001)
    samples = read(monitor)
    assert value(samples, "requests_total", route="/v1/infer", status="200") == 2
    assert value(samples, "requests_total", route="/v1/infer", status="503") == 1
    assert value(samples, "requests_total", route="/health", status="200") == 1
    assert value(samples, "request_seconds_count", route="/v1/infer") == 3
    assert value(samples, "request_seconds_sum", route="/v1/infer") == pytest.approx(0.3)
    assert value(samples, "request_seconds_bucket", route="/health", le="0.0003") == 1


def test_faces_are_counted_by_label_or_as_abstained() -> None:
    monitor = make()
    faces = [face(top=1), face(top=1), face(top=6), face(top=6, abstained=True)]
    monitor.answer(analysis(faces), 0.0)
    monitor.answer(analysis([]), 0.0)
    samples = read(monitor)
    assert value(samples, "faces_total") == 4
    assert value(samples, "abstained_total") == 1
    told = {name: value(samples, "labels_total", label=name) for name in LABELS}
    assert told == {**dict.fromkeys(LABELS, 0), "happiness": 2, "fear": 1}
    assert value(samples, "pictures_total", result="answered") == 2


def test_pictures_without_an_answer_streams_and_the_queue() -> None:
    monitor = make(depth=7)
    for result, times in (("broken", 1), ("refused", 2), ("late", 3)):
        for _ in range(times):
            monitor.unanswered(result)  # type: ignore[arg-type]
    monitor.streams(1)
    monitor.streams(1)
    monitor.streams(-1)
    monitor.dropped_frame()
    samples = read(monitor)
    assert [value(samples, "pictures_total", result=name) for name in ("broken", "refused", "late")] == [
        1,
        2,
        3,
    ]
    assert value(samples, "streams") == 1
    assert value(samples, "frames_replaced_total") == 1
    assert value(samples, "queue_depth") == 7


def test_every_stage_that_ran_has_its_time_and_no_other() -> None:
    monitor = make()
    monitor.answer(analysis([face()], decode=1.5, detect=20.0, preprocess=0.2, recognise=0.4), 0.25)
    monitor.answer(analysis([face()], decode=2.5, track=0.7, preprocess=0.2, recognise=0.4), 0.75)
    samples = read(monitor)
    count = {stage: value(samples, "stage_seconds_count", stage=stage) for stage in STAGES}
    assert count == {"queue": 2, "decode": 2, "detect": 1, "track": 1, "preprocess": 2, "recognise": 2}
    total = {stage: value(samples, "stage_seconds_sum", stage=stage) for stage in STAGES}
    expected = {
        "queue": 1.0,
        "decode": 0.004,
        "detect": 0.02,
        "track": 0.0007,
        "preprocess": 0.0004,
        "recognise": 0.0008,
    }
    assert total == pytest.approx(expected)
    assert value(samples, "stage_seconds_count", stage="total") is None


def test_histograms_are_those_that_the_package_would_make() -> None:
    bounds = sorted(
        float(dict(labels)["le"])
        for name, labels in read(make())
        if name == "edge_fer_stage_seconds_bucket" and ("stage", "queue") in labels
    )
    assert bounds[0] <= 0.0003 and bounds[-2:] == [10.0, math.inf]
    assert max(high / low for low, high in pairwise(bounds[:-1])) <= 2
    chance = np.random.default_rng(7)
    seconds = [*bounds[:-1], 0.0, 1e-9, 11.0, 1e4, *10 ** chance.uniform(-5, 2, 300)]
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram(
        "edge_fer_request_seconds", "Theirs.", ("route",), registry=registry, buckets=bounds
    )
    monitor = make()
    for each in seconds:
        monitor.request("/", 200, each)
        theirs.labels("/").observe(each)
    samples = read(monitor)
    for metric in registry.collect():
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                ours = samples[sample.name, tuple(sorted(sample.labels.items()))]
                assert ours == pytest.approx(sample.value, rel=1e-12)


def test_drift_is_the_mean_of_the_latest_faces_less_the_reference() -> None:
    monitor = make()
    samples = read(monitor)
    assert value(samples, "reliability_reference") == 0.7
    assert value(samples, "reliability_faces") == 0
    assert value(samples, "reliability_mean") is None and value(samples, "reliability_drift") is None
    told = np.random.default_rng(3).uniform(0, 1, WINDOW + 234).tolist()
    for start in range(0, len(told), 3):
        monitor.answer(analysis([face(each) for each in told[start : start + 3]]), 0.0)
    samples = read(monitor)
    mean = float(np.mean(told[-WINDOW:]))
    assert value(samples, "reliability_faces") == 1000
    assert value(samples, "reliability_mean") == pytest.approx(mean)
    assert value(samples, "reliability_drift") == pytest.approx(mean - 0.7)


def test_without_a_reference_there_is_no_drift() -> None:
    monitor = make(replace(SERVED, reference_reliability=None))
    monitor.answer(analysis([face(0.25)]), 0.0)
    samples = read(monitor)
    assert value(samples, "reliability_mean") == 0.25
    assert value(samples, "reliability_reference") is None and value(samples, "reliability_drift") is None


def test_one_frame_a_second_of_all_streams_counts_towards_the_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(monitor_module.time, "monotonic", lambda: now[0])
    monitor = make()
    for _ in range(50):  # five seconds of ten frames, of two people
        monitor.answer(analysis([face(0.2), face(0.4)]), 0.0, streamed=True)
        now[0] += 0.1
    monitor.answer(analysis([face(0.9)]), 0.0)  # a picture counts, whenever it comes
    samples = read(monitor)
    assert value(samples, "faces_total") == 101
    assert value(samples, "reliability_faces") == 11
    assert value(samples, "reliability_mean") == pytest.approx((5 * 0.2 + 5 * 0.4 + 0.9) / 11)


def test_the_drift_monitor_is_named_as_one_and_explained() -> None:
    monitor = make()
    monitor.answer(analysis([face()]), 0.0)
    text, kind = monitor.render()
    helped = {family.name: family.documentation for family in text_string_to_metric_families(text.decode())}
    assert all(helped.values()) and "1,000" in helped["edge_fer_reliability_faces"]
    drift = helped["edge_fer_reliability_drift"]
    assert drift.startswith("Drift monitor: edge_fer_reliability_mean minus edge_fer_reliability_reference")
    assert "no accuracy" in drift and "what people feel" in drift
    assert kind.startswith("text/plain; version=") and kind.endswith("charset=utf-8")


def test_the_bundle_that_answers_is_told() -> None:
    info = [(labels, one) for (name, labels), one in read(make()).items() if name == "edge_fer_bundle_info"]
    facts = {
        "model": "tiny",
        "precision": "int8",
        "engine": "tflite",
        "sha256": "0" * 64,
        "certified_here": "true",
        "version": __version__,
    }
    assert info == [(tuple(sorted(facts.items())), 1)]
    elsewhere = read(make(replace(SERVED, certified_here=False)))
    assert [dict(labels)["certified_here"] for name, labels in elsewhere if name.endswith("bundle_info")] == [
        "false"
    ]


def test_the_reference_is_the_mean_over_the_bundle_s_own_faces() -> None:
    bundle = Bundle.load(default_bundle())
    served = Served.of(bundle, "onnxruntime", True)
    with np.load(bundle.path / "reference.npz", allow_pickle=False) as stored:
        mean = float(stored["reliability"].astype(np.float64).mean())
    assert served.reference_reliability == pytest.approx(mean, rel=1e-5) and 0.5 < mean < 0.9
    assert (served.model, served.precision, served.sha256) == ("grefel-lite", "int8", bundle.digest)


def test_a_bundle_without_reference_outputs_is_served_all_the_same(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    bare = write_bundle(tmp_path / "bare.fer", tiny_spec, {"model.onnx": tiny_graph})
    assert Served.of(bare, "onnxruntime", False).reference_reliability is None


def test_counting_from_many_threads_loses_nothing_and_never_hinders_reading() -> None:
    monitor, threads, each = make(), 8, 400
    ready = threading.Barrier(threads + 1)

    def work() -> None:
        ready.wait()
        for number in range(each):
            monitor.answer(analysis([face(0.5), face(1.0)], decode=1.0, recognise=1.0), 0.001)
            monitor.request(f"/{number % 7}", 200, 0.001)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    ready.wait()
    seen = [0.0]
    while any(thread.is_alive() for thread in running):
        samples = read(monitor)
        for stage in ("queue", "decode"):  # a histogram is whole at any moment
            rising = [
                one
                for (_, labels), one in samples.items()
                if ("stage", stage) in labels and "le" in dict(labels)
            ]
            assert rising == sorted(rising)
        seen.append(value(samples, "faces_total") or 0.0)
    assert seen == sorted(seen)
    samples = read(monitor)
    assert value(samples, "faces_total") == 2 * threads * each
    assert value(samples, "labels_total", label=LABELS[0]) == 2 * threads * each
    assert value(samples, "stage_seconds_count", stage="recognise") == threads * each
    assert value(samples, "stage_seconds_sum", stage="queue") == pytest.approx(0.001 * threads * each)
    routes = Counter(f"/{number % 7}" for number in range(each))
    for route, times in routes.items():
        assert value(samples, "requests_total", route=route, status="200") == threads * times
        assert value(samples, "request_seconds_count", route=route) == threads * times


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=5, unique=True))
def test_labels_with_any_characters_stay_themselves(labels: list[str]) -> None:
    monitor = make(replace(SERVED, labels=tuple(labels)))
    samples = read(monitor)
    assert {dict(pair)["label"] for name, pair in samples if name == "edge_fer_labels_total"} == set(labels)


def test_nothing_is_told_twice_and_nothing_of_another_monitor() -> None:
    one, other = make(), make()
    one.answer(analysis([face()]), 0.0)
    assert value(read(other), "faces_total") == 0
    names = {name for name, _ in read(one)}
    assert not [name for name in names if name.endswith("_created")]
    assert all(name.startswith(("edge_fer_", "process_")) for name in names)


def test_promtool_has_nothing_to_complain_of() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine")
    monitor = make()
    monitor.answer(analysis([face()], decode=1.0, detect=1.0, track=1.0, preprocess=1.0, recognise=1.0), 0.0)
    monitor.request("/v1/infer", 200, 0.1)

    def complaints(text: bytes) -> tuple[int, str]:
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
        return done.returncode, (done.stdout + done.stderr).decode()

    text, _ = monitor.render()
    assert complaints(text) == (0, "")
    code, said = complaints(text.replace(b"edge_fer_faces_total", b"edge_fer_faces"))
    assert code and "_total" in said
