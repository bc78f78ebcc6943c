"""What `infer` does: lists pictures, recognises each, gives results out; a broken one stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_fer.cli_errors import complain, notice
from edge_fer.errors import EdgeFerError, InputError
from edge_fer.images import list_images, read_image, write_image
from edge_fer.output import analysis_record, open_csv, plan_pictures, print_json
from edge_fer.recognizer import Analysis, FaceResult, Recognizer

if TYPE_CHECKING:
    from edge_fer.detect import Detector
    from edge_fer.draw import Annotation


@dataclass(frozen=True, slots=True, kw_only=True)
class InferOptions:
    """What the user asked `infer` for.

    Attributes:
        json: print one JSON object per picture; otherwise a table on standard error.
        csv: file for one row per face; None: none.
        output: folder for annotated pictures; None: none.
        detector: what `load_detector` takes.
        detect: False: every picture is one face crop.
    """

    json: bool = False
    csv: Path | None = None
    output: Path | None = None
    detector: str | None = None
    detect: bool = True


def list_sources(sources: Sequence[str]) -> tuple[list[Path], int]:
    """Return the pictures that the sources stand for, and how many sources are broken; each gets its line."""
    pictures: list[Path] = []
    broken = 0
    for source in sources:
        try:
            pictures += list_images(source)
        except InputError as error:
            complain(error)
            broken += 1
    return pictures, broken


def infer_sources(pictures: Sequence[Path], recognizer: Recognizer, options: InferOptions) -> int:
    """Recognise every picture and give out what was asked for.

    Returns:
        How many pictures are broken; each gets its line.

    Raises:
        DetectorError: the detector cannot be made.
        InputError: a place for results cannot be written to, or is a source.
    """
    targets = plan_pictures(pictures, options.output) if options.output else [None] * len(pictures)
    detector = _load_detector(options)
    shown: list[tuple[str, Analysis]] = []
    broken = 0
    with (
        open_csv(options.csv, recognizer.spec.labels, pictures) as rows,
        _progress(options, len(pictures)) as show,
    ):
        for number, (picture, target) in enumerate(zip(pictures, targets, strict=True), start=1):
            try:
                analysis = _infer_picture(picture, target, recognizer, detector)
            except EdgeFerError as error:
                complain(error)
                broken += 1
                continue
            rows.write(str(picture), analysis)
            if options.json:
                print_json(analysis_record(str(picture), analysis))
                if not analysis.faces:
                    notice(f"{picture}: no face found")
            else:
                shown.append((str(picture), _without_pixels(analysis)))
            show(number)
    if shown:
        _show(shown)
    return broken


def _load_detector(options: InferOptions) -> Detector | None:
    if not options.detect:
        return None
    from edge_fer.detect import load_detector

    return load_detector(options.detector)


def _infer_picture(
    path: Path, target: Path | None, recognizer: Recognizer, detector: Detector | None
) -> Analysis:
    """Read and analyse one picture, and write the annotated one if it has a place."""
    started = time.perf_counter()
    image = read_image(path)
    decode_ms = 1000 * (time.perf_counter() - started)
    analysis = recognizer.analyze(image, detector, detect=detector is not None)
    latency_ms = {"decode": decode_ms, **analysis.latency_ms}
    latency_ms["total"] += decode_ms
    if target is not None:
        from edge_fer.draw import draw_faces

        write_image(target, draw_faces(image, [_annotation(face) for face in analysis.faces]))
    return replace(analysis, latency_ms=latency_ms)


def _annotation(face: FaceResult) -> Annotation:
    from edge_fer.draw import Annotation

    prediction = face.prediction
    probabilities = dict(zip(prediction.labels, prediction.probabilities.tolist(), strict=True))
    return Annotation(
        box=face.box,
        label=prediction.label,
        probability=probabilities[prediction.label],
        reliability=prediction.reliability,
        abstained=prediction.abstained,
        probabilities=probabilities,
    )


def _without_pixels(analysis: Analysis) -> Analysis:
    # The table comes last; a folder of a hundred thousand pictures must not keep every crop until then.
    return replace(analysis, faces=tuple(replace(face, crop=face.crop[:0].copy()) for face in analysis.faces))


def _progress(options: InferOptions, total: int) -> AbstractContextManager[Callable[[int], None]]:
    if options.json or total < 2:
        return nullcontext(lambda done: None)
    from edge_fer.tables import progress

    return progress("recognising", total)


def _show(shown: Sequence[tuple[str, Analysis]]) -> None:
    """Print the table, and the whole distribution of a face that is the only one."""
    from edge_fer.tables import face_rows, print_distribution, print_faces

    print_faces([row for source, analysis in shown for row in face_rows(source, analysis)])
    faces = [face for _, analysis in shown for face in analysis.faces]
    if len(faces) == 1:
        print_distribution(faces[0].prediction)
