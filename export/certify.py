"""From a checkpoint to a bundle that carries its certificate: the whole export, step by step."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edge_fer
from calibrate.manifest import SAMPLES, CalibrationSet, choose_faces, is_manifest, whole_manifest
from edge_fer.bundle import CERTIFICATE_FILE, GOLDEN_FILE, REFERENCE_FILE, Bundle, write_bundle
from edge_fer.engines import Engine, load_engine
from edge_fer.errors import CalibrationError, UsageError
from edge_fer.faces import FaceSet, face_hash, load_crops, read_data
from edge_fer.parity.report import Gate, Report, fp32_gate, run_parity
from edge_fer.samples import Golden, Reference
from edge_fer.spec import OUTPUTS, ModelSpec
from edge_fer.tables import progress
from export.golden import make_golden, parity_samples, synthetic_samples
from export.place import check_place
from export.reference import TorchAnswers, make_reference
from export.source import Source, read_source
from export.target import TARGETS, Converted, Graph, load_target


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What the `export` command was asked for; see its help."""

    checkpoint: str | None = None
    target: str = "onnx"
    precision: str = "fp32"
    output: Path | None = None
    calibration_data: str | None = None
    samples: int | None = None
    seed: int = 0
    parity_data: str | None = None
    golden: str | None = None


@dataclass(frozen=True, slots=True)
class ParitySet:
    """The faces an export is judged on, with the float network's answers."""

    faces: FaceSet
    crops: NDArray[np.uint8]
    reference: Reference


@dataclass(frozen=True, slots=True)
class Exported:
    """A certified but not yet written bundle, where it goes, and what its user should know."""

    path: Path
    spec: ModelSpec
    members: Mapping[str, bytes]
    report: Report
    notes: tuple[str, ...]


def check_options(options: ExportOptions) -> None:
    """Refuse what cannot work before anything is computed.

    Raises:
        UsageError: a target or precision this version does not have, or int8 without calibration data.
    """
    if options.target not in TARGETS:
        raise UsageError(f"--target {options.target}: this version exports {', '.join(TARGETS)}")
    if options.precision not in ("fp32", "int8"):
        raise UsageError(f"--precision {options.precision}: this version exports fp32 and int8")
    if options.precision == "int8" and options.calibration_data is None:
        raise UsageError("--precision int8 needs --calibration-data: faces like those the model will see")
    if options.golden == "parity" and options.parity_data is None:
        raise UsageError("--golden parity needs --parity-data: the golden samples are taken from it")


def certify(options: ExportOptions) -> Exported:
    """Export, quantise and measure, without writing anything.

    Raises:
        EdgeFerError: of any step, saying what to do.
    """
    check_options(options)
    source = read_source(options.checkpoint)
    model_name = source.network.spec.model
    path = options.output or Path(f"{model_name}-{options.target}-{options.precision}.fer")
    check_place(path)
    parity = load_parity_set(options.parity_data, source)
    # Chosen before anything long runs: most of what is wrong with data shows here.
    calibration = choose_calibration(options, source, parity) if options.precision == "int8" else None
    golden = load_golden(options, source, parity)
    converted = load_target(options.target)(source.network)
    graph = converted.float_graph()
    spec = make_spec(options, source, converted, graph)
    exact = measure_fp32(replace(spec, precision="fp32"), graph, golden, parity)
    if calibration is not None:
        graph = int8_graph(converted, calibration)
        spec = make_spec(options, source, converted, graph, calibration)
    members = {**graph.members, GOLDEN_FILE: golden.to_bytes()}
    if parity is not None:
        members[REFERENCE_FILE] = parity.reference.to_bytes()
    report = measure(spec, members, parity, exact)
    certificate = report.to_json()
    if calibration is not None and calibration.warning:
        certificate["warning"] = calibration.warning
    members[CERTIFICATE_FILE] = (json.dumps(certificate, indent=2, allow_nan=False) + "\n").encode()
    return Exported(path, spec, members, report, tuple(notes(options, parity, calibration)))


def notes(
    options: ExportOptions, parity: ParitySet | None, calibration: CalibrationSet | None
) -> Iterator[str]:
    """Say what the table of gates does not show."""
    if parity is not None and parity.faces.note:
        yield f"{parity.faces.name}: {parity.faces.note}"
    if calibration is not None and calibration.warning:
        yield calibration.warning
    if calibration is not None and parity is None:
        yield "nothing compared the int8 graph with the float one: give --parity-data"
    if calibration is None and options.calibration_data is not None:
        yield f"--calibration-data is not used with --precision {options.precision}"


def load_parity_set(data: str | None, source: Source) -> ParitySet | None:
    """Read the parity faces and let the float network answer them; None without data or training."""
    if data is None:
        return None
    faces = read_data(data)
    with progress("reading the parity faces", len(faces.faces)) as show:
        crops = load_crops(faces, source.crop, show)
    with progress("reference outputs in PyTorch", len(crops)) as show:
        answer = TorchAnswers(source.network, show)
        reference = make_reference(faces, crops, answer, source.network.spec.labels)
    return ParitySet(faces, crops, reference)


def load_golden(options: ExportOptions, source: Source, parity: ParitySet | None) -> Golden:
    """Make the golden samples: of the parity data when there is some, unless synthetic ones are asked for."""
    from_parity = parity is not None and options.golden != "synthetic"
    samples = parity_samples(parity.faces) if from_parity and parity is not None else synthetic_samples()
    return make_golden(samples, source.crop, TorchAnswers(source.network))


def measure_fp32(spec: ModelSpec, graph: Graph, golden: Golden, parity: ParitySet | None) -> Gate:
    """Compare the float graph on its own engine with PyTorch: golden samples and every parity face."""
    with loaded(spec, graph.members) as (_, engine):
        expected = [golden.probabilities]
        got = [engine.run(golden.crops).probabilities]
        if parity is not None:
            expected.append(parity.reference.probabilities)
            with progress("float graph against PyTorch", len(parity.crops)) as show:
                for start in range(0, len(parity.crops), 64):
                    got.append(engine.run(parity.crops[start : start + 64]).probabilities)
                    show(start + 64)
        return fp32_gate(np.concatenate(expected), np.concatenate(got))


def int8_graph(converted: Converted, calibration: CalibrationSet) -> Graph:
    """Quantise the encoder; every target raises when nothing was quantised."""
    with progress("calibrating", len(calibration.crops)) as show:
        return converted.int8_graph(calibration.crops, show)


def choose_calibration(options: ExportOptions, source: Source, parity: ParitySet | None) -> CalibrationSet:
    """Take the faces of a manifest as they are, or choose from DATA; never a face of the parity set.

    Raises:
        CalibrationError: too few faces, or a manifest that overlaps the parity set.
        UsageError: --samples beside a manifest of another size.
    """
    data, explicit = str(options.calibration_data), options.samples is not None
    exclude = set() if parity is None else {face_hash(crop) for crop in parity.crops}
    if is_manifest(data):
        chosen = whole_manifest(Path(data), source.crop, explicit=explicit)
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
            read_data(data),
            source.crop,
            samples=samples,
            seed=options.seed,
            exclude=exclude,
            explicit=explicit,
            progress=show,
        )


def make_spec(
    options: ExportOptions,
    source: Source,
    converted: Converted,
    graph: Graph,
    calibration: CalibrationSet | None = None,
) -> ModelSpec:
    """Describe the bundle for the runtime."""
    tools: dict[str, object] = {name: version(name) for name in converted.packages}
    tools["edge-fer"] = edge_fer.__version__
    manifest = None if calibration is None else calibration.sha256()
    return ModelSpec(
        model=source.network.spec.model,
        labels=source.network.spec.labels,
        input=source.crop,
        outputs=OUTPUTS,
        target=options.target,
        engine=converted.engine,
        precision=options.precision,
        quantisation=graph.quantisation,
        quantised_ops=graph.quantised_ops,
        float_ops=graph.float_ops,
        untrained=source.untrained,
        min_reliability=None,
        source={"checkpoint_sha256": source.sha256, "calibration_sha256": manifest, "tools": tools},
        weights=source.weights,
    )


@contextmanager
def loaded(spec: ModelSpec, members: Mapping[str, bytes]) -> Iterator[tuple[Bundle, Engine]]:
    """Write a bundle to a temporary folder and load it as a device does."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder) / "candidate.fer", spec, members)
        yield bundle, load_engine(bundle)


def measure(spec: ModelSpec, members: Mapping[str, bytes], parity: ParitySet | None, exact: Gate) -> Report:
    """Run every gate on the bundle as a device would load it."""
    crops = None if parity is None else parity.crops
    with (
        loaded(spec, members) as (bundle, engine),
        progress("parity", 0 if crops is None else len(crops)) as show,
    ):
        return run_parity(
            bundle=bundle,
            engine=engine,
            reference=None if parity is None else parity.reference,
            crops=crops,
            fp32_gate=exact,
            progress=show,
        )
