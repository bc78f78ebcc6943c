"""Judges a graph as a device would load it: its gates, its size and its speed beside the float graph's."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import CERTIFICATE_FILE, GOLDEN_FILE, REFERENCE_FILE, Bundle, write_bundle
from edge_fer.engines import Engine, load_engine
from edge_fer.faces import FaceSet
from edge_fer.parity.report import Gate, Report, fp32_gate, run_parity
from edge_fer.samples import Golden, Reference
from edge_fer.spec import ModelSpec
from edge_fer.tables import progress
from export.target import Graph

BATCH = 64
# Turns of the two graphs, and runs in each: a noisy machine meets both alike.
TURNS, RUNS = 12, 8
# Below this speed against float a graph is worth its size only.
FASTER = 1.2


@dataclass(frozen=True, slots=True)
class ParitySet:
    """The faces an export is judged on, with the float network's answers."""

    faces: FaceSet
    crops: NDArray[np.uint8]
    reference: Reference


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians of one face on this machine, in turns, with the engine's own choice of threads."""

    latency_ms: float
    float_ms: float

    @property
    def ratio(self) -> float:
        """How many times faster than the float graph."""
        return self.float_ms / self.latency_ms

    def to_json(self) -> dict[str, object]:
        """Return what a certificate says of it."""
        verdict = "faster" if self.ratio >= FASTER else "size only"
        return {"p50": self.latency_ms, "fp32_p50": self.float_ms, "ratio": self.ratio, "verdict": verdict}


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
    """

    rung: str
    graph: Graph
    spec: ModelSpec
    report: Report
    speed: Speed
    notes: Mapping[str, object] = field(default_factory=dict)

    @property
    def flips(self) -> float | None:
        """Share of parity faces whose label changed, None without parity data."""
        return next((gate.value for gate in self.report.gates if gate.name == "flips"), None)


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
                for start in range(0, len(self.parity.crops), BATCH):
                    got.append(engine.run(self.parity.crops[start : start + BATCH]).probabilities)
                    show(start + BATCH)
        return fp32_gate(np.concatenate(expected), np.concatenate(got))

    def judge(self, rung: str, graph: Graph, spec: ModelSpec, notes: Mapping[str, object]) -> Judged:
        """Run every gate on a graph as a device would load it, and time it beside the float graph."""
        crops = None if self.parity is None else self.parity.crops
        with ExitStack() as stack:
            bundle, engine = stack.enter_context(loaded(spec, self.members(graph)))
            show = stack.enter_context(progress(f"parity of {rung}", 0 if crops is None else len(crops)))
            report = run_parity(
                bundle=bundle,
                engine=engine,
                reference=None if self.parity is None else self.parity.reference,
                crops=crops,
                fp32_gate=self.exact,
                progress=show,
            )
            _, beside = stack.enter_context(loaded(self.float_spec, self.float_graph.members))
            speed = measure_speed(engine, beside, self.golden.crops[:1])
        latency = {**speed.to_json(), "threads": engine.describe().get("threads")}
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
        certificate = {**judged.report.to_json(), **judged.notes}
        text = json.dumps(certificate, indent=2, allow_nan=False) + "\n"
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
            for _ in range(RUNS):
                started = time.perf_counter()
                one.run(crop)
                found.append((time.perf_counter() - started) * 1e3)
    latency_ms, float_ms = (float(np.median(found)) for found in times)
    return Speed(latency_ms, float_ms)
