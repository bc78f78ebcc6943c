"""Judges a graph as a device would load it: its gates, its size and its speed beside the float graph's."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibrate.recipe import Recipe
from edge_fer.bundle import CERTIFICATE_FILE, GOLDEN_FILE, REFERENCE_FILE, Bundle, write_bundle
from edge_fer.engines import Engine, load_engine
from edge_fer.engines.base import run_all
from edge_fer.faces import FaceSet
from edge_fer.parity.comparison import Report
from edge_fer.parity.documents import text_of
from edge_fer.parity.exact import fp32_gate
from edge_fer.parity.gates import FLIPS, FP32, SPEED, Gate, Thresholds
from edge_fer.parity.report import Faces, run_parity
from edge_fer.parity.speed import latency_figures, speed_gate
from edge_fer.samples import Golden, Reference
from edge_fer.spec import ModelSpec
from edge_fer.tables import progress
from export.target import Graph

# Of the two graphs, one counted run each: a noisy machine meets both alike.
TURNS = 60


@dataclass(frozen=True, slots=True)
class ParitySet:
    """The faces an export is judged on, with the float network's answers."""

    faces: FaceSet
    crops: NDArray[np.uint8]
    reference: Reference


@dataclass(frozen=True, slots=True, eq=False)
class Speed:
    """Times of one face on this machine in turns with the float graph, each (R,) float64 in milliseconds."""

    turns_ms: NDArray[np.float64]
    float_turns_ms: NDArray[np.float64]

    @property
    def latency_ms(self) -> float:
        """The median."""
        return float(np.median(self.turns_ms))

    @property
    def ratio(self) -> float:
        """How many times faster than the float graph, by the medians."""
        return float(np.median(self.float_turns_ms)) / self.latency_ms


@dataclass(frozen=True, slots=True)
class Judged:
    """A graph with what was found of it.

    Attributes:
        rung: what it is: fp32, fp16, dynamic int8, static int8 ...
        graph: the files.
        spec: of the bundle it would make.
        report: its gates.
        speed: beside the float graph.
        notes: further keys of the certificate.
        recipe: what static int8 was made by; None for everything else.
    """

    rung: str
    graph: Graph
    spec: ModelSpec
    report: Report
    speed: Speed
    notes: Mapping[str, object] = field(default_factory=dict)
    recipe: Recipe | None = None

    @property
    def flips(self) -> float | None:
        """Share of parity faces whose label changed, None without parity data."""
        return next((gate.value for gate in self.report.gates if gate.name == FLIPS), None)


class Judge:
    """Measures graphs of one network on one engine.

    Args:
        spec: of the float bundle.
        graph: the float graph.
        golden: golden samples with PyTorch's answers.
        parity: the parity set; None without one.
    """

    def __init__(self, spec: ModelSpec, graph: Graph, golden: Golden, parity: ParitySet | None) -> None:
        self.golden, self.parity = golden, parity
        self.float_spec, self.float_graph = spec, graph
        with loaded(spec, graph.members) as (_, engine):
            self.exact = self.measure_fp32(engine)

    def measure_fp32(self, engine: Engine) -> Gate:
        """Compare the float graph on its own engine with PyTorch: golden samples and every parity face."""
        expected = [self.golden.probabilities]
        got = [engine.run(self.golden.crops).probabilities]
        if self.parity is not None:
            expected.append(self.parity.reference.probabilities)
            with progress("float graph against PyTorch", len(self.parity.crops)) as show:
                got.append(run_all(engine, self.parity.crops, show).probabilities)
        return fp32_gate(np.concatenate(expected), np.concatenate(got))

    def judge(self, rung: str, graph: Graph, spec: ModelSpec, notes: Mapping[str, object]) -> Judged:
        """Run every gate on a graph as a device would load it, and time it beside the float graph."""
        faces = Faces() if self.parity is None else Faces(self.parity.reference, self.parity.crops)
        with ExitStack() as stack:
            bundle, engine = stack.enter_context(loaded(spec, self.members(graph)))
            _, beside = stack.enter_context(loaded(self.float_spec, self.float_graph.members))
            speed = measure_speed(engine, beside, self.golden.crops[:1])
            gate = speed_gate(speed.turns_ms, speed.float_turns_ms, Thresholds())
            exported = {FP32: self.exact, SPEED: gate}
            total = 0 if faces.crops is None else len(faces.crops)
            show = stack.enter_context(progress(f"parity of {rung}", total))
            report = run_parity(bundle, engine, faces, exported=exported, progress=show)
        threads = report.environment["threads"]
        latency = latency_figures(
            speed.turns_ms, speed.float_turns_ms, gate, threads if isinstance(threads, int) else None
        )
        if spec.precision == "fp32":
            latency["verdict"] = None  # beside itself it is neither faster nor smaller
        report = replace(report, figures={**report.figures, "latency_ms": latency})
        return Judged(rung, graph, spec, report, speed, notes)

    def members(self, graph: Graph) -> dict[str, bytes]:
        """Return the members of a bundle of this graph, its certificate left out."""
        members = {**graph.members, GOLDEN_FILE: self.golden.to_bytes()}
        if self.parity is not None:
            members[REFERENCE_FILE] = self.parity.reference.to_bytes()
        return members

    def certified(self, judged: Judged) -> dict[str, bytes]:
        """Return the members of the judged graph's bundle, its certificate among them."""
        text = text_of({**judged.report.to_json(), **judged.notes})
        return {**self.members(judged.graph), CERTIFICATE_FILE: text.encode()}


@contextmanager
def loaded(spec: ModelSpec, members: Mapping[str, bytes]) -> Iterator[tuple[Bundle, Engine]]:
    """Write a bundle to a temporary folder and load it as a device does."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder) / "candidate.fer", spec, members)
        yield bundle, load_engine(bundle)


def measure_speed(engine: Engine, beside: Engine, crop: NDArray[np.uint8]) -> Speed:
    """Time one face (1, S, S, 3) on two engines in turns; the first run of each turn is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for one, found in zip((engine, beside), times, strict=True):
            one.run(crop)
            started = time.perf_counter()
            one.run(crop)
            found.append((time.perf_counter() - started) * 1e3)
    return Speed(np.array(times[0]), np.array(times[1]))
