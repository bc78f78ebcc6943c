"""Puts certificates made on other machines into a bundle: one for every class of CPUs it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_fer.bundle import CERTIFICATE_FILE, Bundle, write_bundle
from edge_fer.errors import BundleError, GateFailed, InputError
from edge_fer.parity.certificate import bundle_reports, merge, read_reports
from edge_fer.parity.documents import Json, cpu_class_of, document, emulated_of, name_of, text_of


def add_certificates(path: Path, certificates: Sequence[Path], output: Path) -> Bundle:
    """Write the bundle with these certificates beside its own.

    The bundle's own stays first; of the others, the last one of each class of CPUs is kept, but an emulated
    one never replaces that of a board. All have to have passed, on faces of the bundle's own reference.

    Args:
        path: the bundle, with a certificate of its own.
        certificates: parity.json files, as `edge-fer parity --output` writes them.
        output: the bundle to write; `path` itself is replaced when it is named.

    Raises:
        BundleError: the bundle has no certificate, or cannot be written there.
        InputError: a report is of another graph, another reference, or the class of the bundle's own, or is
            emulated where there is one from a board.
        GateFailed: a report did not pass.
    """
    bundle = Bundle.load(path)
    own = bundle_reports(bundle)
    if not own:
        raise BundleError(f"{path} has no certificate of its own: export it with --parity-data first")
    by_class = {cpu_class_of(report): report for report in own[1:]}
    for file in certificates:
        for report in read_reports(file):
            _check(report, own[0], file)
            _check_emulation(report, by_class.get(cpu_class_of(report)), file)
            by_class[cpu_class_of(report)] = report
    text = text_of(document(merge([own[0], *by_class.values()])))
    members = {name: bundle.member(name) for name in bundle.members} | {CERTIFICATE_FILE: text.encode()}
    return write_bundle(output, bundle.spec, members)


def _check_emulation(report: Json, known: Json | None, file: Path) -> None:
    if known is not None and emulated_of(report) and not emulated_of(known):
        raise InputError(
            f"{file}: expected a report of a real {cpu_class_of(report)}, as the bundle has one, got an "
            f"emulated one ({emulated_of(report)}): leave it out"
        )


def _check(report: Json, own: Json, file: Path) -> None:
    theirs, ours = report["bundle"], own["bundle"]
    assert isinstance(theirs, dict) and isinstance(ours, dict)
    if theirs["digest"] != ours["digest"]:
        raise InputError(
            f"{file}: expected a report of this bundle's graph ({str(ours['digest'])[:12]}…), got one of "
            f"{name_of(report)} ({str(theirs['digest'])[:12]}…)"
        )
    if report["reference"] != own["reference"]:
        raise InputError(
            f"{file}: expected a report against the bundle's own reference: run it without --reference"
        )
    if cpu_class_of(report) == cpu_class_of(own):
        raise InputError(
            f"{file}: expected a report of another class of processors, {cpu_class_of(own)} is that of the "
            "bundle's own: export the bundle again to renew it"
        )
    if report["verdict"] != "passed":
        verdict = f"{cpu_class_of(report)}: {report['verdict']}"
        raise GateFailed(f"{file}: expected a report that passed, got {verdict}: it stays out of the bundle")
