"""bundle.json: what it may hold, and that nothing else than a valid spec comes out of it."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_fer import bundle as module
from edge_fer.bundle import Bundle, ModelSpec
from edge_fer.spec import parse_object
from tests.conftest import edit, refused, signed


def test_a_repeated_key_is_named() -> None:
    with pytest.raises(ValueError, match="the key 'a' is repeated"):
        parse_object(b'{"b": {"a": 1, "a": 2}}', "it")


@pytest.mark.parametrize(
    "key", ["format", "members", "self_sha256", "labels", "input", "weights", "untrained"]
)
def test_a_missing_key_is_named(tiny_bundle: Path, key: str) -> None:
    file = tiny_bundle / "bundle.json"
    fields = json.loads(file.read_bytes())
    del fields[key]
    file.write_text(json.dumps(fields))
    refused(tiny_bundle, key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", ["neutral"]),
        ("labels", ["neutral", "neutral"]),
        ("labels", "neutral"),
        ("input", {"size": 0}),
        ("input", None),
        ("outputs", ["probabilities"]),
        ("target", "caffe"),
        ("engine", "torch"),
        ("precision", "int4"),
        ("quantisation", None),
        ("quantised_ops", {"Conv": -1}),
        ("float_ops", {"Conv": True}),
        ("untrained", 0),
        ("min_reliability", 1.5),
        ("min_reliability", True),
        ("source", {"checkpoint": 3}),
        ("weights", {"licence": None}),
        ("failed", "yes"),
        ("float_compute", "fp16"),
        ("float_compute", None),
        ("model", " "),
        ("surprise", 1),
        ("target", "openvino"),
    ],
)
def test_a_value_that_may_not_be_is_named(tiny_bundle: Path, key: str, value: object) -> None:
    edit(tiny_bundle, lambda fields: fields.update({key: value}))
    refused(tiny_bundle, "model.xml" if value == "openvino" else key)


@pytest.mark.parametrize("float_compute", ["fp32", "bf16"])
def test_what_float_operators_compute_in_survives_a_bundle(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes], float_compute: str
) -> None:
    spec = dataclasses.replace(tiny_spec, float_compute=float_compute)
    written = module.write_bundle(tmp_path / "x.fer", spec, tiny_members)
    assert Bundle.load(written.path).spec == spec
    assert json.loads((written.path / "bundle.json").read_bytes())["float_compute"] == float_compute


def test_a_bundle_of_before_float_compute_computes_in_fp32(tiny_bundle: Path) -> None:
    edit(tiny_bundle, lambda fields: fields.pop("float_compute"))
    assert Bundle.load(tiny_bundle).spec.float_compute == "fp32"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_mutation_of_bundle_json_is_refused_or_a_valid_spec(
    data: st.DataObject, tiny_spec: ModelSpec
) -> None:
    members = {"model.onnx": {"sha256": "0" * 64, "size": 3}}
    fields: dict[str, object] = {"format": 1, **copy.deepcopy(tiny_spec.to_json()), "members": members}
    place: dict[str, object] = fields
    key = data.draw(st.sampled_from(sorted(fields)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]  # type: ignore[assignment]
        key = data.draw(st.sampled_from(sorted(place)))
    if data.draw(st.booleans()):
        place[key] = data.draw(JSON)
    else:
        del place[key]
    try:
        spec, _ = module._parse(signed(fields))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | JSON.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_as_bundle_json_give_a_bundle_error(tiny_bundle: Path, content: bytes) -> None:
    (tiny_bundle / "bundle.json").write_bytes(content)
    refused(tiny_bundle, "tiny.fer")
