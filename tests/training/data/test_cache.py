"""Loading: in memory, from the cache, larger than memory, with broken pictures, with a damaged cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_fer.errors import InputError
from edge_fer.images import read_image
from edge_fer.preprocess import CropSpec, crop_whole
from tests.training.data import trees
from training.data import cache, decoding
from training.data.faces import FaceTensors, LoadOptions, drop_duplicates, load_faces

CROP = CropSpec(size=16, margin=0.0)


class Log:
    """What loading reports, and how many faces it decoded."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.decoded: list[tuple[int, int]] = []

    def options(
        self, folder: Path | None, *, skip_bad: bool = False, in_memory: int = 1 << 30
    ) -> LoadOptions:
        return LoadOptions(
            skip_bad=skip_bad,
            cache=folder,
            in_memory=in_memory,
            report=self.lines.append,
            progress=lambda done, total: self.decoded.append((done, total)),
        )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of 6 happy and 4 sad faces."""
    for number in range(10):
        trees.picture(tmp_path / "set" / ("happy" if number < 6 else "sad") / f"{number}.png", number, 20)
    return tmp_path / "set"


def expected_crops(folder: Path) -> np.ndarray:
    paths = [folder / ("happy" if number < 6 else "sad") / f"{number}.png" for number in range(10)]
    return np.stack([crop_whole(read_image(path), CROP) for path in paths])


def same(left: FaceTensors, right: FaceTensors) -> bool:
    return torch.equal(left.crops, right.crops) and torch.equal(left.labels, right.labels)


@pytest.mark.parametrize("block", [3, 1024])
def test_all_ways_give_the_same_faces(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(decoding, "BLOCK", block)
    log = Log()
    plain = load_faces(str(data), CROP, 8, log.options(None))
    np.testing.assert_array_equal(plain.crops.numpy(), expected_crops(data))
    assert plain.labels.tolist() == [1] * 6 + [3] * 4
    assert log.decoded == [(done, 10) for done in range(1, 11)]
    first = load_faces(str(data), CROP, 8, log.options(tmp_path / "cache"))
    assert len(log.decoded) == 20
    again = load_faces(str(data), CROP, 8, log.options(tmp_path / "cache"))
    mapped = load_faces(str(data), CROP, 8, log.options(tmp_path / "cache", in_memory=0))
    assert len(log.decoded) == 20  # nothing was decoded again
    assert all(same(plain, other) for other in (first, again, mapped))
    assert first.folder is None and mapped.folder == tmp_path / "cache"
    assert log.lines == []
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_is_mapped_stays_mapped_and_the_file_as_it_is(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    options = Log().options(folder, in_memory=0)
    mapped = load_faces(str(data), CROP, 8, options)
    part = drop_duplicates(mapped, mapped.take(torch.tensor([2, 9])))
    assert part.labels.tolist() == [1] * 5 + [3] * 3 and part.folder == folder
    rows = [row for row in range(10) if row not in (2, 9)]
    np.testing.assert_array_equal(part.crops.numpy(), expected_crops(data)[rows])
    assert len(list(folder.iterdir())) == 2  # the copy has no name
    mapped.crops.zero_()
    np.testing.assert_array_equal(load_faces(str(data), CROP, 8, options).crops.numpy(), expected_crops(data))
    assert len(part.take(torch.tensor([], dtype=torch.int64))) == 0


def test_the_cache_follows_pictures_and_crop_and_not_labels(data: Path, tmp_path: Path) -> None:
    log = Log()
    options = log.options(tmp_path / "cache")
    load_faces(str(data), CROP, 8, options)
    trees.picture(data / "happy/3.png", 99, 20)
    changed = load_faces(str(data), CROP, 8, options)
    assert len(log.decoded) == 20
    np.testing.assert_array_equal(changed.crops.numpy(), expected_crops(data))
    load_faces(str(data), CropSpec(size=8, margin=0.0), 8, options)
    assert len(log.decoded) == 30
    stamp = (data / "sad/7.png").stat()
    os.utime(data / "sad/7.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    load_faces(str(data), CROP, 8, options)
    assert len(log.decoded) == 40
    listed = "".join(f"happy/{number}.png,LABEL\n" for number in range(6))
    for label in ("fear", "anger"):
        table = trees.text(data / "faces.csv", "file,label\n" + listed.replace("LABEL", label))
        labels = load_faces(str(table), CROP, 8, options).labels
        assert len(set(labels.tolist())) == 1
    assert len(log.decoded) == 46  # decoded once for both


def test_broken_pictures_are_counted_and_left_out_only_when_asked(data: Path, tmp_path: Path) -> None:
    (data / "happy/1.png").write_bytes(b"no picture")
    (data / "sad/8.png").write_bytes((data / "sad/8.png").read_bytes()[:60])
    for folder in (None, tmp_path / "cache"):
        log = Log()
        for _ in range(2):
            with pytest.raises(InputError) as caught:
                load_faces(str(data), CROP, 8, log.options(folder))
            text = str(caught.value)
            assert "2 of 10 pictures cannot be read" in text and "--skip-bad" in text
            assert str(data / "happy/1.png") in text and str(data / "sad/8.png") in text
            assert "\n" not in text
        assert len(log.decoded) == (20 if folder is None else 10)  # what is broken is known to the cache
        faces = load_faces(str(data), CROP, 8, log.options(folder, skip_bad=True))
        rows = [0, 2, 3, 4, 5, 6, 7, 9]
        np.testing.assert_array_equal(faces.crops.numpy(), expected(data, rows))
        assert faces.labels.tolist() == [1] * 5 + [3] * 3
        assert len(log.lines) == 3 and str(data / "happy/1.png") in log.lines[0]
        assert "2 of 10 pictures left out" in log.lines[2]


def expected(folder: Path, rows: list[int]) -> np.ndarray:
    paths = [folder / ("happy" if row < 6 else "sad") / f"{row}.png" for row in rows]
    return np.stack([crop_whole(read_image(path), CROP) for path in paths])


def test_nothing_but_broken_pictures_is_refused(tmp_path: Path) -> None:
    trees.text(tmp_path / "set/happy/a.png", "x")
    with pytest.raises(InputError, match="none of the 1 pictures can be read"):
        load_faces(str(tmp_path / "set"), CROP, 8, LoadOptions(skip_bad=True))


def damage(kind: str, array: Path, facts: Path) -> None:
    content = array.read_bytes()
    if kind == "truncated":
        array.write_bytes(content[:-1])
    elif kind == "missing":
        array.unlink()
    elif kind == "header":
        array.write_bytes(content.replace(b"|u1", b"|i1"))
    elif kind == "pixels":
        array.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif kind == "facts":
        facts.write_text(facts.read_text().replace('"bad": []', '"bad": [[0, "x"]]'))
    elif kind == "pickle":
        np.save(array, np.array([{}], dtype=object), allow_pickle=True)
    elif kind == "no JSON":
        facts.write_text("{")
    else:
        facts.write_text(json.dumps([kind]))


@pytest.mark.parametrize(
    "kind", ["truncated", "missing", "header", "pixels", "facts", "pickle", "no JSON", "a list"]
)
def test_a_damaged_cache_is_made_anew_with_one_line(kind: str, data: Path, tmp_path: Path) -> None:
    log, folder = Log(), tmp_path / "cache"
    load_faces(str(data), CROP, 8, log.options(folder))
    array, facts = next(folder.glob("*.npy")), next(folder.glob("*.json"))
    damage(kind, array, facts)
    faces = load_faces(str(data), CROP, 8, log.options(folder))
    np.testing.assert_array_equal(faces.crops.numpy(), expected_crops(data))
    assert len(log.decoded) == 20
    (line,) = log.lines
    assert str(array) in line and "decoded again" in line and "\n" not in line
    load_faces(str(data), CROP, 8, log.options(folder))
    assert len(log.decoded) == 20


def test_a_build_that_is_cut_short_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"

    def full(done: int, total: int) -> None:
        if done == 5:
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot be written: No space left on device; 0\.00 GB are needed"):
        load_faces(str(data), CROP, 8, LoadOptions(cache=folder, progress=full))
    assert list(folder.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        load_faces(str(data), CROP, 8, LoadOptions(cache=tmp_path / "file"))


def test_the_array_is_a_plain_npy(data: Path, tmp_path: Path) -> None:
    load_faces(str(data), CROP, 8, LoadOptions(cache=tmp_path))
    (array,) = tmp_path.glob("*.npy")
    np.testing.assert_array_equal(np.load(array, allow_pickle=False), expected_crops(data))
    assert cache.cache_key([array], CROP) != cache.cache_key([array, array], CROP)


def test_valence_arousal_and_videos_are_loaded(tmp_path: Path) -> None:
    root = trees.affectnet(tmp_path / "a", [(0, 0.5, -0.5), (1, -2, 0.5), (2, -0.25, 1.0)])
    faces = load_faces(f"affectnet8:{root}:train", CROP, 8)
    assert faces.valence_arousal is not None and faces.groups is None
    assert faces.valence_arousal[[0, 2]].tolist() == [[0.5, -0.5], [-0.25, 1.0]]
    assert faces.valence_arousal[1].isnan().all()
    wild = trees.affwild2(trees.affwild2(tmp_path / "w", "b", [1, 2]), "a", [3, -1, 4])
    groups = load_faces(f"affwild2:{wild}:train", CROP, 8)
    assert groups.groups is not None and groups.groups.tolist() == [0, 0, 1, 1]
    assert groups.valence_arousal is None
    table = "file,label,valence,arousal\ntrain_set/images/0.jpg,fear,VALUE,0.5\n"
    for value in ("1.5", "nan", "low"):
        path = trees.text(root / "faces.csv", table.replace("VALUE", value))
        with pytest.raises(InputError, match="expected valence and arousal of -1 to 1, got"):
            load_faces(str(path), CROP, 8)
