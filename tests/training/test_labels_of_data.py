"""A network has the labels of its data: Aff-Wild2's eighth is `other`, from training to the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_fer.errors import TrainingError
from edge_fer.faces import load_crops, read_data
from edge_fer.labels import LABELS, LABELS_7, LABELS_WITH_OTHER
from edge_fer.preprocess import CropSpec
from export.reference import TorchAnswers, make_reference
from tests.training.data import trees
from training.data.csv_of import write_csv
from training.data.labelled import read_labelled
from training.evaluate.faces import read_faces
from training.models import build
from training.models.checkpoint import load_checkpoint, save_checkpoint
from training.session import TrainOptions, train_run

CODES = (7, 0, 1, 2, 3, 4, 5, 6)  # as Aff-Wild2 numbers them: other, neutral, anger, disgust, fear, …
NUMBERS = [7, 0, 4, 5, 6, 1, 3, 2]
RECIPE = """
name = "tiny"
[network]
model = "grefel-lite-s"
classes = {classes}
input_size = 32
[optimiser]
epochs = 1
batch_size = 6
[method]
name = "cross_entropy"
[distillation]
share = {share}
"""


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    """Aff-Wild2 of two training videos, one with a frame without label, and one for validation."""
    root = tmp_path / "wild"
    trees.affwild2(root, "a", CODES)
    trees.affwild2(root, "b", (*CODES, -1))
    return trees.affwild2(root, "c", CODES, folder="Validation_Set")


def options(wild: Path, classes: int = 8, **changes: Path | tuple[Path, ...]) -> TrainOptions:
    """Return what `train` is asked for."""
    recipe = wild.parent / "tiny.toml"
    share = 0.5 if "teachers" in changes else 0.0
    recipe.write_text(RECIPE.format(classes=classes, share=share), encoding="utf-8")
    return TrainOptions(
        recipe_path=recipe, data=f"affwild2:{wild}", output=wild.parent / "run", device="cpu", **changes
    )


@pytest.fixture
def contemptuous(tmp_path: Path) -> Path:
    """A checkpoint whose eighth label is contempt."""
    network = build("grefel-lite-s", input_size=32, head="linear")
    save_checkpoint(tmp_path / "c.safetensors", network, CropSpec(size=32, margin=0.0), {})
    return tmp_path / "c.safetensors"


def test_a_run_on_affwild2_has_its_labels(wild: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_run(options(wild))
    kept = load_checkpoint(wild.parent / "run/best.safetensors")
    labels = kept.network.spec.labels
    assert labels == LABELS_WITH_OTHER
    said = capsys.readouterr().err
    assert "affwild2:train: 1 frames left out without a label" in said and "affwild2:valid" not in said
    faces = read_faces(f"affwild2:{wild}:valid", kept.crop, labels)
    assert faces.numbers.tolist() == NUMBERS and faces.labels == labels
    write_csv(read_labelled(f"affwild2:{wild}:valid"), wild / "faces.csv")
    listed = read_data(str(wild / "faces.csv"))
    reference = make_reference(listed, load_crops(listed, kept.crop), TorchAnswers(kept.network), labels)
    assert reference.labels.tolist() == NUMBERS and reference.names == LABELS_WITH_OTHER


def test_with_seven_classes_other_is_left_out_and_counted(
    wild: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_run(options(wild, classes=7))
    said = capsys.readouterr().err
    assert "2 of 16 faces left out, of classes that the network does not know: other 2" in said
    assert "1 of 8 faces left out" in said and "14 training faces (0 duplicates dropped), 7 for" in said
    assert load_checkpoint(wild.parent / "run/best.safetensors").network.spec.labels == LABELS_7


def test_contempt_and_other_do_not_meet(
    wild: Path, contemptuous: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crop = CropSpec(size=32, margin=0.0)
    faces = read_faces(f"affwild2:{wild}:valid", crop, LABELS)
    assert faces.numbers.tolist() == NUMBERS[1:] and "other 1" in faces.note
    trees.affectnet(tmp_path / "net", [(7, 0, 0), (0, 0, 0)], "val_set")
    faces = read_faces(f"affectnet8:{tmp_path / 'net'}", crop, LABELS_WITH_OTHER)
    assert faces.numbers.tolist() == [0] and "contempt 1" in faces.note
    with pytest.raises(TrainingError, match=r"of 8 labels, got one of 8: .*fear, other, it has .*contempt$"):
        train_run(options(wild, teachers=(contemptuous,)))
    assert not (tmp_path / "run").exists()
    train_run(options(wild, start=contemptuous))
    assert "fear, contempt begin as neutral" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "run/last.safetensors").network.spec.labels == LABELS_WITH_OTHER
