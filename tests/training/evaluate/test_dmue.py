"""What DMUE mined, and how its uncertainty ranks planted wrong labels, from the state of a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from edge_fer.errors import CheckpointError
from tests.training.evaluate.conftest import evaluate, write_network
from training.evaluate.dmue import dmue_figures, load_dmue, method_of, plant
from training.evaluate.faces import LabelledFaces, read_faces
from training.methods.dmue import Dmue, DmueOptions, latent_distributions, uncertainties
from training.methods.method import TrainingSet
from training.models.checkpoint import load_checkpoint
from training.models.network import NetworkSpec


@pytest.fixture(params=["negatives", "average"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, NetworkSpec]:
    """A run folder with the recipe and the state of DMUE, seeded."""
    network = load_checkpoint(write_network(tmp_path / "last.safetensors", 5, head="linear")).network
    options = DmueOptions(latent=request.param)
    method = Dmue(options, network, TrainingSet(labels=torch.arange(3).repeat(2), classes=3))
    recipe = {"recipe": {"method": {"name": "dmue", **asdict(options)}}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    tensors = {
        f"{prefix}.{name}": tensor
        for prefix, module in (("model", network), ("method", method))
        for name, tensor in module.state_dict().items()
    }
    save_file(tensors, tmp_path / "state.safetensors")
    return tmp_path, network.spec


@pytest.fixture
def faces(noise_data: Path, tmp_path: Path) -> LabelledFaces:
    loaded = load_checkpoint(write_network(tmp_path / "for-the-crop.safetensors", 0))
    return read_faces(str(noise_data / "valid"), loaded.crop, loaded.network.spec.labels)


def test_figures_are_those_of_the_method_in_the_state(
    run: tuple[Path, NetworkSpec], faces: LabelledFaces
) -> None:
    loaded = load_dmue(*run)
    assert loaded is not None
    method, network = loaded
    found = dmue_figures(method, network, faces, "cpu")
    assert found["latent"] == method.options.latent
    images = faces.tensors.crops.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    labels = faces.tensors.labels
    latent = latent_distributions(method, network, images, labels).numpy()
    for number, row in enumerate(found["mined"]):  # type: ignore[arg-type, var-annotated]
        np.testing.assert_allclose(
            row["mean"], latent[labels.numpy() == number].mean(0), rtol=1e-4, atol=1e-6
        )
        assert row["faces"] == 6
        assert (row["mean"][number] == 0.0) == (method.options.latent == "negatives")
    given, wrong = plant(faces.numbers, 3, 0.1, 0)
    u = uncertainties(method, network, images, torch.from_numpy(given)).numpy()
    planted = found["planted"]
    assert isinstance(planted, dict)
    assert planted["faces"] == 2
    assert planted["auroc"] == pytest.approx(roc_auc_score(wrong, -u), abs=1e-6)
    assert planted["u_mean_planted"] == pytest.approx(u[wrong].mean(), rel=1e-4)
    assert planted["share_found"] == wrong[np.argsort(u)[:2]].mean()


def test_the_command_writes_them_down_and_draws_them(run: tuple[Path, NetworkSpec], noise_data: Path) -> None:
    folder, _ = run
    shutil.copy(folder / "last.safetensors", folder / "best.safetensors")
    output = folder / "evaluation"
    said = evaluate(folder, noise_data / "valid", output)
    assert said.exit_code == 0, said.output
    document = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    assert [row["faces"] for row in document["dmue"]["mined"]] == [6, 6, 6]
    assert document["dmue"]["planted"]["faces"] == 2
    assert "latent.png" in document["files"] and (output / "latent.png").is_file()


def test_runs_of_other_methods_have_none(run: tuple[Path, NetworkSpec]) -> None:
    folder, spec = run
    assert method_of(folder)["name"] == "dmue"
    (folder / "recipe.json").write_text('{"recipe": {"method": {"name": "scn"}}}', encoding="utf-8")
    assert load_dmue(folder, spec) is None
    (folder / "recipe.json").write_text('{"recipe": {"method": {"anchor": 1.0}}}', encoding="utf-8")
    assert load_dmue(folder, spec) is None
    (folder / "recipe.json").unlink()
    assert load_dmue(folder, spec) is None


def test_a_state_that_does_not_fit_is_refused(run: tuple[Path, NetworkSpec]) -> None:
    folder, spec = run
    (folder / "recipe.json").write_text(
        '{"recipe": {"method": {"name": "dmue", "neck": false}}}', encoding="utf-8"
    )
    with pytest.raises(CheckpointError, match=r"state\.safetensors: does not fit"):
        load_dmue(folder, spec)


@pytest.mark.parametrize(("faces_of_each", "share", "wanted"), [(50, 0.1, 20), (3, 0.01, 1), (2, 0.9, 4)])
def test_planted_labels_are_wrong_as_many_as_asked_for_and_leave_every_class_a_face(
    faces_of_each: int, share: float, wanted: int
) -> None:
    labels = np.repeat(np.arange(4), faces_of_each)
    given, wrong = plant(labels, 4, share, 1)
    np.testing.assert_array_equal(wrong, given != labels)
    assert wrong.sum() == wanted
    assert set(labels[~wrong]) == {0, 1, 2, 3} and set(given) <= {0, 1, 2, 3}
    np.testing.assert_array_equal(plant(labels, 4, share, 1)[0], given)
    assert (plant(labels, 4, 0.5, 2)[0] != plant(labels, 4, 0.5, 3)[0]).any()
