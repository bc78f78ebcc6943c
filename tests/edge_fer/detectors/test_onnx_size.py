"""Freeing the input size of an ONNX file, checked with the package onnx, which the runtime does not have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.detectors.onnx_size import free_input_size
from tests.edge_fer.detectors.stand_in import stand_in

onnx = pytest.importorskip("onnx", reason="needs the package onnx to check with")
google = pytest.importorskip("google.protobuf.message")


def test_only_shapes_change() -> None:
    before = onnx.load_from_string(stand_in(onnx))
    after = onnx.load_from_string(free_input_size(stand_in(onnx)))
    onnx.checker.check_model(after)
    dimensions = after.graph.input[0].type.tensor_type.shape.dim
    assert [dimension.dim_value for dimension in dimensions] == [1, 3, 0, 0]
    assert [dimension.WhichOneof("value") for dimension in dimensions[2:]] == [None, None]
    for value in after.graph.output:
        assert [len(str(dimension)) for dimension in value.type.tensor_type.shape.dim] == [0, 0, 0]
    assert before.graph.value_info and not after.graph.value_info
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]
    for part in ("node", "initializer"):
        assert list(getattr(after.graph, part)) == list(getattr(before.graph, part))
    assert (after.ir_version, list(after.opset_import)) == (before.ir_version, list(before.opset_import))


def test_weights_that_are_listed_as_inputs_keep_their_shape() -> None:
    model = onnx.load_from_string(stand_in(onnx))
    weights = [
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        for weight in model.graph.initializer
    ]
    model.graph.input.extend(weights)
    after = onnx.load_from_string(free_input_size(model.SerializeToString()))
    assert list(after.graph.input)[1:] == weights


def test_freeing_twice_is_freeing_once() -> None:
    freed = free_input_size(stand_in(onnx))
    assert free_input_size(freed) == freed


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        free_input_size(data)
    except ValueError as error:
        assert "expected" in str(error)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_cut_file_is_refused(data: st.DataObject) -> None:
    whole = stand_in(onnx)
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    try:
        expected = onnx.load_from_string(cut)
    except google.DecodeError:
        with pytest.raises(ValueError, match="expected"):
            free_input_size(cut)
    else:  # cut between two fields
        assert onnx.load_from_string(free_input_size(cut)).ir_version == expected.ir_version
