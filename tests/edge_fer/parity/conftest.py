"""A small world for parity: an engine that is a seeded linear map, its faces, golden samples and bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.bundle import Bundle, write_bundle
from edge_fer.engines.base import Outputs
from edge_fer.faces import face_hash
from edge_fer.images import encode_png
from edge_fer.labels import LABELS
from edge_fer.parity.gates import FP32, SPEED, Gate
from edge_fer.parity.report import Faces, run_parity
from edge_fer.preprocess import CropSpec, crop_face, crop_whole
from edge_fer.samples import Golden, Reference
from edge_fer.spec import ModelSpec

SIZE = 8
FACES = 1500
EXPORTED = {
    FP32: Gate(FP32, 1e-6, None, 1e-4, "passed", "max abs diff 1e-06"),
    SPEED: Gate(SPEED, 2.5, (2.4, 2.6), 1.2, "passed", "2.0 ms against 5.0 ms"),
}


def spec(precision: str = "int8", *, untrained: bool = False) -> ModelSpec:
    return ModelSpec(
        model="linear",
        labels=LABELS,
        input=CropSpec(size=SIZE, margin=0.1),
        outputs=("probabilities", "primary", "reliability"),
        target="onnx",
        engine="onnxruntime",
        precision=precision,
        quantisation="static" if precision == "int8" else "none",
        quantised_ops={},
        float_ops={},
        untrained=untrained,
        min_reliability=None,
        source={},
        weights={},
    )


def same(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits


@dataclass
class LinearEngine:
    """Softmax of a seeded linear map of the pixels; `change` is the fault a test plants into the logits."""

    name: str = "linear"
    change: Callable[[NDArray[np.float64]], NDArray[np.float64]] = same
    batches: list[int] = field(default_factory=list)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        assert images.dtype == np.uint8
        self.batches.append(len(images))
        weights = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, len(LABELS)))
        pixels = images.reshape(len(images), -1) / 255.0 - 0.5
        # One row at a time: BLAS may add up in another order for another batch, which is no fault.
        logits = np.stack([row @ weights for row in pixels])
        logits = self.change(logits)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
        entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1)
        return Outputs(p, p, (1 - entropy / np.log(len(LABELS))).astype(np.float32), None)

    def describe(self) -> dict[str, object]:
        return {"engine": self.name, "version": "0", "threads": 1}


@dataclass(frozen=True)
class World:
    """Faces with labels drawn from the model's own distribution, so that it is right about how sure it is."""

    crops: NDArray[np.uint8]
    reference: Reference
    golden: Golden

    def part(self, faces: int) -> Reference:
        return self.reference.rows(np.arange(faces))

    def bundle(
        self, path: Path, precision: str = "int8", *, untrained: bool = False, **more: bytes
    ) -> Bundle:
        members = {"model.onnx": b"graph", "golden.npz": self.golden.to_bytes()}
        members |= {f"{name}.json": data for name, data in more.items()}
        return write_bundle(path / "linear.fer", spec(precision, untrained=untrained), members)


@pytest.fixture(scope="session")
def world() -> World:
    generator = np.random.default_rng(11)
    crops = generator.integers(0, 256, (FACES, SIZE, SIZE, 3), dtype=np.uint8)
    outputs = LinearEngine().run(crops)
    drawn = generator.random((FACES, 1)) > np.cumsum(outputs.probabilities, axis=1)
    reference = Reference(
        labels=np.minimum(drawn.sum(axis=1), len(LABELS) - 1).astype(np.int16),
        hashes=np.array([face_hash(crop) for crop in crops]),
        probabilities=outputs.probabilities,
        primary=outputs.primary,
        reliability=outputs.reliability,
        name="drawn",
        names=LABELS,
    )
    return World(crops, reference, _golden(generator))


@pytest.fixture(scope="session")
def full_report(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a report that has everything, of an engine that answers a little differently."""
    engine = LinearEngine(change=lambda logits: logits + 0.02 * np.sin(40 * logits))
    sexes = ["f" if face % 3 else "m" for face in range(FACES)]
    faces = Faces(world.reference, world.crops, {"sex": sexes})
    bundle = world.bundle(tmp_path_factory.mktemp("full"))
    report = run_parity(bundle, engine, faces, exported=EXPORTED)
    attribution = {
        "flips": 2,
        "unrestored": 1,
        "blocks": [{"block": "encoder.a", "restored": 1, "share": 0.5, "broken": 0}],
        "faces": [
            {"face": 0, "hash": "0" * 64, "from": "fear", "to": "sadness", "restored_by": ["encoder.a"]}
        ],
    }
    return replace(report, details={**report.details, "attribution": attribution}).to_json()


def _golden(generator: np.random.Generator) -> Golden:
    pictures = [generator.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(4)]
    boxes = np.array([[3, 2, 9, 11]] * 4, np.float32)
    whole = np.array([False, False, True, True])
    rule = spec().input
    crops = np.stack(
        [
            crop_whole(picture, rule) if ready else crop_face(picture, tuple(box.tolist()), None, rule)
            for picture, box, ready in zip(pictures, boxes, whole, strict=True)
        ]
    )
    outputs = LinearEngine().run(crops)
    return Golden(
        sources=tuple(encode_png(picture) for picture in pictures),
        boxes=boxes,
        landmarks=np.full((4, 5, 2), np.nan, np.float32),
        whole=whole,
        crops=crops,
        probabilities=outputs.probabilities,
        primary=outputs.primary,
        reliability=outputs.reliability,
    )
