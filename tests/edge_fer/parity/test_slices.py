"""Slices: the faces of one value are compared as if they were all there is."""

from __future__ import annotations

import numpy as np
import pytest

from edge_fer.errors import InputError
from edge_fer.parity.comparison import compare
from edge_fer.parity.gates import Thresholds
from edge_fer.parity.slices import check_column, make_slice
from tests.edge_fer.parity.conftest import FACES, LinearEngine, World


def test_a_slice_is_the_comparison_of_its_faces_alone(world: World) -> None:
    outputs = LinearEngine().run(world.crops)
    outputs.probabilities[:200] = np.roll(outputs.probabilities[:200], 1, axis=1)
    ages = ["young" if face < 600 else "" if face < 700 else "old" for face in range(FACES)]
    found = make_slice(world.reference, outputs, "age", ages, 0.3, Thresholds())
    values = {one["value"]: one for one in found["values"]}  # type: ignore[attr-defined]
    assert list(values) == ["(none)", "old", "young"] and found["column"] == "age"
    assert [one["faces"] for one in values.values()] == [100, 800, 600]
    assert [one["figures"]["flips"] for one in values.values()] == [0, 0, 200]
    alone = compare(world.part(600), outputs.rows(np.arange(600)), min_reliability=0.3)
    assert values["young"]["gates"] == [gate.to_json() for gate in alone.gates]
    labels, p = world.reference.labels[:600], outputs.probabilities[:600]
    assert values["young"]["figures"]["accuracy"] == pytest.approx((p.argmax(axis=1) == labels).mean())


def test_the_note_counts_what_was_run_and_what_chance_alone_would_fail(world: World) -> None:
    outputs = LinearEngine().run(world.crops)
    halves = ["a", "b"] * (FACES // 2)
    found = make_slice(world.reference, outputs, "half", halves, 0.3, Thresholds())
    gates = [gate for one in found["values"] for gate in one["gates"] if gate["verdict"] != "not run"]  # type: ignore[attr-defined]
    note = str(found["note"])
    assert note.startswith(f"{len(gates)} gates in 2 slices, 0 failed, ")
    assert f"about {round(0.05 * len(gates), 1):g} would fail by chance" in note


@pytest.mark.parametrize("values", [["a"] * 9, [str(number) for number in range(41)], []])
def test_a_column_that_makes_no_slices_is_refused(values: list[str]) -> None:
    with pytest.raises(InputError, match=f"expected 2 to 40 different values .* got {len(set(values))}"):
        check_column("age", values)
