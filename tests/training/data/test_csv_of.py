"""The CSV of any DATA: the same faces for every command, and a parity report of an official layout."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_fer.bundle import ModelSpec, Reference, write_bundle
from edge_fer.errors import InputError
from edge_fer.faces import Face, FaceSet, face_hash, load_crops, read_data
from edge_fer.labels import LABELS, LABELS_WITH_OTHER
from tests.conftest import json_lines, run_command, tiny_outputs
from tests.training.data import trees
from training.data.csv_of import main, write_csv
from training.data.labelled import read_labelled


def named(faces: FaceSet) -> list[tuple[Path, str, dict[str, str]]]:
    """Return what is known of every face."""
    names = ["" if face.label is None else faces.labels[face.label] for face in faces.faces]
    return [
        (face.path.resolve(), name, dict(face.columns)) for face, name in zip(faces.faces, names, strict=True)
    ]


def layouts(root: Path) -> list[str]:
    """Write a tree of every official layout; return the DATA of each."""
    trees.rafdb(root / "rafdb")
    (root / "fer").mkdir()
    trees.fer2013(root / "fer", [(0, "PublicTest"), (6, "PublicTest")])
    trees.affectnet(root / "affectnet", [(0, 0.5, -0.5), (7, -0.5, 0.5)], "val_set")
    trees.affwild2(root / "affwild2", "v", [0, 7, 1])
    trees.jaffe(root / "jaffe", ["KA", "KL"])
    trees.ferg(root / "ferg")
    trees.ckplus(root / "ckplus", [("S1", "001", 4, 2)])
    names = [f"{name}:{root / name}" for name in ("rafdb", "jaffe", "ferg", "ckplus")]
    return [
        *names,
        f"{names[1]}:fold1of2:train",
        f"fer2013:{root / 'fer'}",
        f"affectnet8:{root / 'affectnet'}",
        f"affectnet7:{root / 'affectnet'}",
        f"affwild2:{root / 'affwild2'}:train",
    ]


def test_every_layout_is_the_same_in_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data in layouts(tmp_path / "sets"):
        for output in (tmp_path / "sets/faces.csv", tmp_path / "elsewhere/faces.csv"):
            main(data=data, output=output)
            faces, again = read_labelled(data), read_data(str(output))
            assert named(again) == named(faces), data
            said = capsys.readouterr()
            assert said.out == f"{output}\n" and f"{len(faces.faces)} faces" in said.err
            assert faces.note in said.err
            assert named(read_labelled(str(output))) == named(faces)
            output.unlink()


def test_pictures_below_the_csv_move_with_it(tmp_path: Path) -> None:
    root = trees.jaffe(tmp_path / "a/jaffe", ["KA", "KL"])
    write_csv(read_labelled(f"jaffe:{root}"), tmp_path / "a/faces.csv")
    assert "\njaffe/KA.AN1.4.tiff,anger,KA\n" in (tmp_path / "a/faces.csv").read_text()
    (tmp_path / "a").rename(tmp_path / "b")
    assert len(read_data(str(tmp_path / "b/faces.csv")).faces) == 14
    folds = [read_labelled(f"{tmp_path / 'b/faces.csv'}:fold{fold}of2").faces for fold in (1, 2)]
    assert sorted({face.columns["subject"] for face in part} for part in map(list, folds)) == [{"KA"}, {"KL"}]


def test_unlabelled_faces_and_links_stay_what_they_are(tmp_path: Path) -> None:
    link = tmp_path / "a.png"
    link.symlink_to(trees.text(tmp_path / "store/0815", "x"))  # as git-annex names what its links lead to
    faces = (Face(link, None, None), Face(link, 0, None))
    write_csv(FaceSet("x", LABELS, faces, ""), tmp_path / "faces.csv")
    assert (tmp_path / "faces.csv").read_text() == "file,label\na.png,\na.png,neutral\n"


def test_what_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.jaffe(tmp_path, ["KA"])
    for data, output, reason in (
        (f"jaffe:{tmp_path}", tmp_path / "faces.txt", "ends in .csv"),
        (f"jaffe:{tmp_path}", tmp_path / "KA.AN1.4.tiff/faces.csv", "cannot be written"),
        ("rafdb:nowhere", tmp_path / "faces.csv", "expected the folder EmoLabel"),
    ):
        with pytest.raises(SystemExit):
            main(data=data, output=output)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and reason in line
    strange = Face(Path(os.fsdecode(b"/d/\xff.png")), 0, None)
    faces = FaceSet("x", LABELS, (replace(strange, path=tmp_path), strange), "")
    with pytest.raises(InputError, match=r"faces.csv:3: expected a picture's name in UTF-8"):
        write_csv(faces, tmp_path / "faces.csv")
    for name in ("a\rb.png", " a.png"):
        with pytest.raises(InputError, match="rename the picture"):
            write_csv(FaceSet("x", LABELS, (Face(tmp_path / name, 0, None),), ""), tmp_path / "faces.csv")
    assert not (tmp_path / "faces.csv").exists()


def test_the_list_of_the_data_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.fer2013(tmp_path, [(0, "PublicTest")])
    source = tmp_path / "fer2013.csv"
    before = source.read_bytes()
    with pytest.raises(SystemExit):
        main(data=f"fer2013:{tmp_path}", output=source)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --output {source}: expected a name that is not taken")
    assert source.read_bytes() == before


def test_the_other_commands_say_how_to_read_a_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"python -m training.data.csv_of rafdb:/d:test --output D.csv"):
        read_data("rafdb:/d:test")
    for data in (str(tmp_path / "none"), "C:/d", "http://host/d"):
        with pytest.raises(InputError) as caught:
            read_data(data)
        assert "csv_of" not in str(caught.value)


def bundle_for(
    faces: FaceSet, path: Path, spec: ModelSpec, members: dict[str, bytes], known: list[int]
) -> Path:
    """Write the tiny bundle with reference outputs for these faces, whose labels are `known`."""
    crops = load_crops(faces, spec.input)
    hashes = np.array([face_hash(crop) for crop in crops])
    kept = Reference(np.array(known, np.int16), hashes, *tiny_outputs(crops), faces.name, spec.labels)
    files = {name: member for name, member in members.items() if name in ("model.onnx", "golden.npz")}
    return write_bundle(path, spec, {**files, "reference.npz": kept.to_bytes()}).path


def test_parity_reads_the_csv_of_a_layout(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "faces.csv"
    trees.jaffe(tmp_path / "jaffe", ["KA", "YM"])  # seven of the bundle's eight labels
    main(data=f"jaffe:{tmp_path / 'jaffe'}", output=table)
    faces = read_labelled(f"jaffe:{tmp_path / 'jaffe'}")
    path = bundle_for(faces, tmp_path / "a.fer", tiny_spec, tiny_members, [4, 5, 6, 1, 0, 3, 2] * 2)
    result = run_command("parity", path, "--data", table, "--slice", "subject", "--json")
    assert result.exit_code == 0, result.stderr
    (record,) = json_lines(result)
    verdicts = {gate["name"]: gate["verdict"] for gate in record["gates"]}
    assert record["faces"] == 14 and verdicts["fp32 export"] == "passed"
    assert verdicts["accuracy"] == verdicts["calibration"] == "undecided"  # labels were found, faces are few
    assert "KA" in result.stderr and "YM" in result.stderr
    assert "NaN" not in json.dumps(record)


def test_parity_knows_contempt_from_other(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    trees.affwild2(tmp_path / "set", "v", [7, 0, 7, 4])
    data, table = f"affwild2:{tmp_path / 'set'}:train", tmp_path / "faces.csv"
    main(data=data, output=table)
    faces = read_labelled(data)
    assert faces.labels == read_data(str(table)).labels == LABELS_WITH_OTHER
    golden = {name: member for name, member in tiny_members.items() if name != "reference.npz"}
    cases = (
        (LABELS_WITH_OTHER, [7, 0, 7, 1]),
        (LABELS, [-1, 0, -1, 1]),
        (LABELS_WITH_OTHER[::-1], [0, 7, 0, 6]),
    )
    for labels, known in cases:
        spec = replace(tiny_spec, labels=labels)
        path = bundle_for(faces, tmp_path / f"{labels[-1]}.fer", spec, golden, known)
        result = run_command("parity", path, "--data", table, "--json")
        assert result.exit_code == 0, result.stderr
        assert json_lines(result)[0]["faces"] == 4
    spec = replace(tiny_spec, labels=LABELS_WITH_OTHER)
    wrong = bundle_for(faces, tmp_path / "wrong.fer", spec, golden, [6, 0, 6, 1])
    result = run_command("parity", wrong, "--data", table)
    assert result.exit_code == 1 and "got other ones for 2 of 4 faces" in result.stderr
