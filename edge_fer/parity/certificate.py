"""Certificates: the reports in a file or a bundle, several of them as one matrix, and the CPUs they cover."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_fer.bundle import Bundle
from edge_fer.errors import BundleError, InputError
from edge_fer.parity.environment import UNKNOWN
from edge_fer.parity.gates import Gate, overall
from edge_fer.parity.schema import MATRIX, check_report
from edge_fer.spec import parse_object

if TYPE_CHECKING:
    from edge_fer.parity.gates import Verdict

MAX_FILE_BYTES = 64 << 20
Json = Mapping[str, object]


def read_reports(path: Path) -> list[Json]:
    """Return the reports of a parity.json, or of the certificate inside a bundle.

    Raises:
        InputError: the file is missing, or no parity.json of this version.
        BundleError: the bundle is broken or has no certificate.
    """
    if path.suffix.lower() != ".json":
        bundle = Bundle.load(path)
        found = bundle_reports(bundle)
        if not found:
            raise BundleError(f"{path} has no certificate: expected a parity.json or a bundle with one")
        return found
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: expected a parity.json of at most {MAX_FILE_BYTES >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return reports_of(parse_object(content, path.name))
    except ValueError as error:
        raise InputError(f"{path}: {error}: write it again with `edge-fer parity --output`") from error


def bundle_reports(bundle: Bundle) -> list[Json]:
    """Return the reports of a bundle's certificate, its own first; none without one.

    Raises:
        BundleError: the certificate is of another version or damaged.
    """
    certificate = bundle.certificate()
    if certificate is None:
        return []
    try:
        return reports_of(certificate)
    except ValueError as error:
        raise BundleError(f"{bundle.path}: parity.json: {error}: export the bundle again") from error


def reports_of(document: object) -> list[Json]:
    """Return the reports of one parity.json, checked.

    A verdict is not believed: it has to be the one that its gates give.

    Raises:
        ValueError: it is none, or its verdict is not that of its gates.
    """
    checked = check_report(document)
    reports = checked.get("reports", [checked])
    assert isinstance(reports, list)
    for report in reports:
        gates = gates_of(report)
        slow = any(gate.verdict == "size only" for gate in gates)
        if (report["verdict"], report["size_only"]) != (overall(gates), slow):
            raise ValueError(f"it says {report['verdict']}, its gates say {overall(gates)}")
    if checked["verdict"] != joint_verdict(reports):
        raise ValueError(f"it says {checked['verdict']}, its reports say {joint_verdict(reports)}")
    return list(reports)


def document(reports: Sequence[Json]) -> Json:
    """Return the content of the parity.json of these reports: a report alone, or the matrix of several."""
    if len(reports) == 1:
        return reports[0]
    return {"schema": MATRIX, "verdict": joint_verdict(reports), "reports": list(reports)}


def text_of(content: Json) -> str:
    """Return the text of a parity.json: a key a line, and a line for every gate, figure and section.

    An indent for everything would put each number of a curve on a line of its own.
    """
    return _lines(content, "\n", 4 if "reports" in content else 2) + "\n"


def _lines(value: object, indent: str, levels: int) -> str:
    """Return JSON with this many levels of objects, and of lists of objects, spread over lines."""
    if isinstance(value, Mapping) and value and levels:
        within = f"{indent} "
        parts = [f"{json.dumps(key)}: {_lines(item, within, levels - 1)}" for key, item in value.items()]
        return "{" + within + f",{within}".join(parts) + indent + "}"
    if isinstance(value, list) and levels and any(isinstance(item, Mapping) for item in value):
        within = f"{indent} "
        return "[" + within + f",{within}".join(_lines(i, within, levels - 1) for i in value) + indent + "]"
    return json.dumps(value, allow_nan=False)


def joint_verdict(reports: Iterable[Json]) -> Verdict:
    """Return failed if any report failed, else undecided if any is, else passed."""
    verdicts = {str(report["verdict"]) for report in reports}
    return "failed" if "failed" in verdicts else "passed" if verdicts == {"passed"} else "undecided"


def merge(reports: Iterable[Json]) -> list[Json]:
    """Join reports made elsewhere; one that comes twice is kept once.

    Raises:
        InputError: they do not compare with the same reference outputs.
    """
    kept: list[Json] = []
    for report in reports:
        if report not in kept:
            kept.append(report)
    names: dict[object, str] = {}
    for report in kept:
        reference = report["reference"]
        if isinstance(reference, dict):
            names.setdefault(reference["sha256"], f"{reference['name']} ({reference['faces']} faces)")
    if len(names) > 1:
        raise InputError(
            f"expected reports against one reference, got {len(names)}: {'; '.join(names.values())}: "
            "make them with the same --reference"
        )
    return kept


def cpu_class_of(report: Json) -> str:
    """Return the class of CPUs that a report was made on."""
    environment = report["environment"]
    return str(environment["cpu_class"]) if isinstance(environment, dict) else ""


def gates_of(report: Json) -> list[Gate]:
    """Return the gates of a checked report."""
    found = report["gates"]
    assert isinstance(found, list)
    return [Gate.from_json(gate) for gate in found]


def name_of(report: Json) -> str:
    """Return the model, target and precision that a report is about."""
    bundle = report["bundle"]
    assert isinstance(bundle, dict)
    return f"{bundle['model']} {bundle['target']} {bundle['precision']}"


def report_for(reports: Sequence[Json], cpu_class: str) -> Json | None:
    """Return the report made on a class of CPUs, else the first; None when there is none."""
    return next((one for one in reports if cpu_class_of(one) == cpu_class), reports[0] if reports else None)


def uncovered(bundle: Bundle, cpu_class: str) -> str | None:
    """Return the warning due when no certificate of a bundle was made on this class of CPUs.

    A certificate of another version is one that covers nothing: it does not keep an old bundle from running.
    """
    try:
        classes = sorted({cpu_class_of(report) for report in bundle_reports(bundle)})
    except BundleError as error:
        return str(error)
    if not classes or (cpu_class in classes and not cpu_class.endswith(UNKNOWN)):
        return None
    return (
        f"{bundle.path} is certified on {', '.join(classes)}, this is {cpu_class}: "
        f"run `edge-fer self-test {bundle.path}` before you rely on it"
    )


def summary(bundle: Bundle, cpu_class: str) -> str:
    """Return in one line what the certificate says of a bundle, on this class of CPUs where it can."""
    try:
        report = report_for(bundle_reports(bundle), cpu_class)
    except BundleError:
        return f"{bundle.path}: parity {bundle.verdict}, by a certificate of another version"
    if report is None:
        return f"{bundle.path}: the bundle has no certificate"
    figures, faces = report["figures"], report["faces"]
    flips = figures.get("flips") if isinstance(figures, dict) else None
    verdict = "failed" if bundle.spec.failed else report["verdict"]
    said = f"parity {verdict} on {faces:,} faces" if isinstance(faces, int) else ""
    if isinstance(flips, int):
        said += f", {flips:,} labels changed"
    size = ", size only" if report["size_only"] else ""
    return f"{name_of(report)}: {said}{size}, certified on {cpu_class_of(report)}"
