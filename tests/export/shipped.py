"""The committed checkpoint as a float bundle, the embedded int8 one, and drawn faces with its answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.bundle import Bundle, default_bundle, write_bundle
from edge_fer.engines import EngineOptions, load_engine
from edge_fer.faces import face_hash
from edge_fer.images import read_image
from edge_fer.parity.comparison import Report
from edge_fer.parity.gates import FP32, SPEED, Gate
from edge_fer.parity.report import Faces, run_parity
from edge_fer.samples import Reference
from export.golden import cut_face, make_golden, synthetic_samples
from export.onnx import OnnxGraphs
from export.reference import TorchAnswers
from export.source import read_source
from tests.export import faults

PHOTO = Path(__file__).parents[2] / "examples" / "astronaut.jpg"
FACES = 1300  # about the fewest on which all gates can pass
EXPORTED = {
    FP32: Gate(FP32, 1e-6, None, 1e-4, "passed", "max abs diff 1e-06"),
    SPEED: Gate(SPEED, 2.0, (1.9, 2.1), 1.2, "passed", "half the time"),
}


@dataclass(frozen=True)
class Shipped:
    """The committed checkpoint as a float bundle, the embedded int8 one, and faces with its answers."""

    float_bundle: Bundle
    int8_bundle: Bundle
    faces: Faces


def bent_faces(size: int) -> NDArray[np.uint8]:
    """Return (FACES, S, S, 3) uint8 RGB: the demo photo's face, bent and lit at random, in colour."""
    image = read_image(PHOTO)
    picture, (x, y, width, height) = cut_face(image)
    cut = picture[int(y) : int(y + height), int(x) : int(x + width)]
    face = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA)
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)

    def field(cells: int, strength: float) -> NDArray[np.float32]:
        drawn = generator.normal(size=(cells, cells)).astype(np.float32) * generator.uniform(0, strength)
        return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_CUBIC)

    faces = np.empty((FACES, size, size, 3), np.uint8)
    for index in range(FACES):
        bent = cv2.remap(
            face, columns + field(5, 8), rows + field(5, 8), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        lit = bent * generator.uniform(0.5, 1.3) + field(3, 40)[..., None]
        faces[index] = np.clip(lit[:, :: generator.choice([-1, 1])], 0, 255)
    return faces


def make_shipped(folder: Path) -> Shipped:
    """Export the committed checkpoint in float, and let it answer to the bent faces.

    Labels are drawn from its own distributions, so that it is right about how sure it is.
    """
    source = read_source(None)
    answer = TorchAnswers(source.network)
    crops = bent_faces(source.crop.size)
    answers = answer(crops)
    drawn = np.random.default_rng(1).random((FACES, 1)) > np.cumsum(answers.probabilities, axis=1)
    names = source.network.spec.labels
    reference = Reference(
        labels=np.minimum(drawn.sum(axis=1), len(names) - 1).astype(np.int16),
        hashes=np.array([face_hash(crop) for crop in crops]),
        probabilities=answers.probabilities,
        primary=answers.primary,
        reliability=answers.reliability,
        name="bent",
        names=names,
    )
    int8 = Bundle.load(default_bundle())
    spec = dataclasses.replace(
        int8.spec, precision="fp32", quantisation="none", quantised_ops={}, min_reliability=None
    )
    golden = make_golden(synthetic_samples(), source.crop, answer)
    members = {**OnnxGraphs(source.network).float_graph().members, "golden.npz": golden.to_bytes()}
    return Shipped(write_bundle(folder / "fp32.fer", spec, members), int8, Faces(reference, crops))


def report_of(bundle: Bundle, faces: Faces, tmp_path: Path, plant: faults.Plant | None = None) -> Report:
    """Run every gate on a bundle with a fault in its graph."""
    graph = bundle.graph if plant is None else faults.planted(bundle.graph, plant)
    members = {"model.onnx": graph, "golden.npz": bundle.member("golden.npz")}
    spoilt = write_bundle(tmp_path / "spoilt.fer", bundle.spec, members)
    return run_parity(spoilt, load_engine(spoilt, EngineOptions(threads=1)), faces, exported=EXPORTED)
