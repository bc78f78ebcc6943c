"""Checkpoints: bit-exact round trips, and every file that is not one refused in one line."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_fer.errors import CheckpointError
from edge_fer.preprocess import FERPLUS_TEMPLATE, CropSpec
from training.models import ExpressionNetwork, build
from training.models import checkpoint as module
from training.models.checkpoint import load_checkpoint, save_checkpoint

CROP = CropSpec(size=32, margin=0.1, alignment="five-point", template=FERPLUS_TEMPLATE)
INFO = {"epoch": 3, "recipe": {"name": "x"}, "validation": {"accuracy": 0.1 + 0.2}}


@pytest.fixture(scope="module")
def network() -> ExpressionNetwork:
    torch.manual_seed(1)
    network = build("grefel-lite", classes=7, input_size=32)
    network(torch.randn(4, 3, 32, 32))  # moves the running statistics away from their start
    return network.eval()


@pytest.fixture
def saved(tmp_path: Path, network: ExpressionNetwork) -> Path:
    path = tmp_path / "new" / "best.safetensors"
    save_checkpoint(path, network, CROP, INFO)
    return path


def refusal(path: Path) -> str:
    """Return the one line that says why a file is refused."""
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text and len(text) < 500
    return text


def fields(built: ExpressionNetwork) -> dict[str, object]:
    """Return the fields of a good header."""
    return {"format": module.FORMAT, "network": built.spec.to_json(), "crop": CROP.to_json(), "info": {}}


def header(built: ExpressionNetwork, **changes: object) -> dict[str, str]:
    """Return a good header with some fields changed."""
    return {module.HEADER: json.dumps(fields(built) | changes)}


def test_the_round_trip_is_exact(saved: Path, network: ExpressionNetwork) -> None:
    checkpoint = load_checkpoint(saved)
    assert checkpoint.network.spec == network.spec
    assert checkpoint.crop == CROP
    assert checkpoint.info == INFO
    assert checkpoint.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert not checkpoint.network.training
    got, expected = checkpoint.network.state_dict(), network.state_dict()
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor), name
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        for left, right in zip(checkpoint.network(images), network(images), strict=True):
            assert torch.equal(left, right)


def test_the_memory_layout_does_not_matter(saved: Path, network: ExpressionNetwork) -> None:
    again = saved.with_name("again.safetensors")
    turned = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_checkpoint(again, turned, CROP, INFO)
    got, expected = load_file(again), load_file(saved)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    assert {path.name for path in saved.parent.iterdir()} == {saved.name, again.name}


def test_a_failed_write_leaves_the_old_file(
    saved: Path, network: ExpressionNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved, network, CROP, {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 5_000, -1])
def test_a_truncated_file_is_refused(saved: Path, kept: int) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[:kept])
    assert "safetensors" in refusal(saved)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no such checkpoint" in refusal(tmp_path / "none.safetensors")
    assert "got a folder; name a file in it" in refusal(tmp_path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    assert "expected a checkpoint of format edge-fer-checkpoint-1, got None" in refusal(path)
    save_file({"a": torch.zeros(3)}, path, metadata={"format": "pt"})
    assert "got None" in refusal(path)


def test_the_checkpoint_of_another_network_is_refused(tmp_path: Path, network: ExpressionNetwork) -> None:
    path = tmp_path / "other.safetensors"
    weights = build("grefel-lite", classes=8, input_size=32).state_dict()
    save_file(weights, path, metadata=header(network))
    text = refusal(path)
    assert "5 tensors do not fit grefel-lite, first head.anchor_correction.anchors" in text
    assert "expected (7, 10, 160), got (8, 10, 160)" in text


Tensors = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda tensors: tensors.pop("head.primary.0.bias"), "expected (64,), got none"),
        (lambda tensors: tensors.update(extra=torch.zeros(2)), "first extra: expected none, got (2,)"),
    ],
)
def test_missing_and_surplus_tensors_are_named(
    tmp_path: Path, network: ExpressionNetwork, change: Callable[[Tensors], object], text: str
) -> None:
    path = tmp_path / "changed.safetensors"
    tensors = dict(network.state_dict())
    change(tensors)
    save_file(tensors, path, metadata=header(network))
    assert f"1 tensors do not fit grefel-lite, first {'' if 'first' in text else 'head'}" in refusal(path)
    assert text in refusal(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "null"},
        {"network": "[]"},
        {"network": '{"model": "grefel-lite"}'},
        {"network": '{"model": "resnet", "input_size": 32}'},
        {"network": '{"model": "grefel-lite", "input_size": 32, "anchors": -3}'},
        {"network": '{"model": "grefel-lite", "input_size": 32, "anchors": "ten"}'},
        {"network": '{"model": ["grefel-lite"], "input_size": 32}'},
        {"network": '{"model": {}, "input_size": 32}'},
        {"network": '{"model": "grefel-lite", "input_size": 32, "labels": 7}'},
        {"network": '{"model": "grefel-lite", "input_size": 32, "newer": 1}'},
        {"crop": "{}"},
        {"crop": '{"size": -1, "margin": 0, "filter": "box-bilinear", "alignment": "none", "template": []}'},
        {"info": "[]"},
    ],
    ids=lambda changes: "-".join(f"{key}={value[:60]}" for key, value in changes.items()),
)
def test_a_header_that_describes_no_network_is_refused(
    tmp_path: Path, network: ExpressionNetwork, changes: dict[str, str]
) -> None:
    path = tmp_path / "header.safetensors"
    parsed = {name: json.loads(text) for name, text in changes.items()}
    save_file(dict(network.state_dict()), path, metadata=header(network, **parsed))
    refusal(path)


@pytest.mark.parametrize("text", ["{", "[]", "null", ""])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, network: ExpressionNetwork, text: str) -> None:
    path = tmp_path / "header.safetensors"
    save_file(dict(network.state_dict()), path, metadata={module.HEADER: text})
    refusal(path)


def test_equal_checkpoints_have_equal_bytes(tmp_path: Path, network: ExpressionNetwork) -> None:
    info = dict.fromkeys(("recipe", "weights", "epoch", "validation"), 0)
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, network, CROP, info)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("field", ["network", "crop", "info"])
def test_a_header_without_a_field_is_refused(tmp_path: Path, network: ExpressionNetwork, field: str) -> None:
    path = tmp_path / "header.safetensors"
    left = {name: value for name, value in fields(network).items() if name != field}
    save_file(dict(network.state_dict()), path, metadata={module.HEADER: json.dumps(left)})
    assert f"'{field}'" in refusal(path)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[Path], int], tuple[Path]]:
        return spring, (self.target,)


def spring(target: Path) -> int:
    return target.write_text("sprung")


@pytest.mark.parametrize("writer", ["torch", "torch-legacy", "pickle"])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, network: ExpressionNetwork, writer: str) -> None:
    path, trap = tmp_path / "best.pt", tmp_path / "sprung"
    content = {"weights": network.state_dict(), "trap": Trap(trap)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    assert "expected a safetensors file" in refusal(path)
    assert not trap.exists()


def test_no_pickle_is_used_to_save_or_load(
    tmp_path: Path, network: ExpressionNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle")

    for name in ("dumps", "dump", "loads", "load", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch, "save", refuse)
    save_checkpoint(tmp_path / "a.safetensors", network, CROP, INFO)
    assert load_checkpoint(tmp_path / "a.safetensors").info == INFO
