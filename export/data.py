"""The faces an export is calibrated on, judged on, and replayed with on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from calibrate.manifest import SAMPLES, CalibrationSet, choose_faces, is_manifest, whole_manifest
from edge_fer.errors import CalibrationError, UsageError
from edge_fer.faces import FaceSet, face_hash, load_crops, read_data
from edge_fer.samples import Golden
from edge_fer.tables import progress
from export.golden import Sample, make_golden, parity_samples, synthetic_samples, with_colour
from export.measure import ParitySet
from export.options import ExportOptions
from export.reference import TorchAnswers, make_reference
from export.source import Source


@dataclass(frozen=True, slots=True)
class Listed:
    """What DATA name, read once and not decoded yet; None for DATA that are not given or not used."""

    calibration: FaceSet | None
    parity: FaceSet | None
    golden: list[Sample]


def list_data(options: ExportOptions) -> Listed:
    """List the faces without answering any: what is missing or malformed shows here, not minutes later.

    Golden samples are of the parity data when there is some, unless synthetic ones are asked for.

    Raises:
        InputError: DATA that is none, or a picture too large for a golden sample.
    """
    calibration = read_data(str(options.calibration_data)) if options.calibrates else None
    parity = None if options.parity_data is None else read_data(options.parity_data)
    if parity is None or options.golden == "synthetic":
        return Listed(calibration, parity, synthetic_samples())
    return Listed(calibration, parity, parity_samples(parity))


def load_parity_set(faces: FaceSet | None, source: Source, *, embedding: bool = False) -> ParitySet | None:
    """Decode the parity faces and let the float network answer them; None without data or training."""
    if faces is None:
        return None
    with progress("reading the parity faces", len(faces.faces)) as show:
        crops = load_crops(faces, source.crop, show)
    with progress("reference outputs in PyTorch", len(crops)) as show:
        answer = TorchAnswers(source.network, show)
        reference = make_reference(faces, crops, answer, source.network.spec.labels)
    if not embedding:
        reference = replace(reference, embedding=None)
    return ParitySet(faces, crops, reference)


def answer_golden(samples: list[Sample], source: Source) -> Golden:
    """Let the float network answer the golden samples."""
    return make_golden(with_colour(samples, source.crop), source.crop, TorchAnswers(source.network))


def choose_calibration(
    options: ExportOptions, faces: FaceSet, source: Source, parity: ParitySet | None
) -> CalibrationSet:
    """Take the faces of a manifest as they are, or choose from DATA; never a face of the parity set.

    Args:
        options: name the calibration data and how many faces are chosen.
        faces: what was listed of them.
        source: the float network, by whose confidence faces are spread.
        parity: the parity set, if there is one.

    Raises:
        CalibrationError: too few faces, or a manifest that overlaps the parity set.
        UsageError: --samples beside a manifest of another size.
    """
    data, explicit = str(options.calibration_data), options.samples is not None
    exclude = set() if parity is None else {face_hash(crop) for crop in parity.crops}
    if is_manifest(data):
        chosen = whole_manifest(Path(data), faces, source.crop, explicit=explicit)
        overlap = sum(face_hash(crop) in exclude for crop in chosen.crops)
        if overlap:
            raise CalibrationError(
                f"{data}: expected calibration faces outside the parity set, {overlap} of "
                f"{len(chosen.crops)} are in it; make the manifest again with `calibrate --exclude`"
            )
        if options.samples not in (None, len(chosen.crops)):
            raise UsageError(
                f"--samples {options.samples}: the manifest {data} is taken whole, all "
                f"{len(chosen.crops)} faces; leave --samples out or make another manifest"
            )
        return chosen
    samples = options.samples or SAMPLES
    with progress("choosing calibration faces", samples) as show:
        return choose_faces(
            faces,
            source.crop,
            samples=samples,
            seed=options.seed,
            exclude=exclude,
            explicit=explicit,
            confidence=None
            if source.untrained
            else lambda crops: TorchAnswers(source.network)(crops).reliability,
            progress=show,
        )
