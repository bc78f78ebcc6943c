"""Where a bundle lies: folders with links and pipes, and every trick that a zip can play."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_fer.bundle import Bundle
from edge_fer.errors import BundleError
from tests.conftest import refused


def zipped(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
    return target


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    shutil.move(tiny_bundle / "model.onnx", tmp_path / "model.onnx")
    (tiny_bundle / "model.onnx").symlink_to(tmp_path / "model.onnx")
    refused(tiny_bundle, "is a link that leaves the bundle")


def test_a_linked_bundle_json_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    shutil.move(tiny_bundle / "bundle.json", tmp_path / "spec.json")
    (tiny_bundle / "bundle.json").symlink_to("../spec.json")
    refused(tiny_bundle, "is a link that leaves the bundle")


def test_a_link_inside_the_folder_and_to_the_folder_are_followed(tmp_path: Path, tiny_bundle: Path) -> None:
    (tiny_bundle / "model.onnx").rename(tiny_bundle / "graph")
    (tiny_bundle / "model.onnx").symlink_to("graph")
    (tmp_path / "link.fer").symlink_to(tiny_bundle)
    Bundle.load(tmp_path / "link.fer")


def test_a_link_to_itself_is_refused(tiny_bundle: Path) -> None:
    (tiny_bundle / "model.onnx").unlink()
    (tiny_bundle / "model.onnx").symlink_to("model.onnx")
    refused(tiny_bundle, "model.onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_in_place_of_a_member_does_not_hang(tiny_bundle: Path) -> None:
    (tiny_bundle / "model.onnx").unlink()
    os.mkfifo(tiny_bundle / "model.onnx")
    refused(tiny_bundle, "not a regular file")


@pytest.mark.parametrize("prefix", ["", "tiny.fer/", "renamed/"])
def test_a_zip_is_the_same_bundle(tmp_path: Path, tiny_bundle: Path, prefix: str) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip", prefix)
    assert Bundle.load(path).digest == Bundle.load(tiny_bundle).digest


def test_a_zip_of_the_finder_is_read(tmp_path: Path, tiny_bundle: Path) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip", "tiny.fer/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/tiny.fer/._bundle.json", b"clutter")
        archive.mkdir("tiny.fer") if hasattr(archive, "mkdir") else archive.writestr("tiny.fer/", b"")
    Bundle.load(path)


@pytest.mark.parametrize("name", ["../x.onnx", "/tmp/x", "a/../../x", "tiny.fer\\x", "C:/x", "a//b"])
def test_a_zip_with_a_name_that_leaves_it_is_refused(tmp_path: Path, tiny_bundle: Path, name: str) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    refused(path, "could leave the bundle")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.onnx", b"another")
    refused(path, "two files of the name 'model.onnx'")


def test_two_bundles_in_one_zip_are_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip", "a/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tiny_bundle / "bundle.json", "b/bundle.json")
    refused(path, "expected one bundle.json")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, tiny_bundle: Path) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", bytes(200_000_000))
    refused(path, "zip bomb")


def test_a_zip_that_unpacks_to_more_than_any_bundle_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = (0xF0000000).to_bytes(4, "little") + (0xF0000000).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, "more than any bundle")


def test_a_zip_whose_member_is_larger_than_declared_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, "cannot be unpacked|not complete|cut short")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_unusual_compression_is_refused(tmp_path: Path, tiny_bundle: Path, kind: int) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip")
    with zipfile.ZipFile(path, "a", kind) as archive:
        archive.writestr("note.txt", b"note")
    refused(path, "unusual compression")


def test_an_encrypted_zip_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    path = zipped(tiny_bundle, tmp_path / "tiny.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")


def test_a_zip_of_too_many_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(300):
            archive.writestr(f"{number}", b"")
    refused(tmp_path / "many.zip", "300 files")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1 << 20), change=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_zip_is_refused_or_the_same_bundle(
    tmp_path: Path, tiny_bundle: Path, place: int, change: int, cut: bool
) -> None:
    digest = Bundle.load(tiny_bundle).digest
    path = zipped(tiny_bundle, tmp_path / "tiny.zip")
    data = bytearray(path.read_bytes())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= change
    path.write_bytes(data)
    try:
        assert Bundle.load(path).digest == digest
    except BundleError as error:
        assert "\n" not in str(error)
