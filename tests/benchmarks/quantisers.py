"""Compare the quantisers' recipes on one network: accuracy, changed labels, divergence, time to quantise.

Prints a Markdown table: each recipe quantises the encoder on calibration faces chosen with several seeds, and
is judged against the float network on the parity faces. Figures are means over the seeds; of the changed
labels the least and the most are given, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibrate.manifest import SAMPLES, choose_faces
from calibrate.recipe import Recipe
from edge_fer.engines.base import Engine
from edge_fer.faces import face_hash, load_crops, read_data
from edge_fer.parity import metrics
from export.reference import TorchAnswers
from export.source import Source, read_source

Crops = NDArray[np.uint8]
Quantiser = Callable[[Crops], Engine]
BATCH = 32


@dataclass(frozen=True, slots=True)
class Judged:
    """The parity faces with the float network's answers."""

    crops: Crops
    labels: NDArray[np.int64]
    expected: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Figures:
    """One int8 graph against the float network; accuracy 0..1, divergences in nat."""

    accuracy: float
    flips: int
    sure_flips: int
    divergence: float
    largest: float
    seconds: float


def static_recipes(default: Recipe, *changes: Mapping[str, object]) -> dict[str, Recipe]:
    """Name each change of a target's default recipe by what it changes."""
    recipes = {"default": default}
    for change in changes:
        recipes[", ".join(f"{key}={value}" for key, value in change.items())] = replace(default, **change)  # type: ignore[arg-type]
    return recipes


def onnx_quantisers(source: Source) -> Iterator[tuple[str, Quantiser]]:
    """Yield the name of every recipe for ONNX Runtime with what makes its engine from calibration faces."""
    from calibrate.onnx import DEFAULT, quantise
    from edge_fer.engines.onnxruntime import OnnxRuntimeEngine
    from export.onnx import OnnxGraphs

    graphs = OnnxGraphs(source.network)
    recipes = static_recipes(
        DEFAULT,
        {"float_first": False},
        {"ranges": "minmax"},
        {"ranges": "entropy"},
        {"weights": "s8"},
        {"weights": "s8", "activations": "s8"},
        {"weights": "s8", "activations": "s8", "symmetric": True},
    )
    for name, recipe in recipes.items():
        yield (
            name,
            lambda crops, recipe=recipe: OnnxRuntimeEngine.from_bytes(
                quantise(graphs.model, graphs.encoder, crops, recipe=recipe).SerializeToString()
            ),
        )


def openvino_quantisers(source: Source) -> Iterator[tuple[str, Quantiser]]:
    """Yield the name of every recipe for NNCF with what makes its engine from calibration faces."""
    from calibrate.openvino import DEFAULT, quantise
    from edge_fer.engines.openvino import OpenVinoEngine
    from export.openvino import GRAPH, WEIGHTS, OpenVinoGraphs, members

    graphs = OpenVinoGraphs(source.network)

    def make(crops: Crops, recipe: Recipe) -> Engine:
        files = members(quantise(graphs.model, graphs.encoder, crops, recipe=recipe))
        return OpenVinoEngine.from_bytes(files[GRAPH], files[WEIGHTS])

    recipes = static_recipes(
        DEFAULT,
        {"float_first": False},
        {"ranges": "mean"},
        {"ranges": "percentile"},
        {"ranges": "mse"},
        {"symmetric": True},
        {"bias_correction": "fast"},
        {"bias_correction": "slow"},
        {"weights": "s8"},
    )
    for name, recipe in recipes.items():
        yield name, lambda crops, recipe=recipe: make(crops, recipe)


def tflite_quantisers(source: Source) -> Iterator[tuple[str, Quantiser]]:
    """Yield the name of every recipe for AI Edge Quantizer with what makes its engine from faces."""
    from calibrate.tflite import DEFAULT, quantise, quantise_dynamic
    from edge_fer.engines.tflite import TfliteEngine
    from export.tflite import ENCODER, TfliteGraphs

    graph = TfliteGraphs(source.network).graph
    recipes = static_recipes(DEFAULT, {"float_first": False}, {"ranges": "mean"}, {"symmetric": True})
    for name, recipe in recipes.items():
        yield (
            name,
            lambda crops, recipe=recipe: TfliteEngine.from_bytes(
                quantise(graph, ENCODER, crops, recipe=recipe)
            ),
        )
    yield "dynamic", lambda _: TfliteEngine.from_bytes(quantise_dynamic(graph, ENCODER))


TARGETS = {"onnx": onnx_quantisers, "openvino": openvino_quantisers, "tflite": tflite_quantisers}


def measure(quantiser: Quantiser, crops: Crops, judged: Judged) -> Figures:
    """Quantise on the calibration faces and answer every parity face."""
    started = time.perf_counter()
    engine = quantiser(crops)
    seconds = time.perf_counter() - started
    parts = [engine.run(judged.crops[start : start + BATCH]) for start in range(0, len(judged.crops), BATCH)]
    got = np.concatenate([part.probabilities for part in parts])
    changed = metrics.flips(judged.expected, got)
    divergence = metrics.jensen_shannon(judged.expected, got)
    return Figures(
        accuracy=metrics.accuracy(got, judged.labels),
        flips=int(changed.sum()),
        sure_flips=int(changed[metrics.surest_half(judged.expected)].sum()),
        divergence=float(divergence.mean()),
        largest=float(divergence.max()),
        seconds=seconds,
    )


def row(target: str, name: str, measured: list[Figures]) -> str:
    """Return a line of the table."""

    def mean(field: str) -> float:
        return statistics.mean(getattr(one, field) for one in measured)

    flips = [one.flips for one in measured]
    return (
        f"| {target} | {name} | {mean('accuracy'):.4f} | {mean('flips'):.1f} ({min(flips)}–{max(flips)}) "
        f"| {mean('sure_flips'):.1f} | {mean('divergence'):.1e} | {mean('largest'):.1e} "
        f"| {mean('seconds'):.0f} |"
    )


def read_judged(data: str, source: Source) -> Judged:
    """Read the parity faces and let the float network answer them."""
    faces = read_data(data)
    crops = load_crops(faces, source.crop)
    labels = np.array([face.label for face in faces.faces], np.int64)
    return Judged(crops, labels, TorchAnswers(source.network)(crops).probabilities)


def choose(data: str, source: Source, judged: Judged, seeds: int) -> list[Crops]:
    """Choose calibration faces once per seed, none of them a parity face."""
    faces = read_data(data)
    exclude = {face_hash(crop) for crop in judged.crops}
    return [
        choose_faces(faces, source.crop, samples=SAMPLES, seed=seed, exclude=exclude, explicit=False).crops
        for seed in range(seeds)
    ]


def main() -> None:
    """Measure every recipe of the targets that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calibration-data", required=True, help="DATA to calibrate on")
    parser.add_argument("--parity-data", required=True, help="DATA to be judged on, with labels")
    parser.add_argument("--checkpoint", help="default: the committed one")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="choices of calibration faces")
    options = parser.parse_args()
    source = read_source(options.checkpoint)
    judged = read_judged(options.parity_data, source)
    chosen = choose(options.calibration_data, source, judged, options.seeds)
    accuracy = metrics.accuracy(judged.expected, judged.labels)
    print(
        f"{source.network.spec.model}: float accuracy {accuracy:.4f} on {len(judged.crops)} faces; ", end=""
    )
    print(f"calibrated on {SAMPLES} faces, {options.seeds} choices of them.\n")
    print("| target | recipe | accuracy | flips | flips, surest half | mean JS | largest JS | s |")
    print("|---|---|---|---|---|---|---|---|")
    for target in options.target or TARGETS:
        for name, quantiser in TARGETS[target](source):
            print(row(target, name, [measure(quantiser, crops, judged) for crops in chosen]), flush=True)


if __name__ == "__main__":
    main()
