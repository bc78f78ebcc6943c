"""Distillation: what the teacher says, how it enters the loss, and runs that learn from one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edge_fer.errors import TrainingError
from edge_fer.preprocess import CropSpec
from tests.training.tiny_run import tiny_run, train_until
from training.data.augment import AugmentOptions, Mixing
from training.data.faces import FaceTensors, load_faces
from training.devices import build_fabric
from training.learner import Parcel
from training.loop import Trainer
from training.methods.distillation import DistillationOptions, Lessons, agree, embedding_loss, teach
from training.methods.grefel import GrefelOptions
from training.models import ExpressionNetwork, HeadOutput, build
from training.models.checkpoint import load_checkpoint, save_checkpoint
from training.options import NetworkOptions, OptimiserOptions, Recipe
from training.run import RunFolder
from training.session import TrainOptions, train_run

CPU = torch.device("cpu")


@pytest.fixture
def teacher(tmp_path: Path) -> tuple[Path, ExpressionNetwork]:
    """An untrained network of another size and input size, with statistics of its own, and its checkpoint."""
    torch.manual_seed(5)
    network = build("grefel-lite", classes=3, input_size=40)
    network(torch.randn(32, 3, 40, 40))
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, network, CropSpec(size=40, margin=0.0), {})
    return path, network.eval()


def options(folder: Path, data: Path, name: str, **changes: object) -> TrainOptions:
    """Return what `train` is asked for; share and embedding go into the recipe."""
    shares = {name: changes.pop(name, 0.0) for name in ("share", "embedding")}
    optimiser = {"batch_size": 12, "learning_rate": 3e-3, "checkpoint_every": 2}
    run = tiny_run(folder, data, name, optimiser=optimiser, distillation=shares)
    return replace(run, **changes)  # type: ignore[arg-type]


def test_several_teachers_speak_as_one() -> None:
    first = Lessons(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[3.0, 4.0], [0.0, 15.0]]))
    second = Lessons(torch.tensor([[0.5, 0.5], [0.6, 0.4]]), torch.tensor([[-0.5], [0.5]]))
    both = agree([first, second])
    torch.testing.assert_close(both.probabilities, torch.tensor([[0.7, 0.3], [0.4, 0.6]]))
    # The mean lengths are 10 and 0.5: each teacher weighs the same, whatever the scale of its embeddings.
    torch.testing.assert_close(both.embeddings, torch.tensor([[0.3, 0.4, -1.0], [0.0, 1.5, 1.0]]))


def similarity_reference(embeddings: np.ndarray) -> np.ndarray:
    products = np.array([[float(a @ b) for b in embeddings] for a in embeddings])
    return products / np.sqrt((products**2).sum(axis=1))[:, None]


def test_the_embedding_term_compares_neighbourhoods() -> None:
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(7, 5)), generator.normal(size=(7, 11))
    gaps = similarity_reference(student) - similarity_reference(teacher)
    expected = (gaps**2).sum() / 7
    got = embedding_loss(torch.tensor(student), torch.tensor(teacher))
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_the_embedding_term_knows_no_rotation_and_no_scale() -> None:
    teacher = torch.randn(6, 9, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q
    assert float(embedding_loss(3.0 * teacher @ rotation, teacher)) == pytest.approx(0.0, abs=1e-24)
    student = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: embedding_loss(s, teacher), (student,))


def test_a_teacher_judges_a_face_and_its_mirror_image(teacher: tuple[Path, ExpressionNetwork]) -> None:
    network = teacher[1].train()  # whatever it was left in
    crops = torch.randint(0, 256, (5, 40, 40, 3), dtype=torch.uint8)
    lessons = teach(network, crops, CPU, batch_size=2)
    mirrored = teach(network, crops.flip(2), CPU, batch_size=3)
    torch.testing.assert_close(lessons.probabilities, mirrored.probabilities)
    network.eval()
    alone = [
        network(torch.tensor(view.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0)
        for view in (crops[4].numpy(), crops[4].numpy()[:, ::-1])
    ]
    expected = (alone[0].probabilities + alone[1].probabilities) / 2
    torch.testing.assert_close(lessons.probabilities[4:], expected.detach(), rtol=1e-4, atol=1e-6)
    expected = (alone[0].embedding + alone[1].embedding) / 2
    torch.testing.assert_close(lessons.embeddings[4:], expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("votes", [None, torch.tensor([[8.0, 2.0, 0.0], [0.0, 5.0, 5.0], [3.0, 3.0, 4.0]])])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_teacher_is_in_the_targets_and_in_the_total(
    votes: torch.Tensor | None, mixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = FaceTensors(torch.zeros(3, 32, 32, 3, dtype=torch.uint8), torch.tensor([0, 1, 2]), votes)
    recipe = Recipe(
        name="tiny",
        network=NetworkOptions(model="grefel-lite-s", classes=3, input_size=32),
        optimiser=OptimiserOptions(epochs=1, batch_size=2),
        method=GrefelOptions(smoothing=0.0),
        distillation=DistillationOptions(share=0.3, embedding=0.7),
        augment=AugmentOptions(mixup=0.2 if mixed else 0.0),
    )
    fabric = build_fabric("cpu", "32-true")
    trainer = Trainer(recipe, faces, faces, RunFolder(tmp_path), fabric)
    answers = Lessons(torch.rand(3, 3).softmax(dim=1), torch.randn(3, 6))
    chosen = torch.tensor([2, 0])
    trainer.learn_from(answers, ("0" * 64,))
    mixing = Mixing(torch.tensor([1, 0]), torch.tensor([0.6, 0.9]))
    monkeypatch.setattr("training.batches.draw_mixing", lambda *arguments: mixing)
    said: list[HeadOutput] = []
    trainer.network.head.register_forward_hook(lambda *call: said.append(call[-1]))
    share = np.array([[0.6, 0.4], [0.1, 0.9]]) if mixed else np.eye(2)
    terms = trainer.learner(
        Parcel(trainer.parts.make(chosen))
    )  # the first epoch: the primary distribution alone
    output = said[0]
    own = np.eye(3) if votes is None else (votes / votes.sum(dim=1, keepdim=True)).numpy()
    target = share @ (0.7 * own[[2, 0]] + 0.3 * answers.probabilities.numpy()[[2, 0]])
    classification = -(target * np.log(output.primary.detach().numpy())).sum(axis=1).mean()
    gaps = similarity_reference(output.embedding.detach().numpy().astype(np.float64))
    gaps -= similarity_reference(share @ answers.embeddings.numpy().astype(np.float64)[[2, 0]])
    embedding = (gaps**2).sum() / 2
    assert terms["classification"].item() == pytest.approx(classification, rel=1e-5)
    assert terms["embedding"].item() == pytest.approx(embedding, rel=1e-4)
    assert terms["total"].item() == pytest.approx(classification + 0.7 * embedding, rel=1e-4)


def test_a_run_with_a_teacher_is_the_same_when_resumed(
    tmp_path: Path,
    noise_data: Path,
    teacher: tuple[Path, ExpressionNetwork],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = tmp_path / "second.safetensors"  # of the student's own input size
    small = build("grefel-lite-s", classes=3, input_size=32)
    save_checkpoint(second, small, CropSpec(size=32, margin=0.0), {})
    asked = {"share": 0.5, "embedding": 1.0, "teachers": (teacher[0], second)}
    whole, broken = (options(tmp_path, noise_data, name, **asked) for name in ("whole", "broken"))
    train_run(whole)
    train_until(8, broken, monkeypatch)
    monkeypatch.delattr("training.session.teach")  # what the teacher said lies in the folder
    train_run(replace(broken, resume=True))
    for name in ("last", "state", "lessons"):
        left, right = (load_file(run.output / f"{name}.safetensors") for run in (whole, broken))
        assert left.keys() == right.keys()
        assert all(left[key].equal(right[key]) for key in left), name
    said = [
        teach(network, load_faces(f"{noise_data}/train", CropSpec(size=size, margin=0.0), 3).crops, CPU)
        for network, size in ((teacher[1], 40), (small, 32))
    ]
    kept = load_file(whole.output / "lessons.safetensors")
    torch.testing.assert_close(kept["probabilities"], agree(said).probabilities)
    digests = [load_checkpoint(path).sha256 for path in (teacher[0], second)]
    assert load_checkpoint(broken.output / "last.safetensors").info["teachers"] == digests
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, teacher[1], CropSpec(size=40, margin=0.1), {})
    with pytest.raises(TrainingError, match="another recipe, data, --start or --teacher"):
        train_run(replace(broken, resume=True, teachers=(other, second)))


def test_a_teacher_is_given_exactly_where_the_recipe_asks_for_one(
    tmp_path: Path, noise_data: Path, teacher: tuple[Path, ExpressionNetwork]
) -> None:
    with pytest.raises(TrainingError, match=r"expected --teacher CHECKPOINT exactly .* tiny has one"):
        train_run(options(tmp_path, noise_data, "a", share=0.5))
    with pytest.raises(TrainingError, match="tiny has none"):
        train_run(options(tmp_path, noise_data, "b", teachers=(teacher[0],)))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_teacher_of_other_labels_is_refused(tmp_path: Path, noise_data: Path) -> None:
    path = tmp_path / "two.safetensors"
    save_checkpoint(path, build("grefel-lite-s", classes=2, input_size=32), CropSpec(size=32, margin=0.0), {})
    with pytest.raises(TrainingError, match="expected a teacher of 3 labels, got one of 2"):
        train_run(options(tmp_path, noise_data, "a", share=0.5, teachers=(path,)))
