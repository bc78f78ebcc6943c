"""What DMUE mined from faces, and whether its uncertainty finds planted wrong labels.

Branches and uncertainty are no part of a checkpoint: they are in the run's resumable state, so that these
figures are of the step where that stands, with the weights as they are trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_fer.errors import CheckpointError, TrainingError
from edge_fer.parity import metrics
from training.evaluate.faces import LabelledFaces
from training.evaluate.figures import Values
from training.evaluation import normalise
from training.methods.dmue import Dmue, DmueOptions, latent_distributions, uncertainties
from training.methods.method import TrainingSet
from training.models import ExpressionNetwork, build_from_spec
from training.models.checkpoint import read_safetensors
from training.models.network import NetworkSpec
from training.run import RunFolder

PLANTED = 0.1
SEED = 0


def method_of(folder: Path) -> dict[str, Any]:
    """Return the method of a run and its options, empty where its recipe names none."""
    recipe = RunFolder(folder).recipe
    if not recipe.is_file():
        return {}
    try:
        method = json.loads(recipe.read_text(encoding="utf-8"))["recipe"]["method"]
        return dict(method) if "name" in method else {}
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{recipe}: expected the recipe of a run, could not read it ({error})") from error


def load_dmue(folder: Path, spec: NetworkSpec) -> tuple[Dmue, ExpressionNetwork] | None:
    """Return the method and the network of a DMUE run as its state has them; None for another run.

    Raises:
        CheckpointError: the state is damaged, or of another network.
        TrainingError: the recipe cannot be read.
    """
    options, state = method_of(folder), RunFolder(folder).state
    if options.pop("name", "") != "dmue" or not state.is_file():
        return None
    tensors, _ = read_safetensors(state)
    network = build_from_spec(spec)
    classes = len(spec.labels)
    known = TrainingSet(labels=torch.arange(classes).repeat(2), classes=classes)  # its weights are loaded
    try:
        method = Dmue(DmueOptions(**options), network, known)
        for module, prefix in ((network, "model."), (method, "method.")):
            module.load_state_dict(
                {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            )
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{state}: does not fit the run's recipe and network: {reason}") from error
    return method.eval(), network.eval()


def dmue_figures(method: Dmue, network: ExpressionNetwork, faces: LabelledFaces, device: str) -> Values:
    """Mine the faces, then give some of them wrong labels and see whether these are the uncertain ones.

    A low u is ambiguous. `auroc` is how often a planted face has the lower u of a pair; `share_found` which
    share of the planted faces is among as many of the lowest u.
    """
    classes, labels = len(faces.labels), faces.numbers
    images = normalise(faces.tensors.crops.to(device), network)
    method, network = method.to(device), network.to(device)
    latent = latent_distributions(method, network, images, faces.tensors.labels.to(device)).cpu().numpy()
    given, wrong = plant(labels, classes, PLANTED, SEED)
    u = uncertainties(method, network, images, torch.from_numpy(given).to(device)).cpu().numpy()
    lowest = np.argsort(u, kind="stable")[: int(wrong.sum())]
    return {
        "latent": method.options.latent,
        "mined": [
            {"label": name, "faces": int((labels == number).sum()), "mean": _mean(latent[labels == number])}
            for number, name in enumerate(faces.labels)
        ],
        "planted": {
            "faces": int(wrong.sum()),
            "share": PLANTED,
            "seed": SEED,
            "auroc": metrics.auroc(-u, wrong),
            "share_found": float(wrong[lowest].mean()),
            "u_mean_planted": float(u[wrong].mean()),
            "u_mean_others": float(u[~wrong].mean()),
        },
    }


def plant(
    labels: NDArray[np.int64], classes: int, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Give a share of the faces a wrong label, each other class equally likely; every class keeps a face.

    Returns:
        the labels (N,), and which of them are wrong (N,) bool; at least one is.
    """
    generator = np.random.default_rng(seed)
    given, wrong = labels.copy(), np.zeros(len(labels), dtype=bool)
    left = np.bincount(labels, minlength=classes)
    wanted = max(1, round(share * len(labels)))
    for row in generator.permutation(len(labels)):
        if wrong.sum() == wanted:
            break
        if left[labels[row]] > 1:
            left[labels[row]] -= 1
            given[row] = (labels[row] + generator.integers(1, classes)) % classes
            wrong[row] = True
    return given, wrong


def _mean(latent: NDArray[np.float32]) -> list[float]:
    return latent.mean(axis=0, dtype=np.float64).tolist()
