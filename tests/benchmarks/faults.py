"""Plants faults into the shipped graphs and prints which gates fail, as Markdown for docs/parity.md.

Run from the checkout: python -m tests.benchmarks.faults
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge_fer.parity.table import table_rows
from tests.export import faults
from tests.export.shipped import make_shipped, report_of

GRAPHS = ("float", "int8")
PLANTS = {
    faults.swap_red_and_blue: GRAPHS,
    faults.shift_mean: GRAPHS,
    faults.shift_std: GRAPHS,
    faults.perturb_happiness: GRAPHS,
    faults.double_a_scale: ("int8",),
    faults.leak_the_batch: GRAPHS,
    faults.permute_labels: GRAPHS,
    faults.heat: GRAPHS,
}


def main() -> None:
    """Print a line for every fault: the gates that fail, with what the first of them says."""
    print("| fault | graph | gates that fail | what the first says |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        shipped = make_shipped(Path(folder))
        for plant, graphs in PLANTS.items():
            for graph in graphs:
                bundle = shipped.float_bundle if graph == "float" else shipped.int8_bundle
                report = report_of(bundle, shipped.faces, Path(folder), plant)
                failed = [row for row in table_rows(report.gates) if row[4] == "failed"]
                said = f"{failed[0][1]}: {failed[0][5]}" if failed else ""
                name = (plant.__doc__ or "").splitlines()[0].rstrip(".")
                names = ", ".join(row[0] for row in failed) or f"none: {report.verdict}"
                print(f"| {name} | {graph} | {names} | {said} |")


if __name__ == "__main__":
    main()
