"""Calibration manifests: balanced, seeded, disjoint, without duplicates, and pinned by hash."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.manifest import (
    HASH_CROP,
    CalibrationSet,
    check_size,
    choose_faces,
    is_manifest,
    stratified_order,
    whole_manifest,
)
from edge_fer.errors import CalibrationError, InputError
from edge_fer.faces import FaceSet, face_hash, load_crops, read_data

from .conftest import draw_faces

COUNTS = {"neutral": 60, "happiness": 40, "surprise": 30, "fear": 10}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    return read_data(str(draw_faces(tmp_path_factory.mktemp("faces"), COUNTS, seed=1)))


def choose(
    faces: FaceSet, samples: int = 100, seed: int = 0, exclude: frozenset[str] = frozenset()
) -> CalibrationSet:
    return choose_faces(faces, HASH_CROP, samples=samples, seed=seed, exclude=exclude, explicit=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1, 7), max_size=60), st.integers(0, 2**32))
def test_every_prefix_of_the_order_is_balanced(labels: list[int], seed: int) -> None:
    order = stratified_order(np.array(labels, np.int64), seed)
    assert sorted(order) == list(range(len(labels)))
    available = Counter(labels)
    taken: Counter[int] = Counter()
    for index in order:
        taken[labels[index]] += 1
        lasting = [taken[label] for label in available if taken[label] < available[label]]
        # A class that still has faces is never more than one behind any other.
        assert not lasting or max(taken.values()) - min(lasting) <= 1
    assert order == stratified_order(np.array(labels, np.int64), seed)


def test_the_seed_matters() -> None:
    labels = np.zeros(50, np.int64)
    assert stratified_order(labels, 0) != stratified_order(labels, 1)
    assert stratified_order(labels, 0) != sorted(stratified_order(labels, 0))


@pytest.mark.parametrize("samples", [4, 30, 39, 40, 100, 139])
def test_classes_are_even_while_they_last(faces: FaceSet, samples: int) -> None:
    chosen = choose(faces, samples)
    counts = Counter(face.label for face in chosen.faces)
    assert sum(counts.values()) == samples == len(chosen.crops)
    available = Counter(face.label for face in faces.faces)
    lasting = [counts[label] for label in available if counts[label] < available[label]]
    assert max(counts.values()) - min(lasting) <= 1


def test_the_choice_is_reproducible_and_seeded(faces: FaceSet) -> None:
    first, second, other = choose(faces), choose(faces), choose(faces, seed=1)
    assert first.faces == second.faces and first.sha256() == second.sha256()
    np.testing.assert_array_equal(first.crops, load_crops(FaceSet("", (), first.faces, ""), HASH_CROP))
    assert first.faces != other.faces and first.sha256() != other.sha256()


def test_excluded_pixels_are_not_chosen_whatever_their_file(faces: FaceSet) -> None:
    excluded = frozenset(face_hash(crop) for crop in choose(faces, 40).crops)
    rest = choose(faces, 100, exclude=excluded)
    assert len(rest.crops) == 100
    assert not excluded & {face_hash(crop) for crop in rest.crops}


def test_duplicates_are_chosen_once(tmp_path: Path) -> None:
    root = draw_faces(tmp_path / "faces", {"neutral": 6, "anger": 6}, seed=2)
    for file in sorted((root / "neutral").iterdir()):
        (root / "neutral" / f"copy-{file.name}").write_bytes(file.read_bytes())
        (root / "anger" / f"also-{file.name}").write_bytes(file.read_bytes())
    chosen = choose(read_data(str(root)), 100)
    assert len(chosen.faces) == len({face_hash(crop) for crop in chosen.crops}) == 12


def test_progress_counts_chosen_faces(faces: FaceSet) -> None:
    seen: list[int] = []
    choose_faces(faces, HASH_CROP, samples=5, seed=0, exclude=(), explicit=True, progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("found", "explicit"), [(0, False), (0, True), (3, False), (99, False)])
def test_too_few_faces_are_refused(found: int, explicit: bool) -> None:
    with pytest.raises(CalibrationError, match=rf"mine: expected at least 100 .*got {found}; .*--samples"):
        check_size("mine", found, explicit=explicit)


def test_few_faces_on_purpose_carry_a_warning(faces: FaceSet) -> None:
    assert check_size("mine", 100, explicit=False) is None
    assert choose(faces, 99).warning == "calibrated on 99 faces, fewer than 100"
    assert choose(faces, 100).warning is None
    with pytest.raises(CalibrationError, match="got 99"):
        choose_faces(faces, HASH_CROP, samples=99, seed=0, exclude=(), explicit=False)


def write_manifest(chosen: CalibrationSet, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chosen.to_json(path.parent))
    return path


def test_a_manifest_is_read_back_as_it_was_chosen(faces: FaceSet, tmp_path: Path) -> None:
    chosen = choose(faces, 120, seed=7)
    path = write_manifest(chosen, tmp_path / "deep" / "m.json")
    read = read_data(str(path))
    assert [face.path.resolve() for face in read.faces] == [face.path.resolve() for face in chosen.faces]
    assert [face.label for face in read.faces] == [face.label for face in chosen.faces]
    whole = whole_manifest(path, HASH_CROP, explicit=False)
    assert whole.sha256() == chosen.sha256()
    assert (whole.seed, whole.warning) == (7, None)
    np.testing.assert_array_equal(whole.crops, chosen.crops)


def test_a_manifest_may_move_with_its_pictures(tmp_path: Path) -> None:
    root = draw_faces(tmp_path / "old" / "faces", {"anger": 4}, seed=3)
    write_manifest(choose(read_data(str(root)), 4), tmp_path / "old" / "m.json")
    (tmp_path / "old").rename(tmp_path / "new")
    assert len(read_data(str(tmp_path / "new" / "m.json")).faces) == 4


def test_a_changed_picture_is_refused(tmp_path: Path) -> None:
    root = draw_faces(tmp_path / "faces", {"anger": 4}, seed=3)
    path = write_manifest(choose(read_data(str(root)), 4), tmp_path / "m.json")
    victim = root / "anger" / "002.png"
    victim.write_bytes((root / "anger" / "001.png").read_bytes())
    with pytest.raises(InputError, match=r"002\.png has changed since the manifest was made"):
        whole_manifest(path, HASH_CROP, explicit=True)
    victim.unlink()
    with pytest.raises(InputError, match=r"002\.png cannot be read"):
        whole_manifest(path, HASH_CROP, explicit=True)


def test_a_manifest_that_was_made_small_on_purpose_is_taken(faces: FaceSet, tmp_path: Path) -> None:
    path = write_manifest(choose(faces, 20), tmp_path / "small.json")
    assert whole_manifest(path, HASH_CROP, explicit=False).warning == "calibrated on 20 faces, fewer than 100"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "warning": None}))
    with pytest.raises(CalibrationError, match="got 20"):
        whole_manifest(path, HASH_CROP, explicit=False)
    assert whole_manifest(path, HASH_CROP, explicit=True).warning is not None


@pytest.mark.parametrize("change", [{"seed": "0"}, {"seed": None}, {"warning": 3}])
def test_a_manifest_with_odd_fields_is_refused(
    faces: FaceSet, tmp_path: Path, change: dict[str, object]
) -> None:
    path = write_manifest(choose(faces, 100), tmp_path / "m.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"m\.json: expected a whole number as `seed`"):
        whole_manifest(path, HASH_CROP, explicit=False)


def test_what_counts_as_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    assert is_manifest("m.json") and is_manifest("M.JSON")
    assert not is_manifest("ferplus:d") and not is_manifest("faces.csv")
    assert not is_manifest(str(tmp_path / "folder.json"))
