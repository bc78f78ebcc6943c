"""From a checkpoint to a bundle that carries its certificate: the whole export, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from calibrate.manifest import CalibrationSet
from edge_fer.bundle import CARD_FILE
from edge_fer.errors import UsageError
from edge_fer.parity.comparison import Report
from edge_fer.spec import ModelSpec
from edge_fer.tables import progress
from export.card import read_card
from export.data import answer_golden, choose_calibration, list_data, load_parity_set
from export.measure import Judged, ParitySet
from export.options import DYNAMIC, ExportOptions, check_options, read_recipe
from export.place import check_bundle_place
from export.source import read_source
from export.target import load_target
from export.workshop import Workshop, check_float_modules


@dataclass(frozen=True, slots=True)
class Exported:
    """A certified but not yet written bundle, where it goes, and what its user should know."""

    path: Path
    spec: ModelSpec
    members: Mapping[str, bytes]
    report: Report
    notes: tuple[str, ...]


def certify(options: ExportOptions) -> Exported:
    """Export, quantise and measure, without writing anything.

    Raises:
        EdgeFerError: of any step, saying what to do.
    """
    check_options(options)
    source = read_source(options.checkpoint)
    if source.untrained and options.precision == "auto":
        raise UsageError("--precision auto compares answers, untrained weights have none: name a precision")
    if source.untrained and options.attribution:
        raise UsageError("--attribution compares labels, untrained weights have none: leave it out")
    path = bundle_path(options, source.network.spec.model)
    check_bundle_place(path)
    card = {} if options.card is None else {CARD_FILE: read_card(options.card)}
    target = load_target(options.target)
    if options.calibrates:
        recipe = read_recipe(options.recipe, target.default_recipe)
        target.offer.check(recipe)
        check_float_modules(recipe.float_modules, source.network)
    listed = list_data(options)
    parity = load_parity_set(listed.parity, source, embedding=options.embedding)
    calibration = None
    if listed.calibration is not None:
        calibration = choose_calibration(options, listed.calibration, source, parity)
    golden = answer_golden(listed.golden, source)
    with progress("converting", 1):
        converted = target(source.network, embedding=options.embedding)
    workshop = Workshop(options, source, converted, calibration, golden, parity)
    judged = workshop.climb() if options.precision == "auto" else workshop.make(options.precision)
    if options.attribution:
        judged = workshop.attributed(judged)
    members = workshop.judge.certified(judged) | card
    said = tuple(notes(options, judged, parity, calibration))
    return Exported(path, judged.spec, members, judged.report, said)


def bundle_path(options: ExportOptions, model: str) -> Path:
    """Return where the bundle goes: MODEL-TARGET-PRECISION.fer here when nobody says another place."""
    return options.output or Path(f"{model}-{options.target}-{options.precision}.fer")


def notes(
    options: ExportOptions, judged: Judged, parity: ParitySet | None, calibration: CalibrationSet | None
) -> Iterator[str]:
    """Say what the table of gates does not show."""
    if parity is not None and parity.faces.note:
        yield f"{parity.faces.name}: {parity.faces.note}"
    if calibration is not None and calibration.warning:
        yield calibration.warning
    if judged.graph.quantisation != "none" and parity is None:
        yield "nothing compared the int8 graph with the float one: give --parity-data"
    if calibration is None and options.calibration_data is not None:
        asked = f"--recipe {DYNAMIC}" if options.recipe == DYNAMIC else f"--precision {options.precision}"
        yield f"--calibration-data is not used with {asked}"
    if judged.spec.precision != "fp32":
        speed = judged.speed
        worth = ": this graph saves size only" if judged.report.size_only else ""
        yield f"{speed.latency_ms:.2f} ms a face here, {speed.ratio:.2f}x the speed of fp32{worth}"
