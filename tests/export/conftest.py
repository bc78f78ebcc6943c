"""Networks exported once a session, a small checkpoint that knows drawn classes, and faces to judge it on."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import cli
from edge_fer.bundle import CERTIFICATE_FILE, Bundle
from edge_fer.faces import load_crops, read_data
from edge_fer.images import encode_png
from edge_fer.labels import LABELS
from edge_fer.preprocess import CropSpec

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from export.onnx import export_onnx  # noqa: E402
from export.source import read_source  # noqa: E402
from export.target import Converted, load_target  # noqa: E402
from training.models import ExpressionNetwork, build  # noqa: E402
from training.models.checkpoint import save_checkpoint  # noqa: E402

SIZE = 32
PER_CLASS = 19
T = TypeVar("T")
Exporter = Callable[[ExpressionNetwork], onnx.ModelProto]
Converter = Callable[[str], Converted]
Command = Callable[..., "Result"]
# What a target is converted and run with, besides torch and onnx.
PACKAGES = {"onnx": (), "openvino": ("openvino", "nncf"), "tflite": ("litert_torch", "ai_edge_quantizer")}
TARGETS = tuple(PACKAGES)


class Result:
    """Exit code, lines of standard output and of standard error of a command."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code = code
        self.output = output.splitlines()
        self.errors = errors.splitlines()


def remember(export: Callable[..., T]) -> Callable[..., T]:
    """Return an export that converts the same modules with the same weights once only: that takes seconds."""
    known: dict[bytes, T] = {}

    def remembered(network: ExpressionNetwork, **options: object) -> T:
        digest = hashlib.sha256(f"{network.spec} {network} {options}".encode())
        for name, value in (*network.named_parameters(), *network.named_buffers()):
            digest.update(name.encode() + value.detach().numpy().tobytes())
        key = digest.digest()
        if key not in known:
            known[key] = export(network, **options)
        return copy.deepcopy(known[key])

    return remembered


@pytest.fixture(scope="session")
def exporter() -> Exporter:
    """`export_onnx` that remembers."""
    return remember(export_onnx)


@pytest.fixture(scope="session")
def tflite_exporter() -> Callable[..., bytes]:
    """`export_tflite` that remembers."""
    pytest.importorskip("litert_torch")
    pytest.importorskip("ai_edge_quantizer")
    from export.tflite import export_tflite

    return remember(export_tflite)


@pytest.fixture(scope="session")
def convert(request: pytest.FixtureRequest, small: ExpressionNetwork, exporter: Exporter) -> Converter:
    """The drawn-faces network in a target's format, converted once."""

    @functools.cache
    def converted(target: str) -> Converted:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("export.onnx.export_onnx", exporter)
            if target == "tflite":
                patch.setattr("export.tflite.export_tflite", request.getfixturevalue("tflite_exporter"))
            for package in PACKAGES[target]:
                pytest.importorskip(package)
            return load_target(target)(small)

    return converted


@pytest.fixture
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, exporter: Exporter) -> Command:
    """Run `python cli.py ...` in this process, with exports of known weights at hand."""
    monkeypatch.setattr("export.onnx.export_onnx", exporter)

    def run(*arguments: object) -> Result:
        if "tflite" in arguments:
            known = request.getfixturevalue("tflite_exporter")
            monkeypatch.setattr("export.tflite.export_tflite", known)
        done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit | click.ClickException):
            raise done.exception
        return Result(done.exit_code, done.stdout, done.stderr)

    return run


def draw_faces(folder: Path, seed: int, per_class: int = PER_CLASS) -> Path:
    """Draw a folder per class: one smooth pattern each, under seeded noise, gray 48-pixel PNG files.

    The contrast differs from face to face, so that a network is surer of some than of others.
    """
    patterns = np.random.default_rng(99).integers(40, 216, (len(LABELS), 6, 6))
    generator = np.random.default_rng(seed)
    for label, pattern in zip(LABELS, patterns, strict=True):
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            drawn = 128 + (np.kron(pattern, np.ones((8, 8))) - 128) * generator.uniform(0.5, 1.1)
            gray = drawn + generator.normal(0, 12, (48, 48))
            image = np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
            (folder / label / f"{number:03}.png").write_bytes(encode_png(image))
    return folder


@pytest.fixture(scope="session")
def train_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_faces(tmp_path_factory.mktemp("train"), seed=1)


@pytest.fixture(scope="session")
def valid_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_faces(tmp_path_factory.mktemp("valid"), seed=2)


@pytest.fixture(scope="session")
def lite() -> ExpressionNetwork:
    """The untrained grefel-lite that the name stands for."""
    return read_source("grefel-lite").network


@pytest.fixture(scope="session")
def small(train_faces: Path) -> ExpressionNetwork:
    """grefel-lite on 32 pixels; its anchors are the mean embeddings of the drawn classes: it knows all."""
    torch.manual_seed(5)
    network = build("grefel-lite", input_size=SIZE)
    faces = read_data(str(train_faces))
    crops = load_crops(faces, CropSpec(size=SIZE, margin=0.0))
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.no_grad():
        for _ in range(30):  # BatchNorm learns its statistics
            network.train()(images)
        network.eval()
        embeddings = network.forward_features(images)
        for index in range(len(LABELS)):
            members = embeddings[[face.label == index for face in faces.faces]]
            spread = 0.01 * torch.randn_like(network.head.anchor_correction.anchors[index])
            network.head.anchor_correction.anchors[index] = members.mean(dim=0) + spread
    return network


@pytest.fixture(scope="session")
def checkpoint(small: ExpressionNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    info = {"weights": {"licence": "CC0", "training_data": "drawn patterns"}}
    save_checkpoint(path, small, CropSpec(size=SIZE, margin=0.0), info)
    return path


def lasting(bundle: Bundle) -> tuple[object, ...]:
    """Return what comes again when a bundle is made again: all but the times in its certificate."""
    members = {name: bundle.member(name) for name in bundle.members if name != CERTIFICATE_FILE}
    certificate = bundle.certificate()
    assert certificate is not None
    figures = dict(certificate["figures"])  # type: ignore[call-overload]
    assert figures.pop("latency_ms")
    gates = [gate for gate in certificate["gates"] if gate["name"] != "speed"]  # type: ignore[attr-defined]
    return bundle.spec, members, {**certificate, "figures": figures, "gates": gates, "size_only": None}


def pictures(size: int, seed: int = 0, noise: int = 5) -> NDArray[np.uint8]:
    """Return seeded noise, black, white and a coloured gradient: uint8 (noise + 3, size, size, 3)."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    gradient = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], ramp[::-1, None]), axis=2)
    random = np.random.default_rng(seed).integers(0, 256, (noise, size, size, 3), dtype=np.uint8)
    flat = np.zeros((1, size, size, 3), np.uint8)
    return np.concatenate([random, flat, flat + 255, gradient[None]])
