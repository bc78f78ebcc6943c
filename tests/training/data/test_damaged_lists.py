"""Whatever bytes are in a list of labels: faces, or one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_fer.errors import InputError
from tests.training.data import trees
from training.data.labelled import parse_source, read_labelled, split_data
from training.data.layouts.affectnet import read_number

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def pieces(*parts: bytes) -> st.SearchStrategy[bytes]:
    """Return bytes that look like the list at times, and like nothing at others."""
    likely = st.lists(st.sampled_from([*parts, b"\n", b" ", b",", b"\0", b"\xff", b'"', b"\r"]), max_size=30)
    return st.one_of(st.binary(max_size=200), likely.map(b"".join))


def survives(data: str) -> None:
    try:
        faces = read_labelled(data)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert faces.faces
    assert all(face.label is not None and 0 <= face.label < len(faces.labels) for face in faces.faces)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """One tree per layout: its list is what the tests write over."""
    root = tmp_path_factory.mktemp("trees")
    trees.rafdb(root / "rafdb")
    trees.affwild2(root / "affwild2", "v", [0, 1, 2])
    trees.ckplus(root / "ckplus", [("S1", "001", 4, 3)])
    trees.affectnet(root / "affectnet", [(0, 0.0, 0.0)])
    (root / "fer2013").mkdir()
    yield {
        "rafdb": root / "rafdb/basic/EmoLabel/list_patition_label.txt",
        "affwild2": root / "affwild2/6th_ABAW_Annotations/EXPR_Classification_Challenge/Train_Set/v.txt",
        "ckplus": root / "ckplus/Emotion/S1/001/S1_001_00000004_emotion.txt",
        "affectnet": root / "affectnet/train_set/annotations/0_exp.npy",
        "fer2013": root / "fer2013/fer2013.csv",
        "root": root,
    }


@SETTINGS
@given(content=pieces(b"train_00001.jpg", b"test_0001.jpg", b"../", b"7", b"5", b"train_"))
def test_rafdb(places: dict[str, Path], content: bytes) -> None:
    places["rafdb"].write_bytes(content)
    survives(f"rafdb:{places['root']}/rafdb:train")


@SETTINGS
@given(content=pieces(trees.AFFWILD2_HEADER.encode(), b"-1", b"0", b"7", b"8"))
def test_affwild2(places: dict[str, Path], content: bytes) -> None:
    places["affwild2"].write_bytes(content)
    survives(f"affwild2:{places['root']}/affwild2:train")


@SETTINGS
@given(content=pieces(b"3", b".0", b"e+00", b"e999", b"nan"))
def test_ckplus(places: dict[str, Path], content: bytes) -> None:
    places["ckplus"].write_bytes(content)
    survives(f"ckplus:{places['root']}/ckplus")


@SETTINGS
@given(content=pieces(b"emotion,pixels,Usage\n", b"3,", b"0 " * 2304, b",Training\n", b"Usage"))
def test_fer2013(places: dict[str, Path], content: bytes) -> None:
    places["fer2013"].write_bytes(content)
    survives(f"fer2013:{places['root']}/fer2013:train")


@SETTINGS
@given(
    content=pieces(
        b"\x93NUMPY\x01\x00", b"\x46\x00", b"{'descr': '<i8', 'fortran_order': False, 'shape': ()}"
    ),
    cut=st.integers(0, 140),
    flip=st.integers(0, 135),
)
def test_affectnet(places: dict[str, Path], content: bytes, cut: int, flip: int) -> None:
    path = places["affectnet"]
    path.write_bytes(content)
    survives(f"affectnet8:{places['root']}/affectnet:train")
    np.save(path, np.array(3))
    good = path.read_bytes()
    path.write_bytes(good[:cut])
    survives(f"affectnet8:{places['root']}/affectnet:train")
    path.write_bytes(good[:flip] + bytes([good[flip] ^ 0x15]) + good[flip + 1 :])
    survives(f"affectnet8:{places['root']}/affectnet:train")


@pytest.mark.parametrize(
    ("value", "expected"), [(np.array("3"), 3.0), (np.array(-0.25), -0.25), (np.array([7], np.uint8), 7.0)]
)
def test_numbers_are_read_as_they_were_written(value: np.ndarray, expected: float, tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", value)
    assert read_number(tmp_path / "n.npy") == expected


def test_numbers_of_the_second_version_are_read(tmp_path: Path) -> None:
    with (tmp_path / "n.npy").open("wb") as file:
        np.lib.format.write_array(file, np.array(5), version=(2, 0))
    assert read_number(tmp_path / "n.npy") == 5


@pytest.mark.parametrize("value", [np.array(np.nan), np.array("inf"), np.array(b"3"), np.zeros(2)])
def test_what_is_no_number_is_refused(value: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", value)
    with pytest.raises(InputError, match=r"expected a .npy file of one number"):
        read_number(tmp_path / "n.npy")


def test_a_file_too_large_for_a_number_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", np.array(5))
    good = (tmp_path / "n.npy").read_bytes()
    (tmp_path / "n.npy").write_bytes(good + b"\0" * (4096 - len(good)))
    assert read_number(tmp_path / "n.npy") == 5
    (tmp_path / "n.npy").write_bytes(good + b"\0" * (4097 - len(good)))
    with pytest.raises(InputError, match="one number"):
        read_number(tmp_path / "n.npy")


@SETTINGS
@given(data=st.text(alphabet="rafdbjeckplusn:/.0123456789ofl tvi", max_size=40))
def test_any_data_string_is_understood_or_refused(data: str) -> None:
    for read in (parse_source, split_data):
        try:
            read(data)  # type: ignore[operator]
        except InputError as error:
            assert "\n" not in str(error)
