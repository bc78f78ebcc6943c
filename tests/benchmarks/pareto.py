"""Set bundles side by side: what they recognise, by their certificates, against size and latency, by one run.

    python -m tests.benchmarks.pareto BUNDLE... --threads 1 --plot docs/pareto.png --json pareto.json

Prints a Markdown table. Every bundle needs a certificate over the same labelled faces (`export
--parity-data`); latencies are taken in turns, in one process per bundle.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_fer.bench.measure import BenchOptions, Candidate, measure
from edge_fer.bundle import Bundle
from edge_fer.engines.base import EngineOptions
from edge_fer.errors import EdgeFerError, InputError
from edge_fer.output import write_text
from edge_fer.parity.intervals import clopper_pearson
from edge_fer.tables import progress

PROTOCOL = "FER+ validation, 8 classes, arg max of the votes"
# Accuracies of others, each under its own protocol: lines to compare with, never rows of the table.
REFERENCES = (
    ("VGG13 of the FER+ authors, majority labels, test split", 0.8499),
    ("plain residual network, 1.5 M parameters, same protocol", 0.835),
    ("mini_XCEPTION, 58 k parameters, FER2013 test split", 0.66),
    ("mini_XCEPTION, FER+", 0.63),
)
MARKERS = {"onnxruntime": "o", "openvino": "s", "tflite": "^"}
COLUMNS = (
    *("model", "engine", "precision", "faces", "accuracy, 95 % interval", "mean recall", "ECE"),
    *("graph, MB", "p50, ms", "verdict", "on the front"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One bundle: figures of its certificate, then size and latency."""

    bundle: str
    model: str
    engine: str
    precision: str
    faces: int
    accuracy: float
    interval: tuple[float, float]
    mean_recall: float
    ece: float
    size_bytes: int
    p50_ms: float
    verdict: str


def certified(bundle: Bundle) -> dict[str, float]:
    """Return the figures of a bundle's certificate.

    Raises:
        InputError: it has none, or none over labelled faces.
    """
    certificate = bundle.certificate() or {}
    figures = certificate.get("figures")
    if not isinstance(figures, dict) or "accuracy" not in figures:
        raise InputError(f"{bundle.path}: expected a certificate over labelled faces: export --parity-data")
    return figures


def make_rows(paths: Sequence[Path], threads: int) -> list[Row]:
    """Read the certificates and time the bundles in turns."""
    figures = {path: certified(Bundle.load(path)) for path in paths}
    faces = {int(one["labelled_faces"]) for one in figures.values()}
    if len(faces) > 1:
        raise InputError(f"expected certificates over the same faces, got {sorted(faces)} faces")

    def refuse(error: EdgeFerError) -> None:
        raise error

    options = BenchOptions(engine=EngineOptions(threads=threads))
    with progress("measuring", 100) as show:
        measured = measure([Candidate.load(path) for path in paths], options, refuse, show)
    return [make_row(one.candidate, figures[one.candidate.path], one.percentile_ms(50.0)) for one in measured]


def make_row(candidate: Candidate, figures: dict[str, float], p50_ms: float) -> Row:
    """Put together what is known of a bundle."""
    faces, accuracy = int(figures["labelled_faces"]), float(figures["accuracy"])
    return Row(
        bundle=candidate.path.name,
        model=candidate.spec.model,
        engine=candidate.spec.engine,
        precision=candidate.spec.precision,
        faces=faces,
        accuracy=accuracy,
        interval=clopper_pearson(round(accuracy * faces), faces, two_sided=True),
        mean_recall=float(figures["mean_recall"]),
        ece=float(figures["ece"]),
        size_bytes=candidate.size_bytes,
        p50_ms=p50_ms,
        verdict=candidate.verdict,
    )


def front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other one beats in size, latency and accuracy together."""

    def beaten(one: Row) -> bool:
        ours = (one.size_bytes, one.p50_ms, -one.accuracy)
        others = ((other.size_bytes, other.p50_ms, -other.accuracy) for other in rows)
        return any(
            other != ours and all(a <= b for a, b in zip(other, ours, strict=True)) for other in others
        )

    return [row for row in rows if not beaten(row)]


def cells(row: Row, best: Sequence[Row]) -> tuple[str, ...]:
    """Return a row under `COLUMNS`."""
    low, high = row.interval
    return (
        *(row.model, row.engine, row.precision, f"{row.faces:,}"),
        f"{row.accuracy:.4f} ({low:.4f}–{high:.4f})",
        *(f"{row.mean_recall:.3f}", f"{row.ece:.4f}"),
        *(f"{row.size_bytes / 1e6:.2f}", f"{row.p50_ms:.2f}", row.verdict, "x" if row in best else ""),
    )


def draw(rows: Sequence[Row], threads: int, path: Path) -> None:
    """Draw accuracy over size and over latency: a colour per model, a shape per engine, hollow for float."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    colours = {model: f"C{index}" for index, model in enumerate(dict.fromkeys(row.model for row in rows))}
    for row in rows:
        errors = [[row.accuracy - row.interval[0]], [row.interval[1] - row.accuracy]]
        colour = colours[row.model]
        for axis, x in zip(axes, (row.size_bytes / 1e6, row.p50_ms), strict=True):
            filled = colour if row.precision == "int8" else "none"
            axis.errorbar(x, row.accuracy, yerr=errors, color=colour, alpha=0.35, linewidth=1)
            axis.scatter(x, row.accuracy, marker=MARKERS[row.engine], edgecolors=colour, facecolors=filled)
    shown = [reference for reference in REFERENCES if reference[1] > 0.8]
    for axis, name in zip(axes, ("graph, MB", f"p50 of one face, ms, {threads} thread(s)"), strict=True):
        axis.set_xscale("log")
        axis.set_xlabel(name)
        axis.grid(alpha=0.3, which="both")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        for _, accuracy in shown:
            axis.axhline(accuracy, color="gray", linestyle=":", linewidth=1)
    for name, accuracy in shown:
        place = {"xycoords": ("axes fraction", "data"), "fontsize": 7, "va": "top", "ha": "right"}
        axes[0].annotate(name, (0.99, accuracy), **place)
    axes[0].set_ylabel("accuracy")
    handles = [pyplot.Line2D([], [], color=c, marker="o", linestyle="", label=m) for m, c in colours.items()]
    handles += [
        pyplot.Line2D([], [], color="black", marker=marker, linestyle="", label=f"{engine}")
        for engine, marker in MARKERS.items()
        if any(row.engine == engine for row in rows)
    ]
    handles.append(
        pyplot.Line2D([], [], color="black", marker="o", linestyle="", fillstyle="none", label="not int8")
    )
    axes[1].legend(handles=handles, fontsize=8, loc="lower right")
    figure.suptitle(f"{PROTOCOL}; bars: 95 % intervals", fontsize=10)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--json", type=Path, help="where the rows go as JSON, too")
    given = parser.parse_args()
    try:
        rows = make_rows(given.bundles, given.threads)
    except EdgeFerError as error:
        raise SystemExit(f"error: {error}") from None
    rows.sort(key=lambda row: (row.model, row.engine, row.precision))
    best = front(rows)
    print(f"{PROTOCOL}; {given.threads} thread(s), batch 1, in turns.\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows:
        print(f"| {' | '.join(cells(row, best))} |")
    print("\nFor comparison, each under its own protocol:\n")
    for name, accuracy in REFERENCES:
        print(f"* {name}: {accuracy:.4g}")
    if given.json:
        text = {"protocol": PROTOCOL, "rows": [asdict(row) for row in rows], "references": REFERENCES}
        write_text(given.json, json.dumps(text, indent=2) + "\n")
    if given.plot:
        draw(rows, given.threads, given.plot)


if __name__ == "__main__":
    main()
