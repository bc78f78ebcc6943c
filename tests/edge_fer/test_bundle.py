"""Bundles: the round trip, and every way in which one can be damaged, foreign or hostile."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest

from edge_fer.bundle import Bundle, ModelSpec, write_bundle
from edge_fer.errors import BundleError
from tests.conftest import edit, refused

MEMBERS = ("model.onnx", "golden.npz", "reference.npz", "parity.json")


def test_a_bundle_survives_the_round_trip(
    tiny_bundle: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> None:
    bundle = Bundle.load(tiny_bundle)
    assert bundle.spec == tiny_spec
    assert {name: bundle.member(name) for name in bundle.members} == tiny_members
    assert bundle.graph == tiny_members["model.onnx"]
    assert bundle.verdict == "passed"
    assert bundle.digest == hashlib.sha256((tiny_bundle / "bundle.json").read_bytes()).hexdigest()
    golden, reference = bundle.golden(), bundle.reference()
    assert golden is not None and len(golden.sources) == 4
    assert reference is not None and reference.name == "patterns"


def test_bundle_json_has_the_fixed_keys(tiny_bundle: Path, tiny_members: dict[str, bytes]) -> None:
    fields = json.loads((tiny_bundle / "bundle.json").read_bytes())
    fixed = "format model labels input outputs target engine precision quantisation quantised_ops float_ops"
    fixed += " untrained min_reliability source weights members"
    assert set(fields) == {*fixed.split(), "failed", "float_compute", "self_sha256"}
    assert fields["members"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in tiny_members.items()
    }


def test_the_same_bundle_gives_the_same_bytes(
    tmp_path: Path, tiny_bundle: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> None:
    other = write_bundle(tmp_path / "other.fer", tiny_spec, dict(reversed(tiny_members.items())))
    assert other.digest == Bundle.load(tiny_bundle).digest


def test_parts_that_are_optional_may_be_missing(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    bundle = write_bundle(tmp_path / "bare.fer", tiny_spec, {"model.onnx": tiny_graph})
    assert (bundle.golden(), bundle.reference(), bundle.certificate(), bundle.verdict) == (
        None,
        None,
        None,
        "none",
    )


def test_a_kept_failure_says_so(tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]) -> None:
    spec = dataclasses.replace(tiny_spec, failed=True)
    assert write_bundle(tmp_path / "failed.fer", spec, tiny_members).verdict == "failed"


@pytest.mark.parametrize("name", ["bundle.json", *MEMBERS])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 0.999])
def test_one_changed_byte_is_refused(tiny_bundle: Path, name: str, place: float) -> None:
    data = bytearray((tiny_bundle / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (tiny_bundle / name).write_bytes(data)
    assert name in refused(tiny_bundle, "tiny.fer")


def test_every_byte_of_bundle_json_is_guarded(tiny_bundle: Path) -> None:
    file = tiny_bundle / "bundle.json"
    data = file.read_bytes()
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(BundleError):
            Bundle.load(tiny_bundle)


@pytest.mark.parametrize("name", ["bundle.json", *MEMBERS])
def test_a_truncated_file_is_refused(tiny_bundle: Path, name: str) -> None:
    data = (tiny_bundle / name).read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 2):
        (tiny_bundle / name).write_bytes(data[:length])
        assert name in refused(tiny_bundle, "cut short|not complete")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_longer_member_is_refused(tiny_bundle: Path, name: str) -> None:
    with (tiny_bundle / name).open("ab") as stream:
        stream.write(b"\0")
    refused(tiny_bundle, "is longer than")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_missing_member_is_refused(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle / name).unlink()
    refused(tiny_bundle, f"has no file {name}")


def test_a_newer_format_is_refused_with_the_way_out(tiny_bundle: Path) -> None:
    edit(tiny_bundle, lambda fields: fields.update(format=2, surprise=True), sign=False)
    assert "upgrade edge-fer" in refused(tiny_bundle, "has format 2, this version reads up to 1")


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_a_format_that_is_none_is_refused(tiny_bundle: Path, value: object) -> None:
    edit(tiny_bundle, lambda fields: fields.update(format=value))
    refused(tiny_bundle, "no `format` that is a bundle's")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..",
        ".",
        "",
        ".hidden",
        "bundle.json",
        "a\0b",
        "C:x",
        "a\n",
        "x" * 200,
    ],
)
def test_a_member_name_that_could_leave_the_folder_is_refused(tiny_bundle: Path, name: str) -> None:
    digest = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    edit(tiny_bundle, lambda fields: fields["members"].update({name: digest}))  # type: ignore[attr-defined]
    refused(tiny_bundle, "is refused: expected a plain file name")


@pytest.mark.parametrize("name", ["other.onnx", "weights.bin", "model.onnx.data", "MODEL.XML"])
def test_an_unlisted_graph_file_is_refused(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle / name).write_bytes(b"weights")
    refused(tiny_bundle, f"holds {name}, which bundle.json does not list")


def test_a_note_beside_the_members_does_no_harm(tiny_bundle: Path) -> None:
    (tiny_bundle / "README.md").write_text("mine")
    Bundle.load(tiny_bundle)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.fer", "no bundle at")
    refused(tmp_path, "is not a bundle: it has no bundle.json")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    refused(tmp_path / "photo.jpg", "not a whole zip file")
    (tmp_path / "bundle.json").write_text('{"name": "something else"}')
    refused(tmp_path, "no `format` that is a bundle's")
    (tmp_path / "bundle.json").write_text("[" * 100_000)
    refused(tmp_path, "bundle.json")
    (tmp_path / "bundle.json").write_bytes(b" " * (1 << 20) + b"{}")
    refused(tmp_path, "longer than")


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": NaN}', "{}{}", "\xff", "[]", "null", '{"a": 1' + "0" * 5000 + "}"]
)
def test_json_that_is_not_plain_is_refused(tiny_bundle: Path, text: str) -> None:
    (tiny_bundle / "bundle.json").write_text(text, encoding="latin-1")
    refused(tiny_bundle, "bundle.json")


@pytest.mark.parametrize(
    "member", [{}, {"sha256": "0" * 64}, {"sha256": "x", "size": 1}, {"sha256": "0" * 64, "size": -1}, None]
)
def test_a_member_without_size_or_hash_is_refused(tiny_bundle: Path, member: object) -> None:
    edit(tiny_bundle, lambda fields: fields["members"].update({"golden.npz": member}))  # type: ignore[attr-defined]
    refused(tiny_bundle, "golden.npz")


def test_a_huge_promise_allocates_nothing(tiny_bundle: Path) -> None:
    promise = {"sha256": "0" * 64, "size": 1 << 40}
    edit(tiny_bundle, lambda fields: fields["members"].update({"golden.npz": promise}))  # type: ignore[attr-defined]
    refused(tiny_bundle, "a `size` no file can have")


def test_writing_replaces_a_bundle_and_leaves_nothing_else(
    tmp_path: Path, tiny_bundle: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    spec = dataclasses.replace(tiny_spec, model="second")
    written = write_bundle(tiny_bundle, spec, {"model.onnx": tiny_graph})
    assert written.spec.model == "second"
    assert sorted(entry.name for entry in tiny_bundle.iterdir()) == ["bundle.json", "model.onnx"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.fer"]
    assert (tiny_bundle.stat().st_mode & 0o777) == 0o777 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_the_old_bundle_stays_when_the_new_one_cannot_move_in(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_bundle: Path,
    tiny_spec: ModelSpec,
    tiny_graph: bytes,
) -> None:
    before, real = Bundle.load(tiny_bundle).digest, os.replace

    def fail(source: Path, target: Path) -> None:
        if source.suffix == ".new":
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        write_bundle(tiny_bundle, tiny_spec, {"model.onnx": tiny_graph})
    assert Bundle.load(tiny_bundle).digest == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.fer"]


def test_writing_replaces_a_damaged_bundle(
    tiny_bundle: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    (tiny_bundle / "model.onnx").unlink()
    write_bundle(tiny_bundle, tiny_spec, {"model.onnx": tiny_graph})
    Bundle.load(tiny_bundle)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"photo.jpg": b"x"}, "not a bundle: it is left alone"),
        ({"bundle.json": b'{"name": 1}'}, "not a bundle: it is left alone"),
        ({"bundle.json": b"not json"}, "not a bundle: it is left alone"),
    ],
)
def test_a_foreign_folder_is_left_alone(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes, files: dict[str, bytes], reason: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=reason):
        write_bundle(folder, tiny_spec, {"model.onnx": tiny_graph})
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == files


def test_a_bundle_with_the_user_s_own_files_is_left_alone(
    tiny_bundle: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    (tiny_bundle / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"holds notes\.txt"):
        write_bundle(tiny_bundle, tiny_spec, {"model.onnx": tiny_graph})
    assert (tiny_bundle / "notes.txt").read_text() == "mine"
    Bundle.load(tiny_bundle)


def test_a_file_is_not_replaced_by_a_bundle(tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes) -> None:
    (tmp_path / "x.fer").write_text("mine")
    with pytest.raises(BundleError, match="is a file"):
        write_bundle(tmp_path / "x.fer", tiny_spec, {"model.onnx": tiny_graph})
    assert (tmp_path / "x.fer").read_text() == "mine"


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"model.onnx": b"", "../x": b""},
        {"golden.npz": b""},
        {"model.onnx": b"graph", "golden.npz": b"no npz"},
        {"model.onnx": b"graph", "parity.json": b"{}"},
        {"model.onnx": b"graph", "reference.npz": b""},
    ],
)
def test_members_that_could_not_be_read_are_not_written(
    tmp_path: Path, tiny_bundle: Path, tiny_spec: ModelSpec, members: dict[str, bytes]
) -> None:
    before = Bundle.load(tiny_bundle).digest
    with pytest.raises(BundleError):
        write_bundle(tiny_bundle, tiny_spec, members)
    assert Bundle.load(tiny_bundle).digest == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.fer"]


def test_golden_samples_of_another_size_are_refused(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> None:
    spec = dataclasses.replace(tiny_spec, input=dataclasses.replace(tiny_spec.input, size=32))
    with pytest.raises(BundleError, match="crops of 16 pixels and 8 classes, the spec says 32 and 8"):
        write_bundle(tmp_path / "x.fer", spec, tiny_members)


def test_a_reference_for_other_labels_is_refused(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> None:
    spec = dataclasses.replace(tiny_spec, labels=tuple(reversed(tiny_spec.labels)))
    with pytest.raises(BundleError, match="is for the labels neutral, "):
        write_bundle(tmp_path / "x.fer", spec, tiny_members)


def test_a_member_of_zeros_in_hexadecimal_is_not_taken_for_the_checksum(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    spec = dataclasses.replace(tiny_spec, source={"checkpoint": "0" * 64})
    assert write_bundle(tmp_path / "x.fer", spec, {"model.onnx": tiny_graph}).spec == spec
