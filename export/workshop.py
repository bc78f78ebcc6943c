"""Makes the graphs of one network for one target, in every precision, and has them judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from torch import nn

import edge_fer
from calibrate.manifest import CalibrationSet
from calibrate.recipe import Recipe, covers
from calibrate.stability import check_stability
from edge_fer.cli_errors import notice
from edge_fer.engines import Outputs
from edge_fer.engines.base import run_all
from edge_fer.errors import CalibrationError
from edge_fer.parity import metrics
from edge_fer.parity.gates import Thresholds
from edge_fer.parity.risk import abstention_threshold
from edge_fer.samples import Golden
from edge_fer.spec import OPTIONAL_OUTPUTS, OUTPUTS, ModelSpec
from edge_fer.tables import print_table, progress
from export.attribution import BLOCK_COLUMNS, attribute
from export.ladder import COLUMNS, Ladder, climb, row
from export.measure import Judge, Judged, ParitySet, loaded
from export.options import DYNAMIC, ExportOptions, read_recipe
from export.reference import TorchAnswers
from export.source import Source
from export.target import Converted, Graph
from training.models import ExpressionNetwork

# Fewest faces that an abstention threshold is taken from.
LEAST_FACES = 100
# Calibration faces on which the ladder asks which block hurts.
HARM_FACES = 64


class Workshop:
    """Makes and judges the graphs of one network for one target."""

    def __init__(
        self,
        options: ExportOptions,
        source: Source,
        converted: Converted,
        calibration: CalibrationSet | None,
        golden: Golden,
        parity: ParitySet | None,
    ) -> None:
        self.options, self.source, self.converted, self.calibration = options, source, converted, calibration
        self.recipe = converted.default_recipe
        if options.recipe != DYNAMIC:
            self.recipe = read_recipe(options.recipe, self.recipe)
        self.min_reliability = min_reliability(source, parity)
        graph = converted.float_graph()
        self.judge = Judge(self.spec(graph, "fp32"), graph, golden, parity)

    def make(self, precision: str) -> Judged:
        """Make and judge the graph of a precision."""
        if precision == "fp32":
            return self.judged("fp32", self.judge.float_graph, "fp32")
        if precision == "fp16":
            return self.judged("fp16", self.converted.half_graph(), "fp16")
        if self.options.recipe == DYNAMIC:
            return self.judged("dynamic int8", self.converted.dynamic_graph(), "int8")
        return self.static(frozenset())

    def static(self, float_blocks: frozenset[str]) -> Judged:
        """Make and judge static int8, with these modules in float."""
        recipe = replace(self.recipe, float_modules=self.recipe.float_modules | float_blocks)
        name = "static int8" if not float_blocks else f"static int8, float {', '.join(sorted(float_blocks))}"
        assert self.calibration is not None
        graph = self.quantise(self.calibration.crops, recipe)
        extra: dict[str, object] = {"recipe": recipe.to_json()}
        if self.calibration.warning:
            extra["warning"] = self.calibration.warning
        if self.options.stability:
            extra["stability"] = self.stability(recipe)
        return replace(self.judged(name, graph, "int8", extra), recipe=recipe)

    def quantise(self, crops: NDArray[np.uint8], recipe: Recipe) -> Graph:
        """Quantise the encoder statically; every target raises when nothing was quantised."""
        with progress("calibrating", len(crops)) as show:
            return self.converted.int8_graph(crops, recipe, show)

    def judged(
        self, rung: str, graph: Graph, precision: str, extra: Mapping[str, object] | None = None
    ) -> Judged:
        """Judge a graph of this target."""
        return self.judge.judge(rung, graph, self.spec(graph, precision), extra or {})

    def climb(self) -> Judged:
        """Climb the ladder, print every rung, and return the fastest that passes, the others in its notes."""
        judged: list[Judged] = []
        said: list[str] = []

        def tell(news: Judged | str) -> None:
            if isinstance(news, Judged):
                judged.append(news)
            else:
                said.append(news)

        ladder = Ladder(
            rungs=(
                ("fp32", lambda: self.make("fp32")),
                ("fp16", lambda: self.make("fp16")),
                ("dynamic int8", lambda: self.judged("dynamic int8", self.converted.dynamic_graph(), "int8")),
            ),
            static=self.static,
            blocks=[b for b in blocks(self.source.network) if not covers(self.recipe.float_modules, b)],
            harm=self.harm(),
        )
        try:
            chosen = climb(ladder, tell)
        finally:
            print_table("Precision ladder", COLUMNS, [row(one) for one in judged])
            for sentence in said:
                notice(sentence)
        rungs = [dict(zip(COLUMNS, row(one), strict=True)) for one in judged]
        return replace(chosen, notes={**chosen.notes, "ladder": {"rungs": rungs, "skipped": said}})

    def harm(self) -> Callable[[str], float]:
        """Return how to measure the harm that a block's int8 does, on some of the calibration faces."""
        assert self.calibration is not None
        crops = self.calibration.crops
        faces = crops[:HARM_FACES]
        expected = TorchAnswers(self.source.network)(faces).probabilities

        def divergence(float_modules: frozenset[str]) -> float:
            recipe = replace(self.recipe, float_modules=self.recipe.float_modules | float_modules)
            got = self.answer(self.quantise(faces, recipe), faces).probabilities
            return float(metrics.jensen_shannon(expected, got).mean())

        whole = cache(lambda: divergence(frozenset()))
        return lambda block: whole() - divergence(frozenset({block}))

    def stability(self, recipe: Recipe) -> dict[str, object]:
        """Quantise on either half of the calibration faces and compare the answers on the parity set."""
        assert self.calibration is not None and self.judge.parity is not None
        parity = self.judge.parity
        found = check_stability(
            lambda crops: self.quantise(crops, recipe),
            self.answer,
            self.calibration.crops,
            parity.crops,
            labels=parity.reference.labels,
            seed=self.options.seed,
        )
        return found.to_json()

    def attributed(self, judged: Judged) -> Judged:
        """Find which block's quantiser cost labels, print it, and put it into the graph's report."""
        if judged.graph.quantisation == "none":
            notice(f"no attribution: {judged.rung} was taken, which quantises nothing")
            return judged
        assert self.judge.parity is not None
        parity = self.judge.parity

        def undo(block: str, faces: NDArray[np.uint8]) -> NDArray[np.float32] | None:
            graph = self.without_quantiser(judged, block)
            if graph.members == judged.graph.members:
                return None
            return self.answer(graph, faces).probabilities

        parts = units(self.source.network)
        got = self.answer(judged.graph, parity.crops).probabilities
        with progress("attribution", len(parts)) as show:
            found = attribute(parity.reference, got, parity.crops, parts, undo, show)
        print_table(found.title, BLOCK_COLUMNS, found.rows())
        for block, reason in found.skipped.items():
            notice(f"attribution leaves {block} out: {reason}")
        details = {**judged.report.details, "attribution": found.to_json()}
        return replace(judged, report=replace(judged.report, details=details))

    def without_quantiser(self, judged: Judged, block: str) -> Graph:
        """Make an int8 graph again with one more block in float, everything else as it was.

        Raises:
            CalibrationError: no operator comes from the block, or nothing is left to quantise.
        """
        if judged.recipe is None:
            return self.converted.dynamic_graph(frozenset({block}))
        assert self.calibration is not None
        recipe = replace(judged.recipe, float_modules=judged.recipe.float_modules | {block})
        return self.converted.int8_graph(self.calibration.crops, recipe, None)

    def answer(self, graph: Graph, crops: NDArray[np.uint8]) -> Outputs:
        """Run an int8 graph on faces as a device would."""
        with loaded(self.spec(graph, "int8"), graph.members) as (_, engine):
            return run_all(engine, crops)

    def spec(self, graph: Graph, precision: str) -> ModelSpec:
        """Describe a graph's bundle for the runtime."""
        tools: dict[str, object] = {name: version(name) for name in self.converted.packages}
        tools["edge-fer"] = edge_fer.__version__
        calibrated = self.calibration is not None and graph.quantisation == "static"
        manifest = self.calibration.sha256() if calibrated and self.calibration else None
        source = self.source
        return ModelSpec(
            model=source.network.spec.model,
            labels=source.network.spec.labels,
            input=source.crop,
            outputs=OUTPUTS + OPTIONAL_OUTPUTS if self.options.embedding else OUTPUTS,
            target=self.options.target,
            engine=self.converted.engine,
            precision=precision,
            quantisation=graph.quantisation,
            quantised_ops=graph.quantised_ops,
            float_ops=graph.float_ops,
            untrained=source.untrained,
            min_reliability=self.min_reliability,
            source={"checkpoint_sha256": source.sha256, "calibration_sha256": manifest, "tools": tools},
            weights=source.weights,
            float_compute=graph.float_compute,
        )


def min_reliability(source: Source, parity: ParitySet | None) -> float | None:
    """Return the abstention threshold of a bundle: the float network keeps 80 % of the parity faces at it.

    The same share that a report takes where a bundle names none (`Thresholds.coverage`), rounded down to four
    digits. None for untrained weights and for too few faces to tell.
    """
    if source.untrained or parity is None or len(parity.crops) < LEAST_FACES:
        return None
    threshold = abstention_threshold(parity.reference.reliability, Thresholds().coverage)
    return math.floor(threshold * 1e4) / 1e4


def blocks(network: ExpressionNetwork) -> list[str]:
    """Return the encoder's blocks as module paths: its parts, opened once where they are made of parts."""
    found = []
    for name, part in network.encoder.named_children():
        inner = [child for child, module in part.named_children() if any(True for _ in module.children())]
        if inner:
            found += [f"encoder.{name}.{child}" for child in inner]
        elif any(True for _ in part.children()):
            found.append(f"encoder.{name}")
    return found


def check_float_modules(modules: Collection[str], network: ExpressionNetwork) -> None:
    """Refuse paths that are no part of the encoder, before anything is computed with the others.

    Raises:
        CalibrationError: names the first of them.
    """
    parts = {f"encoder.{name}" for name, _ in network.encoder.named_modules() if name}
    for module in sorted(modules):
        if module not in parts:
            raise CalibrationError(
                f"--recipe float_modules: expected parts of the encoder of {network.spec.model}, such "
                f"as {blocks(network)[-1]}, got {module}"
            )


def units(network: ExpressionNetwork) -> list[str]:
    """Return the encoder's blocks as finely as its lists of parts go: single residual or attention blocks."""
    return [unit for path in blocks(network) for unit in opened(path, network.get_submodule(path))]


def opened(path: str, module: nn.Module) -> list[str]:
    """Return the parts of a module that is nothing but a list of parts, or the module itself."""
    parts = dict(module.named_children()) if type(module) in (nn.Sequential, nn.ModuleList) else {}
    if not parts or not all(any(True for _ in part.children()) for part in parts.values()):
        return [path]
    return [unit for name, part in parts.items() for unit in opened(f"{path}.{name}", part)]
