"""How fast `infer` goes through a video: every stage alone, the pipeline, and detection in every full frame.

    python -m tests.benchmarks.video [--detector FILE.onnx] [--frames 500] [VIDEO]

Rounds of all three take turns, so that noise hits them alike; printed are medians, as a Markdown table for
docs/benchmarks.md. The clip is made from the demo photo: 640x480, one face.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_fer.detectors import Detector, load_detector
from edge_fer.inference import default_threads
from edge_fer.output import Moment, analysis_record
from edge_fer.pipeline.events import Opened, Result
from edge_fer.pipeline.pipeline import Pipeline
from edge_fer.pipeline.stages import Finder, Judge, Located
from edge_fer.recognizer import Recognizer
from edge_fer.sources import Frame, Selection, Source, resolve
from tests.clips import moving_faces, write_clip

Labels = list[list[str]]


def open_source(video: Path) -> Source:
    return resolve([str(video)])[0].open(Selection(), threading.Event())


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return what passed on the clock, and what all threads took of the processors."""
    started, processors = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - processors


def read_only(video: Path) -> None:
    source = open_source(video)
    while source.read() is not None:
        pass
    source.close()


def read_all(video: Path) -> list[Frame]:
    source = open_source(video)
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    return frames


def find_all(video: Path, frames: Sequence[Frame], detector: Detector) -> list[Located]:
    finder = Finder(detector)
    finder(Opened(open_source(video)))
    return [found for found in map(finder, frames) if isinstance(found, Located)]


def judge_all(found: Sequence[Located], recognizer: Recognizer) -> list[Result]:
    judge = Judge(recognizer, smooth=True)
    return [result for result in map(judge, found) if isinstance(result, Result)]


def give_all(results: Sequence[Result]) -> None:
    for result in results:
        frame = result.frame
        str(analysis_record(Moment(frame.source, frame.index, frame.time_s), result.analysis))


def run_pipeline(video: Path, recognizer: Recognizer, detector: Detector) -> Labels:
    """Do what `infer --json` does, but for the writing; as there, no frame is kept."""
    labels: Labels = []
    with Pipeline(
        resolve([str(video)]),
        recognizer,
        detector,
        selection=Selection(),
        smooth=True,
        stop=threading.Event(),
    ) as pipeline:
        for event in pipeline:
            if isinstance(event, Result):
                give_all([event])
                labels.append([face.prediction.label for face in event.analysis.faces])
    return labels


def detect_every_frame(video: Path, recognizer: Recognizer, detector: Detector) -> Labels:
    """Do the plain thing: read, detect in the full frame, recognise; one after the other."""
    labels: Labels = []
    source = open_source(video)
    while (frame := source.read()) is not None:
        analysis = recognizer.analyze(frame.image, detector)
        labels.append([face.prediction.label for face in analysis.faces])
    source.close()
    return labels


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("--detector")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    detector = load_detector(given.detector)
    with tempfile.TemporaryDirectory() as name:
        video = given.video or write_clip(Path(name) / "one.mp4", moving_faces(given.frames))
        threads = given.threads or default_threads(resolve([str(video)]))
        recognizer = Recognizer.load(given.bundle, threads=threads)
        measure(video, recognizer, detector, given.rounds)


def measure(video: Path, recognizer: Recognizer, detector: Detector, rounds: int) -> None:
    frames = read_all(video)
    found = find_all(video, frames, detector)
    results = judge_all(found, recognizer)
    tracked = run_pipeline(video, recognizer, detector)
    plain = detect_every_frame(video, recognizer, detector)
    parts: dict[str, Callable[[], object]] = {
        "read": lambda: read_only(video),
        "find": lambda: find_all(video, frames, detector),
        "recognise": lambda: judge_all(found, recognizer),
        "give out": lambda: give_all(results),
        "pipeline": lambda: run_pipeline(video, recognizer, detector),
        "detection in every full frame": lambda: detect_every_frame(video, recognizer, detector),
    }
    times: dict[str, list[float]] = {part: [] for part in parts}
    busy: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(rounds):
        for part, work in parts.items():
            clock, processors = seconds(work)
            times[part].append(clock)
            busy[part].append(processors)
    print(f"| {len(frames)} frames, {detector.name} | ms a frame | frames/s | processor ms a frame |")
    print("|---|---|---|---|")
    for part, taken in times.items():
        each = statistics.median(taken) / len(frames)
        processor_ms = 1e3 * statistics.median(busy[part]) / len(frames)
        print(f"| {part} | {1e3 * each:.2f} | {1 / each:.0f} | {processor_ms:.2f} |")
    stages = list(parts)[:4]
    name = max(stages, key=lambda stage: statistics.median(times[stage]))
    share = ratio(times[name], times["pipeline"])
    print(f"\nSlowest stage: {name}. The pipeline reaches {share:.0%} of its rate (bar 85 %)")
    print(f"and keeps {ratio(busy['pipeline'], times['pipeline']):.2f} processors busy.")
    gain = ratio(times["detection in every full frame"], times["pipeline"])
    print(f"Over detection in every full frame: {gain:.1f} times the rate (bar 4),")
    both = [(one, other) for one, other in zip(tracked, plain, strict=True) if one and other]
    alike = statistics.mean(one == other for one, other in both)
    print(f"the same labels in {alike:.1%} of the frames in which both find a face (bar 99 %):")
    missed = [sum(not one for one in labels) for labels in (tracked, plain)]
    print(f"{missed[0]} frames are without one here, {missed[1]} there.")


def ratio(upper: Sequence[float], lower: Sequence[float]) -> float:
    """Return the median of the ratios within one round."""
    return statistics.median(one / other for one, other in zip(upper, lower, strict=True))


if __name__ == "__main__":
    main()
