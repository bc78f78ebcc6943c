"""parity.schema.json: real reports pass, and the runtime's own check agrees with a real validator."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_fer.parity.documents import document
from edge_fer.parity.schema import MATRIX, REPORT, check_report, schema

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.5, -1.0, 2.0, "", "passed", "a" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "x"]), inner),
    max_leaves=4,
)


def accepts(value: object) -> bool:
    try:
        check_report(value)
    except ValueError:
        return False
    return True


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths of a JSON value; of a list only the first two items, which are alike."""
    found = [path] if path else []
    items = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for key, item in items:
        found += places(item, (*path, key))
    return found


def mutated(report: Any, path: tuple[Any, ...], change: str, other: Any) -> Any:
    value = copy.deepcopy(report)
    place = value
    for key in path[:-1]:
        place = place[key]
    if change == "delete":
        del place[path[-1]]
    elif change == "add" and isinstance(place[path[-1]], dict):
        place[path[-1]]["unknown key"] = other
    else:
        place[path[-1]] = other
    return value


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def test_a_real_report_and_a_matrix_of_two_are_valid(
    full_report: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    matrix = document([full_report, full_report])
    for value in (full_report, matrix):
        validator.validate(value)
        assert check_report(value) is value
    assert (full_report["schema"], matrix["schema"]) == (REPORT, MATRIX)
    assert json.loads(json.dumps(full_report, allow_nan=False)) == full_report


def test_every_key_of_a_real_report_is_described(full_report: dict[str, Any]) -> None:
    properties = schema()["$defs"]["report"]["properties"]  # type: ignore[index]
    assert set(full_report) <= set(properties)
    assert set(full_report["details"]) <= set(schema()["$defs"]["details"]["properties"])  # type: ignore[index]


@pytest.fixture(scope="module")
def short_report(full_report: dict[str, Any]) -> Callable[[], Any]:
    """The report with lists of at most two items: what holds for them holds for all."""
    report = short(full_report)
    return lambda: report  # of which a failing example prints no 100 kB


def short(value: Any) -> Any:
    if isinstance(value, list):
        return [short(item) for item in value[:2]]
    return {key: short(item) for key, item in value.items()} if isinstance(value, dict) else value


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_runtimes_check_agrees_with_jsonschema(
    short_report: Callable[[], Any], validator: jsonschema.Draft202012Validator, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(places(short_report())))
    value = mutated(
        short_report(), path, data.draw(st.sampled_from(["delete", "add", "replace"])), data.draw(JSON)
    )
    assert accepts(value) == validator.is_valid(value)


@pytest.mark.parametrize("value", [None, [], "x", {}, {"schema": "edge-fer-parity-1"}, {"schema": ["x"]}])
def test_what_is_no_report_is_named(value: object) -> None:
    with pytest.raises(ValueError, match="expected the schema edge-fer-parity-2"):
        check_report(value)


def test_the_error_names_the_place(full_report: dict[str, Any]) -> None:
    wrong = mutated(full_report, ("gates", 1, "verdict"), "replace", "verified")
    with pytest.raises(
        ValueError, match=r"the report: gates 1: verdict: expected passed or .*got 'verified'"
    ):
        check_report(wrong)
