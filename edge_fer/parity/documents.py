"""What is in a parity.json: reports, and the matrix of several, as JSON objects. Knows no file, no bundle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from edge_fer.parity.gates import Gate, Verdict, overall
from edge_fer.parity.schema import MATRIX, check_report

Json = Mapping[str, object]


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


def cpu_class_of(report: Json) -> str:
    """Return the class of CPUs that a report was made on."""
    environment = report["environment"]
    return str(environment["cpu_class"]) if isinstance(environment, dict) else ""


def emulated_of(report: Json) -> str | None:
    """Return what emulated the processor that a report was made on; None for a real one."""
    environment = report["environment"]
    emulated = environment.get("emulated") if isinstance(environment, dict) else None
    return str(emulated) if emulated else None


def place_of(report: Json) -> str:
    """Return the class of CPUs that a report was made on, and that it was emulated where it was."""
    return f"{cpu_class_of(report)} (emulated)" if emulated_of(report) else cpu_class_of(report)
