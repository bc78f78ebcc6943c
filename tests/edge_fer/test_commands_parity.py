"""The commands info and parity: what they print, and one line for everything that goes wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.bundle import Bundle, ModelSpec, Reference, write_bundle
from edge_fer.images import write_image
from edge_fer.labels import LABELS
from edge_fer.parity.documents import document
from tests.conftest import certificate, error_lines, json_lines, pattern, run_command


def test_info_prints_bundle_json_and_the_verdict(tiny_bundle: Path) -> None:
    result = run_command("info", tiny_bundle, "--json")
    (record,) = json_lines(result)
    fields = json.loads((tiny_bundle / "bundle.json").read_bytes())
    assert (result.exit_code, result.stderr) == (0, "")
    assert record == {**fields, "verdict": "passed"}
    shown = run_command("info", tiny_bundle)
    assert (shown.exit_code, shown.stdout) == (0, "")
    for text in ("passed", "model.onnx", fields["members"]["model.onnx"]["sha256"], "12 faces", "preprocess"):
        assert text in shown.stderr


def test_info_of_a_bundle_without_a_certificate_says_so(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_graph: bytes
) -> None:
    write_bundle(tmp_path / "bare.fer", tiny_spec, {"model.onnx": tiny_graph})
    result = run_command("info", tmp_path / "bare.fer")
    assert result.exit_code == 0 and "no certificate" in result.stderr
    assert json_lines(run_command("info", tmp_path / "bare.fer", "--json"))[0]["verdict"] == "none"


@pytest.fixture
def face_folder(tmp_path: Path, tiny_faces: NDArray[np.uint8], tiny_reference: Reference) -> Path:
    """The faces of the tiny bundle's reference as a folder per class."""
    for number, (crop, label) in enumerate(zip(tiny_faces, tiny_reference.labels.tolist(), strict=True)):
        folder = tmp_path / "faces" / LABELS[max(label, 0)]
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{number}.png", crop)
    return tmp_path / "faces"


def gates(record: dict[str, Any]) -> dict[str, str]:
    return {gate["name"]: gate["verdict"] for gate in record["gates"]}


def test_parity_compares_with_the_reference(tiny_bundle: Path, tmp_path: Path, face_folder: Path) -> None:
    result = run_command("parity", tiny_bundle, "--data", face_folder, "--json", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    (record,) = json_lines(result)
    assert record == json.loads((tmp_path / "out" / "parity.json").read_text())
    assert record["faces"] == 12 and record["verdict"] == "undecided"
    found = gates(record)
    for name in ("preprocess", "batch", "fp32 export"):
        assert found[name] == "passed"
    for name in ("accuracy", "flips", "distribution"):  # twelve faces prove nothing
        assert found[name] == "undecided"
    page = (tmp_path / "out" / "parity.html").read_text()
    assert "UNDECIDED" in page.upper() and "tiny" in page
    assert "undecided" in (tmp_path / "out" / "parity.md").read_text()
    assert "verdict" in result.stderr and "threshold" in result.stderr
    assert run_command("parity", tiny_bundle, "--data", face_folder, "--strict").exit_code == 3


def test_parity_without_faces_says_what_it_could_not_run(tiny_bundle: Path) -> None:
    result = run_command("parity", tiny_bundle, "--json")
    assert result.exit_code == 0
    found = gates(json_lines(result)[0])
    assert found["preprocess"] == found["batch"] == "passed"
    assert found["accuracy"] == found["flips"] == "not run"
    assert "not run without --data DATA: accuracy; flips" in result.stderr


def test_a_failed_gate_exits_3_and_still_writes_the_report(
    tmp_path: Path,
    tiny_spec: ModelSpec,
    tiny_members: dict[str, bytes],
    tiny_reference: Reference,
    face_folder: Path,
) -> None:
    shifted = dataclasses.replace(
        tiny_reference, probabilities=np.roll(tiny_reference.probabilities, 1, axis=1)
    )
    members = {**tiny_members, "reference.npz": shifted.to_bytes()}
    write_bundle(tmp_path / "other.fer", tiny_spec, members)
    result = run_command(
        "parity", tmp_path / "other.fer", "--data", face_folder, "--output", tmp_path / "out", "--json"
    )
    assert result.exit_code == 3
    assert json_lines(result)[0]["verdict"] == "failed"
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["verdict"] == "failed"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", ["npz", "fer"])
def test_parity_takes_another_reference(
    tmp_path: Path, tiny_bundle: Path, tiny_spec: ModelSpec, tiny_graph: bytes, face_folder: Path, kind: str
) -> None:
    write_bundle(tmp_path / "bare.fer", tiny_spec, {"model.onnx": tiny_graph})
    (tmp_path / "r.npz").write_bytes(Bundle.load(tiny_bundle).member("reference.npz"))
    reference = {"npz": tmp_path / "r.npz", "fer": tiny_bundle}[kind]
    result = run_command(
        "parity", tmp_path / "bare.fer", "--reference", reference, "--data", face_folder, "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert json_lines(result)[0]["faces"] == 12


@pytest.fixture
def face_table(face_folder: Path, tiny_faces: NDArray[np.uint8]) -> Path:
    """The same faces as a CSV with a column more."""
    files = {file.stem: file for file in face_folder.glob("*/*.png")}
    rows = [f"{files[str(n)]},{files[str(n)].parent.name},{'fm'[n % 2]}" for n in range(len(tiny_faces))]
    table = face_folder.parent / "faces.csv"
    table.write_text("\n".join(["file,label,sex", *rows, ""]))
    return table


def test_slices_come_from_a_column_of_the_csv(tiny_bundle: Path, face_table: Path) -> None:
    result = run_command("parity", tiny_bundle, "--data", face_table, "--slice", "sex", "--json")
    assert result.exit_code == 0, result.stderr
    [found] = json_lines(result)[0]["slices"]
    assert found["column"] == "sex"
    assert [(one["value"], one["faces"]) for one in found["values"]] == [("f", 6), ("m", 6)]
    assert "Slices by sex" in result.stderr


def test_several_bundles_make_one_matrix(
    tmp_path: Path,
    tiny_bundle: Path,
    tiny_spec: ModelSpec,
    tiny_members: dict[str, bytes],
    face_table: Path,
) -> None:
    other = dataclasses.replace(tiny_spec, model="other")
    path = write_bundle(tmp_path / "other.fer", other, tiny_members).path
    result = run_command(
        "parity", tiny_bundle, path, "--data", face_table, "--output", tmp_path / "out", "--json"
    )
    assert result.exit_code == 0, result.stderr
    (matrix,) = json_lines(result)
    assert (matrix["schema"], matrix["verdict"]) == ("edge-fer-parity-matrix-1", "undecided")
    assert [report["bundle"]["model"] for report in matrix["reports"]] == ["tiny", "other"]
    assert "verdict of all: undecided" in result.stderr
    page = (tmp_path / "out" / "parity.html").read_text()
    assert page.count("data:image/png;base64,") >= 1 or not any(
        r["details"]["worst"] for r in matrix["reports"]
    )
    merged = run_command("parity", "--merge", tmp_path / "out" / "parity.json", "--json")
    assert json_lines(merged) == [matrix]


def test_merge_joins_files_and_bundles_and_runs_nothing(tmp_path: Path, tiny_bundle: Path) -> None:
    failed = certificate(verdict="failed")
    (tmp_path / "pi.json").write_text(json.dumps(failed))
    result = run_command("parity", "--merge", tiny_bundle, tmp_path / "pi.json", "--json")
    assert result.exit_code == 3
    assert [report["verdict"] for report in json_lines(result)[0]["reports"]] == ["passed", "failed"]
    for options in (["--data", "x"], ["--threads", "2"], ["--slice", "sex"]):
        refused = run_command("parity", "--merge", tiny_bundle, *options)
        assert refused.exit_code == 2 and "runs nothing" in refused.stderr


def test_labels_that_the_reference_does_not_have_are_refused(
    tiny_bundle: Path, face_table: Path, tiny_reference: Reference
) -> None:
    lines = face_table.read_text().splitlines()
    known = next(n for n, label in enumerate(tiny_reference.labels.tolist()) if label >= 0) + 1
    file, label, sex = lines[known].split(",")
    lines[known] = f"{file},{LABELS[(LABELS.index(label) + 1) % 8]},{sex}"
    face_table.write_text("\n".join(lines))
    result = run_command("parity", tiny_bundle, "--data", face_table)
    assert result.exit_code == 1
    assert "got other ones for 1 of 12 faces" in error_lines(result)[0]


def test_merge_does_not_believe_a_verdict(tmp_path: Path, tiny_bundle: Path) -> None:
    for name, lie in (
        ("verdict", {**certificate("failed"), "verdict": "passed"}),
        ("gates", {**certificate(), "gates": []}),
        ("speed", {**certificate(), "size_only": True}),
        ("matrix", {**document([certificate("failed"), certificate()]), "verdict": "passed"}),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(lie))
        result = run_command("parity", "--merge", tiny_bundle, path)
        assert result.exit_code == 1 and "say" in error_lines(result)[0], name


def wrong_parity(tmp_path: Path, faces: Path) -> list[Sequence[object]]:
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    return [
        ["--reference", tmp_path / "missing.npz"],
        ["--reference", tmp_path / "damaged.npz"],
        ["--reference", tmp_path / "bare.fer"],
        ["--data", tmp_path / "missing"],
        ["--data", faces],
        ["--output", tmp_path / "damaged.npz"],
        ["--data", faces, "--slice", "sex"],
    ]


@pytest.mark.parametrize("case", range(7))
def test_wrong_input_of_parity_is_one_line(
    tmp_path: Path, tiny_bundle: Path, tiny_spec: ModelSpec, tiny_graph: bytes, case: int
) -> None:
    write_bundle(tmp_path / "bare.fer", tiny_spec, {"model.onnx": tiny_graph})
    (tmp_path / "unknown" / "fear").mkdir(parents=True)
    write_image(tmp_path / "unknown" / "fear" / "x.png", pattern(999, 20, 20))
    result = run_command("parity", tiny_bundle, *wrong_parity(tmp_path, tmp_path / "unknown")[case])
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(error_lines(result)) == 1
