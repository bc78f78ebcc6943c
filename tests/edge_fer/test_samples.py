"""Golden samples and reference outputs: round trips, and every way an .npz file can lie."""

from __future__ import annotations

import dataclasses
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edge_fer.arrays import Field, pack_arrays, unpack_arrays
from edge_fer.bundle import Golden, Reference
from edge_fer.errors import BundleError

FIELDS = {"a": Field("float32", ("N", 2)), "b": Field("int16", ("N",))}
ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.arange(3, dtype=np.int16)}


def one_line(error: pytest.ExceptionInfo[BundleError]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_numpy_reads_what_is_packed() -> None:
    with np.load(io.BytesIO(pack_arrays(ARRAYS)), allow_pickle=False) as loaded:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], array)


def test_what_numpy_compressed_is_read() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.asfortranarray(ARRAYS["a"]), b=ARRAYS["b"])
    for name, array in unpack_arrays(buffer.getvalue(), "x.npz", FIELDS).items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_the_same_arrays_give_the_same_bytes() -> None:
    assert pack_arrays(ARRAYS) == pack_arrays({name: array.copy() for name, array in ARRAYS.items()})


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.float32, np.bool_]), hnp.array_shapes(max_dims=4, min_side=0)
    )
)
def test_any_array_survives_the_round_trip(array: NDArray[np.generic]) -> None:
    field = Field(array.dtype.name, array.shape)
    np.testing.assert_array_equal(unpack_arrays(pack_arrays({"a": array}), "x.npz", {"a": field})["a"], array)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255), st.booleans())
def test_damaged_bytes_give_a_bundle_error_or_the_asked_shapes(place: int, change: int, cut: bool) -> None:
    data = bytearray(pack_arrays(ARRAYS))
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= change
    try:
        arrays = unpack_arrays(bytes(data), "x.npz", FIELDS)
    except BundleError as error:
        assert "\n" not in str(error)
    else:
        assert arrays["a"].shape == (3, 2) and arrays["b"].shape == (3,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable"),
        (b"PK\x03\x04 and no more", "not a readable"),
        (npz(a=npy(ARRAYS["a"])), "must hold the arrays a, b"),
        (npz(a=npy(ARRAYS["a"]), b=npy(ARRAYS["b"]), c=npy(ARRAYS["b"])), "must hold the arrays"),
        (npz(a=npy(ARRAYS["a"]), b=npy(np.array([1, "x", None], object))), "pickled"),
        (npz(a=npy(ARRAYS["a"].astype(np.float64)), b=npy(ARRAYS["b"])), "`a` must be float32"),
        (npz(a=npy(ARRAYS["a"]), b=npy(np.arange(4, dtype=np.int16))), r"`b` must be int16 \(3\)"),
        (npz(a=npy(ARRAYS["a"]), b=npy(ARRAYS["b"][None])), "`b` must be int16"),
        (npz(a=header("(99999999999, 2)"), b=npy(ARRAYS["b"])), "has 0 bytes"),
        (npz(a=header("(-1, 2)"), b=npy(ARRAYS["b"])), "shape"),
        (npz(a=header("__import__('os')"), b=npy(ARRAYS["b"])), "not a readable"),
        (npz(a=bytes(300_000_000), b=npy(ARRAYS["b"])), "zip bomb"),
    ],
)
def test_a_lying_file_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=reason) as error:
        unpack_arrays(content, "x.npz", FIELDS)
    one_line(error)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_stored_twice_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a.npy", "a.npy", "b.npy"):
            archive.writestr(name, npy(ARRAYS[name[0]]))
    with pytest.raises(BundleError, match="must hold the arrays"):
        unpack_arrays(buffer.getvalue(), "x.npz", FIELDS)


def test_golden_samples_survive_the_round_trip(tiny_golden: Golden) -> None:
    read = Golden.from_bytes(tiny_golden.to_bytes())
    assert read.sources == tiny_golden.sources
    for field in dataclasses.fields(Golden)[1:]:
        np.testing.assert_array_equal(getattr(read, field.name), getattr(tiny_golden, field.name))
    assert read.to_bytes() == tiny_golden.to_bytes()


def test_reference_outputs_survive_the_round_trip(tiny_reference: Reference) -> None:
    read = Reference.from_bytes(tiny_reference.to_bytes())
    assert (read.name, read.names) == (tiny_reference.name, tiny_reference.names)
    for field in dataclasses.fields(Reference)[:5]:
        np.testing.assert_array_equal(getattr(read, field.name), getattr(tiny_reference, field.name))
    assert read.hashes.dtype == np.dtype("<U64")
    assert read.to_bytes() == tiny_reference.to_bytes()


def test_3553_faces_take_about_as_much_as_the_design_says(tiny_reference: Reference) -> None:
    rows = np.arange(3553) % len(tiny_reference.labels)
    columns = ("labels", "hashes", "probabilities", "primary", "reliability")
    many = dataclasses.replace(
        tiny_reference, **{name: getattr(tiny_reference, name)[rows] for name in columns}
    )
    assert len(many.to_bytes()) < 400_000


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("crops", np.zeros((4, 16, 15, 3), np.uint8), "`crops`"),
        ("crops", np.zeros((3, 16, 16, 3), np.uint8), "`crops`"),
        ("boxes", np.zeros((4, 4), np.float64), "`boxes`"),
        ("boxes", np.full((4, 4), np.inf, np.float32), "finite"),
        ("primary", np.zeros((4, 7), np.float32), r"`primary`|`probabilities`"),
        ("reliability", np.full(4, np.nan, np.float32), "finite"),
        ("sources", (b"1", b"2", b"3"), "offsets"),
        ("sources", (b"1", b"", b"3", b"4"), "offsets"),
        ("sources", (b"1", b"2", b"3", bytes(40_001)), "40001 bytes"),
    ],
)
def test_golden_samples_that_do_not_fit_are_not_written(
    tiny_golden: Golden, name: str, value: object, reason: str
) -> None:
    with pytest.raises(BundleError, match=reason) as error:
        dataclasses.replace(tiny_golden, **{name: value}).to_bytes()
    one_line(error)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("labels", np.zeros(12, np.int64), "`labels`"),
        ("labels", np.full(12, 8, np.int16), "-1..7"),
        ("labels", np.full(12, -2, np.int16), "-1..7"),
        ("hashes", np.array(["ab"] * 12), "64 hexadecimal"),
        ("hashes", np.array(["x" * 64] * 12), "64 hexadecimal"),
        ("names", ("one", "two"), "names 2 classes"),
        ("probabilities", np.full((12, 8), np.nan, np.float32), "finite"),
    ],
)
def test_reference_outputs_that_do_not_fit_are_not_written(
    tiny_reference: Reference, name: str, value: object, reason: str
) -> None:
    with pytest.raises(BundleError, match=reason) as error:
        dataclasses.replace(tiny_reference, **{name: value}).to_bytes()
    one_line(error)
