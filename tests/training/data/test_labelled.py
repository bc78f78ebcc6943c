"""DATA strings, splits, subject-independent folds, and the CSV that other commands read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.errors import InputError
from tests.training.data import trees
from training.data.folds import assign_folds, fold_rows
from training.data.labelled import Source, parse_source, read_labelled, split_data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("rafdb:/d/basic", Source("rafdb", "/d/basic", "", None)),
        ("rafdb:/d/basic:train", Source("rafdb", "/d/basic", "train", None)),
        ("rafdb:C:/d:test", Source("rafdb", "C:/d", "test", None)),
        ("jaffe:/d:fold3of10", Source("jaffe", "/d", "", (3, 10))),
        ("jaffe:/d:fold3of10:train", Source("jaffe", "/d", "train", (3, 10))),
        ("faces.csv:fold1of5:valid", Source("", "faces.csv", "valid", (1, 5))),
        ("ferplus:/d:train", Source("", "ferplus:/d:train", "", None)),
        ("/folder", Source("", "/folder", "", None)),
        ("/folder:train", Source("", "/folder:train", "", None)),
        ("rafdb", Source("", "rafdb", "", None)),
        ("rafdb::train", Source("rafdb", ":train", "", None)),
        (":fold1of2", Source("", ":fold1of2", "", None)),
    ],
)
def test_what_data_names(data: str, expected: Source) -> None:
    assert parse_source(data) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("affwild2:/d:test", "affwild2 has the splits train, valid, got 'test'"),
        ("jaffe:", "expected jaffe:DIR"),
        ("jaffe:/d:train", "jaffe has no official splits; name a fold"),
        ("jaffe:/d:fold0of5", "1 <= I <= N"),
        ("jaffe:/d:fold6of5:train", "1 <= I <= N"),
        ("jaffe:/d:fold1of1", "N >= 2"),
        ("jaffe:/d:fold1of5:test", "then train or valid"),
    ],
)
def test_impossible_data_is_refused(data: str, reason: str) -> None:
    with pytest.raises(InputError, match="(?s)" + reason.replace("(", r"\(")):
        parse_source(data)


def test_a_folder_of_both_splits_means_the_held_out_one(noise_data: Path) -> None:
    assert read_labelled(str(noise_data)) == read_labelled(str(noise_data / "valid"))


def test_splits_of_layouts_and_folds() -> None:
    assert split_data("rafdb:/d") == ("rafdb:/d:train", "rafdb:/d:test")
    assert split_data("affectnet7:/d") == ("affectnet7:/d:train", "affectnet7:/d:valid")
    assert split_data("fer2013:/d") == ("fer2013:/d:train", "fer2013:/d:valid")
    assert split_data("ferplus:/d") == ("ferplus:/d:train", "ferplus:/d:valid")
    fold = "ckplus:/d:fold2of10"
    assert split_data(fold) == (f"{fold}:train", f"{fold}:valid")
    with pytest.raises(InputError, match="name a fold: jaffe:/d:fold1of5"):
        split_data("jaffe:/d")
    for data in ("rafdb:/d:train", "ferplus:/d:valid"):
        with pytest.raises(InputError, match="leave it out"):
            split_data(data)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=30),
    folds=st.integers(2, 12),
    seed=st.integers(0, 5),
)
def test_folds_part_the_subjects_evenly(sizes: list[int], folds: int, seed: int) -> None:
    subjects = [f"s{number}" for number, size in enumerate(sizes) for _ in range(size)]
    if folds > len(sizes):
        with pytest.raises(InputError, match="one subject each at least"):
            assign_folds(subjects, folds, seed)
        return
    seen: Counter[int] = Counter()
    faces = []
    for fold in range(1, folds + 1):
        train, valid = fold_rows(subjects, fold, folds, seed)
        assert sorted(train + valid) == list(range(len(subjects)))
        assert not {subjects[row] for row in train} & {subjects[row] for row in valid}
        assert train and valid
        seen.update(valid)
        faces.append(len(valid))
    assert set(seen.values()) == {1} and len(seen) == len(subjects)
    assert max(faces) - min(faces) <= max(sizes)


def test_the_largest_subjects_are_placed_first() -> None:
    subjects = [name for name, size in zip("abcde", (3, 3, 4, 5, 3), strict=True) for _ in range(size)]
    for seed in range(5):  # 5 + 3 and 4 + 3 + 3; by the number of subjects, or smallest first: 11 and 7
        assert sorted(len(fold_rows(subjects, fold, 2, seed)[1]) for fold in (1, 2)) == [8, 10]


def test_folds_depend_on_the_seed_and_not_on_the_order_of_faces() -> None:
    subjects = [f"s{number}" for number in range(20)]
    places = assign_folds(subjects, 5)
    assert assign_folds(subjects[::-1] * 3, 5) == places
    assert any(assign_folds(subjects, 5, seed) != places for seed in range(1, 4))


def test_a_fold_of_jaffe(tmp_path: Path) -> None:
    names = ["KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM"]
    trees.jaffe(tmp_path, names)
    held_out = []
    for fold in range(1, 11):
        train = read_labelled(f"jaffe:{tmp_path}:fold{fold}of10:train")
        valid = read_labelled(f"jaffe:{tmp_path}:fold{fold}of10:valid")
        assert (len(train.faces), len(valid.faces)) == (63, 7)
        (subject,) = {face.columns["subject"] for face in valid.faces}
        assert subject not in {face.columns["subject"] for face in train.faces}
        held_out.append(subject)
        assert valid == read_labelled(f"jaffe:{tmp_path}:fold{fold}of10")
    assert sorted(held_out) == names
    assert valid.name == "jaffe:fold10of10:valid"


def test_folds_need_subjects(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rafdb has official splits and no subjects"):
        read_labelled(f"rafdb:{tmp_path}:fold1of2")
    for name in ("a.png", "b.png"):
        trees.picture(tmp_path / name)
    table = trees.text(tmp_path / "faces.csv", "file,label,subject\na.png,fear,x\nb.png,anger,\n")
    with pytest.raises(InputError, match="need the subject of every face, 1 of 2 have none"):
        read_labelled(f"{table}:fold1of2")
