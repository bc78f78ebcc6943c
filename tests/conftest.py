"""Fixtures of several test modules: a tiny bundle that needs no torch, no onnx and no network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from edge_fer.bundle import Bundle, Golden, ModelSpec, Reference, write_bundle
from edge_fer.commands import app
from edge_fer.errors import BundleError
from edge_fer.faces import face_hash
from edge_fer.images import decode_image, encode_png
from edge_fer.labels import LABELS
from edge_fer.parity.comparison import Report
from edge_fer.parity.environment import environment
from edge_fer.parity.gates import Gate, Verdict
from edge_fer.preprocess import CropSpec, crop_face, crop_whole

MODELS = Path(__file__).parent / "models"
SIZE = 16

Outputs = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


@pytest.fixture(scope="session")
def playwright() -> Iterator[Any]:
    """Playwright, started once for all tests of a process: a second one would refuse to start beside it."""
    with pytest.importorskip("playwright.sync_api").sync_playwright() as started:
        yield started


@pytest.fixture(autouse=True)
def no_installed_detector(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the default detector the cascade, whatever the user of this machine has installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("EDGE_FER_YUNET", raising=False)


def refused(path: Path, reason: str) -> str:
    """Check that a bundle is refused in one short line for this reason, and return the line."""
    with pytest.raises(BundleError, match=reason) as error:
        Bundle.load(path)
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


def edit(path: Path, change: Callable[[dict[str, object]], object], sign: bool = True) -> None:
    """Change bundle.json as an attacker who knows the format would: with a new checksum."""
    file = path / "bundle.json"
    fields = json.loads(file.read_bytes())
    change(fields)
    file.write_bytes(signed(fields) if sign else json.dumps(fields).encode())


def signed(fields: dict[str, object]) -> bytes:
    text = json.dumps({**fields, "self_sha256": "0" * 64}).encode()
    return text.replace(
        b'"self_sha256": "' + b"0" * 64, b'"self_sha256": "' + hashlib.sha256(text).hexdigest().encode()
    )


def tiny_outputs(crops: NDArray[np.uint8]) -> Outputs:
    """Compute what tests/models/tiny.onnx answers, in float64 and without an engine."""
    quarters = crops.astype(np.float64).reshape(-1, 2, 8, 2, 8, 3).mean(axis=(2, 4)) / 255
    features = quarters.transpose(0, 3, 1, 2).reshape(len(crops), 12)
    logits = features @ (4 * np.sin(1 + np.arange(96.0).reshape(12, 8) ** 2))
    final, primary = (np.exp(x - x.max(axis=1, keepdims=True)) for x in (logits, logits / 2))
    final, primary = (x / x.sum(axis=1, keepdims=True) for x in (final, primary))
    reliability = 1 + (final * np.log(np.maximum(final, 1e-12))).sum(axis=1) / np.log(8)
    return final.astype(np.float32), primary.astype(np.float32), reliability.astype(np.float32)


@pytest.fixture(scope="session")
def tiny_graph() -> bytes:
    return (MODELS / "tiny.onnx").read_bytes()


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    return ModelSpec(
        model="tiny",
        labels=LABELS,
        input=CropSpec(size=SIZE, margin=0.1),
        outputs=("probabilities", "primary", "reliability"),
        target="onnx",
        engine="onnxruntime",
        precision="fp32",
        quantisation="none",
        quantised_ops={},
        float_ops={"MatMul": 1, "Softmax": 2},
        untrained=False,
        min_reliability=0.5,
        source={"checkpoint": None, "tools": {"numpy": np.__version__}},
        weights={"licence": "Apache-2.0", "data": "none"},
    )


def pattern(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return a smooth, coloured, seeded picture: uint8 (height, width, 3) RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return coarse[rows][:, columns].astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_golden(tiny_spec: ModelSpec) -> Golden:
    sources = tuple(encode_png(pattern(seed, 40 + seed, 48)) for seed in range(4))
    whole = np.array([True, True, True, False])
    boxes = np.zeros((4, 4), np.float32)
    boxes[3] = 8, 4, 24, 28
    images = [decode_image(source, "golden") for source in sources]
    crops = np.stack(
        [
            crop_whole(image, tiny_spec.input)
            if ready
            else crop_face(image, box.tolist(), None, tiny_spec.input)
            for image, box, ready in zip(images, boxes, whole, strict=True)
        ]
    )
    landmarks = np.full((4, 5, 2), np.nan, np.float32)
    return Golden(sources, boxes, landmarks, whole, crops, *tiny_outputs(crops))


@pytest.fixture(scope="session")
def tiny_faces(tiny_spec: ModelSpec) -> NDArray[np.uint8]:
    """Twelve crops, (12, 16, 16, 3) uint8 RGB: what the tiny bundle's reference knows."""
    return np.stack([crop_whole(pattern(100 + seed, 32, 32), tiny_spec.input) for seed in range(12)])


@pytest.fixture(scope="session")
def tiny_reference(tiny_faces: NDArray[np.uint8]) -> Reference:
    outputs = tiny_outputs(tiny_faces)
    labels = outputs[0].argmax(axis=1).astype(np.int16)
    labels[0] = -1
    hashes = np.array([face_hash(crop) for crop in tiny_faces])
    return Reference(labels, hashes, *outputs, "patterns", LABELS)


def certificate(verdict: Verdict = "passed", **changes: Any) -> dict[str, Any]:
    """A valid certificate of the tiny bundle, made on this machine but for what a test changes."""
    bundle = {"model": "tiny", "target": "onnx", "engine": "onnxruntime", "precision": "fp32"}
    report = Report(
        faces=12,
        gates=(
            Gate("preprocess", 0, None, 0, "passed", ""),
            Gate("flips", 0.01, (0.0, 0.02), 0.02, verdict, ""),
        ),
        figures={"flips": 0},
        bundle={**bundle, "labels": LABELS, "min_reliability": None, "digest": "0" * 64},
        environment=environment(),
    )
    return {**report.to_json(), **changes}


@pytest.fixture(scope="session")
def tiny_members(tiny_graph: bytes, tiny_golden: Golden, tiny_reference: Reference) -> dict[str, bytes]:
    return {
        "model.onnx": tiny_graph,
        "golden.npz": tiny_golden.to_bytes(),
        "reference.npz": tiny_reference.to_bytes(),
        "parity.json": json.dumps(certificate()).encode(),
    }


@pytest.fixture
def tiny_bundle(tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]) -> Path:
    """The path of a bundle folder that a test may damage."""
    return write_bundle(tmp_path / "tiny.fer", tiny_spec, tiny_members).path


def run_command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def json_lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def error_lines(result: Result) -> list[str]:
    assert "Traceback" not in result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]
