"""The one reader of DATA, on small data sets made here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet, column_values, face_hash, label_numbers, load_crops, read_data
from edge_fer.images import read_image, write_image
from edge_fer.labels import LABELS, LABELS_WITH_OTHER
from edge_fer.preprocess import CropSpec

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
ROWS = (
    "Training,fer0.png,4,0,0,1,3,2,0,0,0,0",
    "Training,fer1.png,0,0,0,0,0,0,0,0,6,4",  # unknown wins: left out
    "Training,fer2.png,0,0,0,3,0,0,0,3,3,1",  # a tie goes to the first column, sadness
    "Training,,0,0,0,0,0,0,0,0,0,10",  # no face: official rows have no picture name
    "PublicTest,fer3.png,0,1,0,0,0,0,0,5,4,0",
    "PrivateTest,fer4.png,0,1,0,0,0,9,0,0,0,0",
    "Training,fer5.png,0,0,0,0,0,0,3,0,3,3",  # fear before unknown and NF
)


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8))
    return path


def ferplus(root: Path, rows: Sequence[str] = ROWS) -> Path:
    (root / "fer2013new.csv").write_text("\n".join((HEADER, *rows)) + "\n")
    folders = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
    for number, row in enumerate(rows):
        usage, name = row.split(",")[:2]
        if name:
            picture(root / folders[usage] / name, number)
    return root


def refused(data: object) -> str:
    with pytest.raises(InputError) as caught:
        read_data(str(data))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_per_class_maps_names_and_sorts(tmp_path: Path) -> None:
    paths = [picture(tmp_path / name) for name in ("Sad/b.png", "Sad/a.jpg", "happy/1.png", "contempt/z.bmp")]
    (tmp_path / "Sad" / "notes.txt").write_text("x")
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / ".cache").mkdir()
    found = read_data(str(tmp_path))
    assert found == FaceSet(
        tmp_path.name,
        LABELS,
        (
            Face(paths[1], 3, None),
            Face(paths[0], 3, None),
            Face(paths[3], 7, None),
            Face(paths[2], 1, None),
        ),
        "",
    )


def test_folders_that_are_not_data_are_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in refused(tmp_path / "none")
    assert "one sub-folder per class" in refused(tmp_path)
    (tmp_path / "happy").mkdir()
    assert "no pictures in this folder" in refused(tmp_path)
    picture(tmp_path / "happy" / "a.png")
    (tmp_path / "holiday").mkdir()
    text = refused(tmp_path)
    assert "unknown emotion 'holiday'" in text
    assert "contempt" in text
    (tmp_path / "data.xlsx").write_text("x")
    assert "expected a folder per class" in refused(tmp_path / "data.xlsx")


def test_ferplus_takes_the_most_votes_and_drops_unknown(tmp_path: Path) -> None:
    root = ferplus(tmp_path)
    train = read_data(f"ferplus:{root}:train")
    assert train.name == "ferplus:train"
    assert [(face.path.name, face.label) for face in train.faces] == [
        ("fer0.png", 0),
        ("fer2.png", 3),
        ("fer5.png", 6),
    ]
    assert train.faces[0].votes == (4, 0, 0, 1, 3, 2, 0, 0)
    assert train.note.startswith("2 of 5 faces left out")
    assert all(face.path.is_file() for face in train.faces)
    valid = read_data(f"ferplus:{root}")
    assert valid == read_data(f"ferplus:{root}:valid")
    assert [(face.path.name, face.label) for face in valid.faces] == [("fer3.png", 7)]
    assert valid.note == ""  # nothing is left out
    assert [face.label for face in read_data(f"ferplus:{root}:test").faces] == [5]


def test_a_ferplus_face_without_a_vote_has_no_label(tmp_path: Path) -> None:
    root = ferplus(tmp_path)
    rows = [line.split(",") for line in (root / "fer2013new.csv").read_text().splitlines()]
    before = len(read_data(f"ferplus:{root}:train").faces)
    [row] = [row for row in rows if row[1] == "fer0.png"]
    row[2:] = ["0"] * 10
    (root / "fer2013new.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    after = read_data(f"ferplus:{root}:train")
    assert len(after.faces) == before - 1 and after.note.startswith("3 of 5 faces left out")


def test_ferplus_faults_are_precise(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(f"ferplus:{tmp_path}")
    root = ferplus(tmp_path)
    for name in ("fer2.png", "fer5.png"):
        (root / "FER2013Train" / name).unlink()
    assert refused(f"ferplus:{root}:train").endswith("2 of 3 pictures missing, first 'fer2.png'")
    (root / "fer2013new.csv").write_text(HEADER + "\nTraining,fer0.png,4,x,0,1,3,2,0,0,0,0\n")
    assert "fer2013new.csv:2: expected ten vote counts" in refused(f"ferplus:{root}:train")
    (root / "fer2013new.csv").write_text(HEADER + "\nTraining,fer0.png,4\n")
    assert "fer2013new.csv:2: expected ten vote counts" in refused(f"ferplus:{root}:train")
    (root / "fer2013new.csv").write_text(HEADER + "\nTraining,fer0.png,nan,1,0,1,3,2,0,0,0,0\n")
    assert "fer2013new.csv:2: expected ten vote counts" in refused(f"ferplus:{root}:train")
    (root / "fer2013new.csv").write_text(HEADER.replace("fear", "fright") + "\n")
    assert "'fear' is missing" in refused(f"ferplus:{root}:train")
    (root / "fer2013new.csv").write_text(HEADER + "\n")
    assert "got none" in refused(f"ferplus:{root}:train")


def test_csv_is_relative_and_keeps_other_columns(tmp_path: Path) -> None:
    picture(tmp_path / "faces" / "a b.png")
    table = tmp_path / "set.csv"
    table.write_text("\ufefflabel,age,file\nAngry,30,faces/a b.png\n,31,faces/a b.png\n", encoding="utf-8")
    found = read_data(str(table))
    assert found.name == "set"
    assert found.faces == (
        Face(tmp_path / "faces" / "a b.png", 4, None, {"age": "30"}),
        Face(tmp_path / "faces" / "a b.png", None, None, {"age": "31"}),
    )
    assert column_values(found, "age") == ["30", "31"]
    with pytest.raises(InputError, match="set: expected a CSV with age, got no column 'sex'"):
        column_values(found, "sex")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,emotion\na.png,happy\n", "'label' is missing"),
        ("", "'file' is missing"),
        ("file,label\n", "at least one face"),
        ("file,label\na.png,happy\nb.png,happy\n", ":3: no such picture"),
        ("file,label\na.png,joyous\n", ":2: unknown emotion 'joyous'"),
        ("file,label\n,happy\n", ":2: the column 'file' is empty"),
        ("file,label\n\0,happy\n", "set.csv"),
    ],
)
def test_csv_faults_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "set.csv").write_text(text)
    assert message in refused(tmp_path / "set.csv")


def test_binary_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes(b"\xff\xfe\x00\xd8")
    assert "UTF-8" in refused(tmp_path / "set.csv")


def test_other_takes_the_place_of_contempt(tmp_path: Path) -> None:
    a, b, c = (picture(tmp_path / "set" / name) for name in ("Other/a.png", "fear/b.png", "neutral/c.png"))
    table = tmp_path / "set.csv"
    table.write_text("file,label\nset/fear/b.png,fear\nset/Other/a.png,OTHER\nset/neutral/c.png,\n")
    folder, listed = read_data(str(tmp_path / "set")), read_data(str(table))
    assert folder.labels == listed.labels == LABELS_WITH_OTHER
    assert folder.faces == (Face(a, 7, None), Face(b, 6, None), Face(c, 0, None))
    assert listed.faces == (Face(b, 6, None), Face(a, 7, None), Face(c, None, None))
    assert label_numbers(listed, LABELS_WITH_OTHER).tolist() == [6, 7, -1]
    assert label_numbers(listed, LABELS).tolist() == [6, -1, -1]
    assert label_numbers(folder, ("fear", "neutral")).tolist() == [-1, 0, 1]
    picture(tmp_path / "set/contempt/d.png")
    assert "expected contempt or other as the eighth label, got both" in refused(tmp_path / "set")


def manifest(folder: Path, **changes: object) -> Path:
    digest = hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    face = {"file": "a.png", "label": "happiness", "sha256": digest, **changes}
    content = {"format": "edge-fer-manifest-1", "data": "x", "seed": 0, "warning": None, "faces": [face]}
    path = folder / "m.json"
    path.write_text(json.dumps(content))
    return path


def test_manifest_is_read_and_verified(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    assert read_data(str(manifest(tmp_path))).faces == (Face(path, 1, None),)
    assert read_data(str(manifest(tmp_path, label=None, file=str(path)))).faces == (Face(path, None, None),)
    assert read_data(str(manifest(tmp_path, label="other"))).labels == LABELS_WITH_OTHER
    assert "has changed since" in refused(manifest(tmp_path, sha256="0" * 64))
    assert "cannot be read" in refused(manifest(tmp_path, file="b.png"))
    assert "unknown emotion" in refused(manifest(tmp_path, label="joyous"))
    assert "expected the keys" in refused(manifest(tmp_path, label=3))
    assert "expected the keys" in refused(manifest(tmp_path, file=None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a manifest in JSON"),
        ("[" * 200_000, "expected a manifest in JSON"),
        ("[]", "format 'edge-fer-manifest-1', got None"),
        ('{"format": "edge-fer-manifest-2"}', "got 'edge-fer-manifest-2'"),
        ('{"format": "edge-fer-manifest-1"}', "under the key 'faces'"),
        ('{"format": "edge-fer-manifest-1", "faces": []}', "at least one face"),
        ('{"format": "edge-fer-manifest-1", "faces": [7]}', "face 0: expected the keys"),
    ],
)
def test_manifest_faults(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.json").write_text(text)
    assert message in refused(tmp_path / "m.json")


def test_crops_are_loaded_in_order(tmp_path: Path) -> None:
    faces = tuple(Face(picture(tmp_path / f"{seed}.png", seed), None, None) for seed in (2, 0, 1))
    seen: list[int] = []
    crops = load_crops(FaceSet("x", LABELS, faces, ""), CropSpec(size=12, margin=0.5), seen.append)
    assert crops.shape == (3, 12, 12, 3)
    assert crops.dtype == np.uint8
    assert seen == [1, 2, 3]
    for crop, face in zip(
        crops, faces, strict=True
    ):  # 10 of 12 columns are the picture, one on each side its edge
        np.testing.assert_array_equal(crop[:, 1:-1], read_image(face.path))


def test_broken_face_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    faces = FaceSet("x", LABELS, (Face(tmp_path / "a.png", None, None),), "")
    with pytest.raises(InputError, match=r"a\.png"):
        load_crops(faces, CropSpec(size=8, margin=0))


def test_hash_is_of_the_pixels() -> None:
    crop = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert face_hash(crop) == hashlib.sha256(bytes(range(48))).hexdigest()
    assert face_hash(np.asfortranarray(crop)) == face_hash(crop)
    assert face_hash(crop[::-1]) != face_hash(crop)
