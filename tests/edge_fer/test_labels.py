"""The order of the labels and the table of aliases."""

from __future__ import annotations

import pytest

from edge_fer.errors import InputError
from edge_fer.labels import LABELS, LABELS_7, LABELS_WITH_OTHER, canonical


def test_order_is_the_fixed_one() -> None:
    assert ",".join(LABELS) == "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"
    assert LABELS[:7] == LABELS_7 == LABELS_WITH_OTHER[:7]
    assert LABELS_WITH_OTHER[7:] == ("other",)


@pytest.mark.parametrize("label", [*LABELS, "other"])
def test_every_label_is_its_own_name(label: str) -> None:
    assert canonical(label) == canonical(label.upper()) == canonical(f" {label.title()} ") == label


@pytest.mark.parametrize(
    ("alias", "label"),
    [
        ("Happy", "happiness"),
        ("angry", "anger"),
        ("sad", "sadness"),
        ("SURPRISED", "surprise"),
        ("fearful", "fear"),
        ("disgusted", "disgust"),
        ("natural", "neutral"),
        ("neutrality", "neutral"),
    ],
)
def test_aliases_of_other_data_sets(alias: str, label: str) -> None:
    assert canonical(alias) == label


@pytest.mark.parametrize("name", ["", "others", "neutral2", "hap"])
def test_unknown_names_are_refused_with_the_accepted_ones(name: str) -> None:
    with pytest.raises(InputError, match="contempt") as caught:
        canonical(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
