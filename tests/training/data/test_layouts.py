"""Every official layout on a tiny tree of it: labels, order, splits, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_fer.errors import InputError
from edge_fer.faces import read_data
from edge_fer.images import read_image
from tests.training.data import trees
from training.data.labelled import read_labelled


def named(data: str) -> list[tuple[str, str]]:
    """Return file name and label of every face."""
    faces = read_labelled(data)
    return [(face.path.name, faces.labels[face.label]) for face in faces.faces if face.label is not None]


def refused(data: str) -> str:
    with pytest.raises(InputError) as caught:
        read_labelled(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rafdb(tmp_path: Path) -> None:
    root = trees.rafdb(tmp_path)
    expected = [
        (f"{Path(name).stem}_aligned.jpg", label)
        for name, _, label in trees.RAFDB_ROWS
        if name.startswith("train")
    ]
    assert named(f"rafdb:{root}:train") == named(f"rafdb:{root / 'basic'}:train") == expected
    assert named(f"rafdb:{root}") == [
        ("test_0001_aligned.jpg", "surprise"),
        ("test_0002_aligned.jpg", "fear"),
    ]
    assert read_labelled(f"rafdb:{root}:train").name == "rafdb:train"


def test_rafdb_says_what_is_wrong(tmp_path: Path) -> None:
    root = trees.rafdb(tmp_path)
    lines = root / "basic/EmoLabel/list_patition_label.txt"
    assert "has the splits train, test, got 'valid'" in refused(f"rafdb:{root}:valid")
    aligned = root / "basic/Image/aligned"
    (aligned / "train_00002_aligned.jpg").unlink()
    (aligned / "train_00005_aligned.jpg").unlink()
    assert "2 of 5 pictures missing, first 'train_00002_aligned.jpg'" in refused(f"rafdb:{root}:train")
    lines.write_text("train_00001.jpg 5\ntrain_00003.jpg 8\n")
    assert f"{lines}:2: unknown label '8', expected one of 1, 2, 3" in refused(f"rafdb:{root}:train")
    lines.write_text("train_00001.jpg 5\n\n../../train_00003.jpg 7\n")
    assert f"{lines}:3: expected the name of a picture without a folder" in refused(f"rafdb:{root}:train")
    lines.write_text("train_00001.jpg 5\ntrained_00003.jpg 7\n")
    assert f"{lines}:2: expected a name that begins with train_ or test_, got" in refused(f"rafdb:{root}")
    lines.write_text("train_00001.jpg\n")
    assert f"{lines}:1: expected a picture's name and its label" in refused(f"rafdb:{root}:train")
    lines.unlink()
    assert "no such file" in refused(f"rafdb:{root}:train")
    assert "expected the folder EmoLabel or basic/EmoLabel" in refused(f"rafdb:{tmp_path / 'none'}")


def test_fer2013_is_unpacked_once(tmp_path: Path) -> None:
    usages = ["Training", "Training", "PublicTest", "PrivateTest", "Training", "PublicTest", "Training"]
    path = trees.fer2013(tmp_path, list(enumerate(usages)))
    assert named(f"fer2013:{tmp_path}:train") == [  # a folder per class, in the order of their names
        ("00000.png", "anger"),
        ("00001.png", "disgust"),
        ("00006.png", "neutral"),
        ("00004.png", "sadness"),
    ]
    assert sorted(named(f"fer2013:{path}")) == [("00002.png", "fear"), ("00005.png", "surprise")]
    assert named(f"fer2013:{path}:test") == [("00003.png", "happiness")]
    (unpacked,) = [entry for entry in tmp_path.iterdir() if entry.is_dir()]
    pixels = np.random.default_rng(3).integers(0, 256, 48 * 48).reshape(48, 48)
    found = read_image(unpacked / "test/happiness/00003.png")
    np.testing.assert_array_equal(found, np.repeat(pixels[:, :, None], 3, axis=2))
    assert len(read_data(str(unpacked / "test")).faces) == 1  # is DATA for every command
    before = (unpacked / "test/happiness/00003.png").stat().st_mtime_ns
    named(f"fer2013:{path}:test")
    assert (unpacked / "test/happiness/00003.png").stat().st_mtime_ns == before


def test_fer2013_says_what_is_wrong(tmp_path: Path) -> None:
    good = trees.fer2013(tmp_path, [(0, "Training")]).read_text().splitlines()
    path = tmp_path / "other.csv"
    for row, expected in (
        ("7,0 1 2,Training", ":3: unknown label '7'"),
        ("1,0 1 2,Training", ":3: expected 2304 pixels of 0 to 255, got 3 values"),
        ("1," + "0 " * 2303 + "256,Training", ":3: expected 2304 pixels"),
        ("1," + "0 " * 2304 + ",Test", ":3: unknown Usage 'Test'"),
    ):
        path.write_text("\n".join([*good, row]))
        assert f"{path}{expected}" in refused(f"fer2013:{path}:train")
    path.write_text("emotion,pixels\n")
    assert "'Usage' is missing" in refused(f"fer2013:{path}")
    path.write_text("emotion,pixels,Usage\n")
    assert "at least one face" in refused(f"fer2013:{path}")
    path.write_text("\n".join(good))
    assert "expected faces of the split 'test'" in refused(f"fer2013:{path}:test")
    left = [entry.name for entry in tmp_path.iterdir() if entry.is_dir()]
    assert len(left) == 1 and left[0].startswith("other-faces-")  # nothing of the bad ones


def test_affectnet(tmp_path: Path) -> None:
    rows = [(0, 0.0, 0.1), (7, -0.5, 0.25), (6, -0.4, 0.8), (1, 0.9, -2), (8, -2, -2), (2, -0.5, -0.25)]
    rows += [(9, -2, -2), (10, -2, -2)]
    root = trees.affectnet(tmp_path, rows)
    eight = read_labelled(f"affectnet8:{root}:train")
    assert named(f"affectnet8:{root}:train") == [
        ("0.jpg", "neutral"),
        ("1.jpg", "contempt"),
        ("2.jpg", "anger"),
        ("3.jpg", "happiness"),
        ("5.jpg", "sadness"),
    ]
    assert [dict(face.columns) for face in eight.faces][1:4] == [
        {"valence": "-0.5", "arousal": "0.25"},
        {"valence": "-0.4", "arousal": "0.8"},
        {"valence": "0.9"},
    ]
    assert eight.note == "3 of 8 faces left out: none of the 8 emotions"
    assert [name for name, _ in named(f"affectnet7:{root}:train")] == ["0.jpg", "2.jpg", "3.jpg", "5.jpg"]
    trees.affectnet(root, [(3, 0, 0), (4, 0, 0), (5, 0, 0)], "val_set")
    assert [label for _, label in named(f"affectnet8:{root}")] == ["surprise", "fear", "disgust"]
    assert read_labelled(f"affectnet8:{root}").note == ""


def test_affectnet_says_what_is_wrong(tmp_path: Path) -> None:
    root = trees.affectnet(tmp_path / "a", [(0, 0, 0), (1, 0, 0), (2, 0, 0)])
    data, notes = f"affectnet8:{root}:train", root / "train_set/annotations"
    (notes / "1_exp.npy").unlink()
    assert "1 of 3 annotations missing, first '1_exp.npy'" in refused(data)
    np.save(notes / "1_exp.npy", np.array(11))
    assert f"{notes / '1_exp.npy'}: unknown label '11'" in refused(data)
    np.save(notes / "1_exp.npy", np.array([1, 2]))
    assert "expected a .npy file of one number" in refused(data)
    np.save(notes / "1_exp.npy", np.array({"a": 1}, dtype=object), allow_pickle=True)
    assert "expected a .npy file of one number" in refused(data)
    (root / "train_set/images/2.jpg").unlink()
    assert "1 of 3 pictures missing, first that of '2_exp.npy'" in refused(data)
    (tmp_path / "old/Manually_Annotated_file_lists").mkdir(parents=True)
    assert "older release" in refused(f"affectnet7:{tmp_path / 'old'}")


def test_affwild2(tmp_path: Path) -> None:
    root = trees.affwild2(tmp_path, "7-60-1920x1080", [0, 1, -1, 2, 3, 4, 5, 6, 7], absent=[4])
    trees.affwild2(tmp_path, "134_left", [-1, 6])
    notes = root / "6th_ABAW_Annotations/EXPR_Classification_Challenge/Train_Set"
    trees.text(notes / "read-me.md", "no video")
    faces = read_labelled(f"affwild2:{root}:train")
    assert faces.labels[7] == "other" and "contempt" not in faces.labels
    assert [
        (face.columns["video"], face.path.stem, faces.labels[face.label or 0]) for face in faces.faces
    ] == [
        ("134_left", "00002", "surprise"),
        ("7-60-1920x1080", "00001", "neutral"),
        ("7-60-1920x1080", "00002", "anger"),
        ("7-60-1920x1080", "00005", "fear"),
        ("7-60-1920x1080", "00006", "happiness"),
        ("7-60-1920x1080", "00007", "sadness"),
        ("7-60-1920x1080", "00008", "surprise"),
        ("7-60-1920x1080", "00009", "other"),
    ]
    assert faces.note == "2 frames left out without a label, 1 without a face"


def test_affwild2_says_what_is_wrong(tmp_path: Path) -> None:
    root = trees.affwild2(tmp_path, "video1", [0, 1])
    notes = root / "6th_ABAW_Annotations/EXPR_Classification_Challenge/Train_Set"
    trees.text(notes / "video2.txt", trees.AFFWILD2_HEADER + "\n0\n")
    assert "1 of 2 videos missing, first that of 'video2.txt'" in refused(f"affwild2:{root}:train")
    (notes / "video2.txt").unlink()
    trees.text(notes / "video1.txt", trees.AFFWILD2_HEADER + "\n0\n8\n")
    assert f"{notes / 'video1.txt'}:3: unknown label '8'" in refused(f"affwild2:{root}:train")
    trees.text(notes / "video1.txt", "Anger,Disgust\n0\n")
    assert f"{notes / 'video1.txt'}:1: expected the header neutral,anger" in refused(f"affwild2:{root}:train")
    assert "Validation_Set: cannot be read" in refused(f"affwild2:{root}")
    assert "expected the folder EXPR_Classification_Challenge" in refused(f"affwild2:{notes}")


def test_affwild2_of_the_first_challenge_has_seven_classes(tmp_path: Path) -> None:
    root = trees.affwild2(tmp_path, "v", [0, 1])
    notes = root / "6th_ABAW_Annotations/EXPR_Classification_Challenge"
    header = trees.AFFWILD2_HEADER.removesuffix(",Other")
    trees.text(notes / "Train_Set/v.txt", f" {header} \r\n6\r\n4\r\n\r\n")
    notes.rename(root / notes.name)  # directly under the folder, too
    assert named(f"affwild2:{root}:train") == [("00001.jpg", "surprise"), ("00002.jpg", "happiness")]


def test_jaffe(tmp_path: Path) -> None:
    trees.jaffe(tmp_path, ["KA", "YM"])
    (tmp_path / "README_FIRST.txt").write_text("x")
    assert named(f"jaffe:{tmp_path}")[:8] == [
        ("KA.AN1.4.tiff", "anger"),
        ("KA.DI1.5.tiff", "disgust"),
        ("KA.FE1.6.tiff", "fear"),
        ("KA.HA1.1.tiff", "happiness"),
        ("KA.NE1.0.tiff", "neutral"),
        ("KA.SA1.2.tiff", "sadness"),
        ("KA.SU1.3.tiff", "surprise"),
        ("YM.AN1.4.tiff", "anger"),
    ]
    assert {face.columns["subject"] for face in read_labelled(f"jaffe:{tmp_path}").faces} == {"KA", "YM"}
    strange = trees.picture(tmp_path / "KA.XX1.9.tiff")
    assert f"{strange}: unknown label 'XX', expected one of NE, HA" in refused(f"jaffe:{tmp_path}")
    strange.rename(tmp_path / "copy of KA.tiff")
    assert "expected a name such as KA.AN1.39.tiff" in refused(f"jaffe:{tmp_path}")


def test_ferg(tmp_path: Path) -> None:
    root = trees.ferg(tmp_path)
    faces = read_labelled(f"ferg:{root}")
    assert len(faces.faces) == 12
    assert named(f"ferg:{root}") == named(f"ferg:{root / 'FERG_DB_256'}")
    assert named(f"ferg:{root}")[:3] == [
        ("aia_anger_1.png", "anger"),
        ("aia_anger_2.png", "anger"),
        ("aia_joy_1.png", "happiness"),
    ]
    assert [face.columns["subject"] for face in faces.faces] == ["aia"] * 6 + ["bonnie"] * 6
    others = {"sadness": "sadness", "surprise": "surprise", "disgust": "disgust", "Fear": "fear"}
    for name, label in others.items():
        path = trees.picture(root / f"FERG_DB_256/cleo/cleo_{name}/cleo.png")
        assert named(f"ferg:{root}")[-1] == ("cleo.png", label)
        path.unlink()
        path.parent.rmdir()
    trees.picture(root / "FERG_DB_256/aia/aia_envy/1.png")
    assert "aia_envy: unknown label 'envy'" in refused(f"ferg:{root}")
    (root / "FERG_DB_256/aia/aia_envy").rename(root / "FERG_DB_256/aia/envy")
    assert "expected a folder named aia_EXPRESSION" in refused(f"ferg:{root}")


def test_ckplus(tmp_path: Path) -> None:
    sequences = [
        ("S005", "001", 6, 3),
        ("S005", "002", 5, None),
        ("S010", "001", 3, 7),
        ("S010", "002", 1, 2),
    ]
    root = trees.ckplus(tmp_path, sequences)
    trees.text(root / "Emotion/S005/002/read-me.txt", "no emotion")
    assert named(f"ckplus:{root}") == [
        ("S005_001_00000001.png", "neutral"),
        ("S005_001_00000004.png", "disgust"),
        ("S005_001_00000005.png", "disgust"),
        ("S005_001_00000006.png", "disgust"),
        ("S010_001_00000001.png", "neutral"),
        ("S010_001_00000002.png", "surprise"),
        ("S010_001_00000003.png", "surprise"),
        ("S010_002_00000001.png", "neutral"),
    ]
    faces = read_labelled(f"ckplus:{root}")
    (root / "Emotion").rename(root / "Emotion_labels")
    assert read_labelled(f"ckplus:{root}") == faces
    assert [face.columns["subject"] for face in faces.faces] == ["S005"] * 4 + ["S010"] * 4
    assert faces.note == "1 of 4 sequences left out: no emotion"


@pytest.mark.parametrize(
    ("code", "label"),
    list(enumerate(("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"))),
)
def test_the_codes_of_ckplus(code: int, label: str, tmp_path: Path) -> None:
    labels = [name for _, name in named(f"ckplus:{trees.ckplus(tmp_path, [('S1', '001', 2, code)])}")]
    assert labels == (["neutral", label] if code else ["neutral"])


def test_ckplus_says_what_is_wrong(tmp_path: Path) -> None:
    root = trees.ckplus(tmp_path, [("S005", "001", 4, 9)])
    path = root / "Emotion/S005/001/S005_001_00000004_emotion.txt"
    assert f"{path}: unknown label '9'" in refused(f"ckplus:{root}")
    path.write_text("sad")
    assert f"{path}: expected one number, got 'sad'" in refused(f"ckplus:{root}")
    path.write_text("1")
    (root / "cohn-kanade-images/S005/001").rename(root / "elsewhere")
    assert "S005/001: cannot be read" in refused(f"ckplus:{root}")


def test_a_set_without_a_face_is_refused(tmp_path: Path) -> None:
    root = trees.affwild2(tmp_path, "v", [-1, -1])
    assert "expected at least one labelled face, got none; 2 frames" in refused(f"affwild2:{root}:train")


def test_ferplus_names_do_not_leave_their_folder(tmp_path: Path) -> None:
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    trees.picture(tmp_path / "FER2013Valid/a.png")
    trees.picture(tmp_path / "a.png")
    trees.text(tmp_path / "fer2013new.csv", f"{header}\nPublicTest,../a.png,9,0,0,0,0,0,0,0,0,0\n")
    assert "1 of 1 pictures missing, first '../a.png'" in refused(f"ferplus:{tmp_path}:valid")
