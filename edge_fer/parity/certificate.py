"""Certificates: the reports in a file or a bundle, joined, and the classes of CPUs that they cover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_fer.bundle import Bundle
from edge_fer.errors import BundleError, InputError
from edge_fer.parity.documents import Json, cpu_class_of, name_of, place_of, reports_of
from edge_fer.parity.environment import UNKNOWN
from edge_fer.spec import parse_object

MAX_FILE_BYTES = 64 << 20


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


def is_certified(bundle: Bundle, cpu_class: str) -> bool:
    """Return whether a certificate that passed was made on this class of CPUs."""
    if bundle.spec.failed or uncovered(bundle, cpu_class) is not None:
        return False
    report = report_for(bundle_reports(bundle), cpu_class)
    return report is not None and report["verdict"] == "passed"


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
    return f"{name_of(report)}: {said}{size}, certified on {place_of(report)}"
