"""Makes the graphs of one network for one target, in every precision, and has them judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

import edge_fer
from calibrate.manifest import CalibrationSet
from calibrate.recipe import Recipe
from calibrate.stability import check_stability
from edge_fer.cli_errors import notice
from edge_fer.engines import Outputs
from edge_fer.parity import metrics
from edge_fer.samples import Golden
from edge_fer.spec import OUTPUTS, ModelSpec
from edge_fer.tables import print_table, progress
from export.ladder import COLUMNS, Ladder, climb, row
from export.measure import Judge, Judged, ParitySet, loaded
from export.options import DYNAMIC, ExportOptions, read_recipe
from export.reference import TorchAnswers
from export.source import Source
from export.target import Converted, Graph
from training.models import ExpressionNetwork

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
        return self.judged(name, graph, "int8", extra)

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
            blocks=blocks(self.source.network),
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

    def answer(self, graph: Graph, crops: NDArray[np.uint8]) -> Outputs:
        """Run an int8 graph on faces as a device would."""
        with loaded(self.spec(graph, "int8"), graph.members) as (_, engine):
            return engine.run(crops)

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
            outputs=OUTPUTS,
            target=self.options.target,
            engine=self.converted.engine,
            precision=precision,
            quantisation=graph.quantisation,
            quantised_ops=graph.quantised_ops,
            float_ops=graph.float_ops,
            untrained=source.untrained,
            min_reliability=None,
            source={"checkpoint_sha256": source.sha256, "calibration_sha256": manifest, "tools": tools},
            weights=source.weights,
            float_compute=graph.float_compute,
        )


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
