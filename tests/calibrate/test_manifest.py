"""Calibration manifests: balanced, seeded, disjoint, without duplicates, and pinned by hash."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibrate.manifest import (
    HASH_CROP,
    POOL,
    CalibrationSet,
    check_size,
    choose_faces,
    is_manifest,
    read_confidence,
    whole_manifest,
)
from calibrate.strata import stratified_order
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


def read_whole(path: Path, *, explicit: bool) -> CalibrationSet:
    return whole_manifest(path, read_data(str(path)), HASH_CROP, explicit=explicit)


def test_a_manifest_tells_other_from_contempt(tmp_path: Path) -> None:
    for name in ("other", "contempt"):
        drawn = read_data(str(draw_faces(tmp_path / name, {"fear": 3, name: 3}, seed=2)))
        path = tmp_path / f"{name}.json"
        path.write_text(choose(drawn, 6).to_json(tmp_path))
        again = read_whole(path, explicit=True)
        assert again.labels == read_data(str(path)).labels == drawn.labels
        assert json.loads(again.to_json(tmp_path))["faces"] == json.loads(path.read_text())["faces"]
        assert {entry["label"] for entry in json.loads(path.read_text())["faces"]} == {"fear", name}


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
    whole = read_whole(path, explicit=False)
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
        read_whole(path, explicit=True)
    victim.unlink()
    with pytest.raises(InputError, match=r"002\.png cannot be read"):
        read_whole(path, explicit=True)


def test_a_manifest_that_was_made_small_on_purpose_is_taken(faces: FaceSet, tmp_path: Path) -> None:
    path = write_manifest(choose(faces, 20), tmp_path / "small.json")
    assert read_whole(path, explicit=False).warning == "calibrated on 20 faces, fewer than 100"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "warning": None}))
    with pytest.raises(CalibrationError, match="got 20"):
        read_whole(path, explicit=False)
    assert read_whole(path, explicit=True).warning is not None


@pytest.mark.parametrize("change", [{"seed": "0"}, {"seed": None}, {"warning": 3}, {"bundle": 7}])
def test_a_manifest_with_odd_fields_is_refused(
    faces: FaceSet, tmp_path: Path, change: dict[str, object]
) -> None:
    path = write_manifest(choose(faces, 100), tmp_path / "m.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"m\.json: expected a whole number as `seed`"):
        read_whole(path, explicit=False)


def test_what_counts_as_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    assert is_manifest("m.json") and is_manifest("M.JSON")
    assert not is_manifest("ferplus:d") and not is_manifest("faces.csv")
    assert not is_manifest(str(tmp_path / "folder.json"))


def brightness(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stand for a float model: surer of brighter faces, 0..1."""
    return (crops[:, :8, :8].mean(axis=(1, 2, 3)) / 255).astype(np.float32)


def choose_spread(faces: FaceSet, samples: int, seed: int = 0) -> CalibrationSet:
    return choose_faces(
        faces, HASH_CROP, samples=samples, seed=seed, exclude=(), explicit=True, confidence=brightness
    )


def test_the_choice_spreads_over_confidence(tmp_path: Path) -> None:
    many = read_data(str(draw_faces(tmp_path / "many", {"neutral": 100, "anger": 100}, seed=6)))
    scored: list[int] = []

    def score(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        scored.append(len(crops))
        return brightness(crops)

    arguments = {"samples": 40, "seed": 3, "exclude": (), "explicit": True}
    chosen = choose_faces(many, HASH_CROP, **arguments, confidence=score)  # type: ignore[arg-type]
    assert scored == [POOL * 40] and len(chosen.crops) == 40
    assert chosen.confidence is not None
    np.testing.assert_array_equal(chosen.confidence, brightness(chosen.crops))
    pool = choose_faces(many, HASH_CROP, **{**arguments, "samples": POOL * 40})  # type: ignore[arg-type]
    for label in {face.label for face in many.faces}:
        mine, theirs = (
            np.sort([score for face, score in zip(each.faces, scores, strict=True) if face.label == label])
            for each, scores in ((chosen, chosen.confidence), (pool, brightness(pool.crops)))
        )
        assert len(mine) == 20 and len(theirs) == 80
        # Four of each fifth of its class.
        edges = [(part[0], part[-1]) for part in np.array_split(theirs, 5)]
        assert [sum(low <= score <= high for score in mine) for low, high in edges] == [4] * 5


def test_a_choice_by_confidence_is_reproducible_and_without_duplicates(faces: FaceSet) -> None:
    first, again, other = (choose_spread(faces, 60, seed) for seed in (0, 0, 1))
    assert first.faces == again.faces and first.sha256() == again.sha256() != other.sha256()
    assert len({face_hash(crop) for crop in first.crops}) == 60
    counts = Counter(face.label for face in first.faces)
    assert sorted(counts.values()) == [10, 16, 17, 17]


def test_few_faces_to_spread_over_are_taken_whole(faces: FaceSet) -> None:
    everything = choose_spread(faces, 200)
    assert len(everything.faces) == len(faces.faces) and everything.warning is None
    with pytest.raises(CalibrationError, match="got 99"):
        choose_faces(faces, HASH_CROP, samples=99, seed=0, exclude=(), explicit=False, confidence=brightness)


@pytest.mark.parametrize(
    ("scores", "finite"), [(np.zeros(3, np.float32), 3), (np.full(140, np.nan, np.float32), 0)]
)
def test_a_confidence_that_is_none_is_refused(
    faces: FaceSet, scores: NDArray[np.float32], finite: int
) -> None:
    said = f"expected a finite confidence of each of 140 faces, got {finite}"
    with pytest.raises(CalibrationError, match=said):
        choose_faces(
            faces, HASH_CROP, samples=100, seed=0, exclude=(), explicit=True, confidence=lambda _: scores
        )


def test_confidence_and_its_bundle_are_read_back(faces: FaceSet, tmp_path: Path) -> None:
    chosen = replace(choose_spread(faces, 110), scored_by="ab" * 32)
    path = write_manifest(chosen, tmp_path / "m.json")
    content = json.loads(path.read_text())
    assert content["format"] == "edge-fer-manifest-1" and content["bundle"] == "ab" * 32
    assert all(0 <= entry["confidence"] <= 1 for entry in content["faces"])
    whole = read_whole(path, explicit=False)
    assert whole.scored_by == chosen.scored_by and whole.sha256() == chosen.sha256()
    assert whole.confidence is not None
    np.testing.assert_allclose(whole.confidence, chosen.confidence, rtol=0, atol=1e-6)
    again = write_manifest(whole, tmp_path / "again.json")
    assert json.loads(again.read_text())["faces"] == content["faces"]


def test_a_manifest_of_before_confidence_is_read(faces: FaceSet, tmp_path: Path) -> None:
    path = write_manifest(choose(faces, 100), tmp_path / "m.json")
    content = json.loads(path.read_text())
    del content["bundle"]
    path.write_text(json.dumps(content))
    whole = read_whole(path, explicit=False)
    assert (whole.confidence, whole.scored_by) == (None, None)


@given(st.lists(st.none() | st.floats(0, 1) | st.integers(0, 1), max_size=9))
def test_confidence_is_there_for_all_faces_or_for_none(values: list[float | None]) -> None:
    if None not in values and values:
        found = read_confidence(Path("m.json"), list(values))
        assert found is not None
        np.testing.assert_array_equal(found, np.array(values, np.float32))
    elif any(value is not None for value in values):
        with pytest.raises(InputError, match=r"m\.json: expected a `confidence` from 0 to 1"):
            read_confidence(Path("m.json"), list(values))
    else:
        assert read_confidence(Path("m.json"), list(values)) is None


@given(
    st.booleans()
    | st.text()
    | st.lists(st.floats())
    | st.floats(1, exclude_min=True)
    | st.floats(max_value=0, exclude_max=True)
    | st.just(float("nan"))
)
def test_a_confidence_that_is_no_share_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="expected a `confidence` from 0 to 1"):
        read_confidence(Path("m.json"), [0.5, value])
