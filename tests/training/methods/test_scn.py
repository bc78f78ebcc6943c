"""SCN against NumPy, who is relabelled when and for good, also over two processes, and a short training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.methods.tiny_training import (
    CLASSES,
    SIZE,
    falls,
    refused,
    tiny_faces,
    tiny_network,
    train_tiny,
    training_set,
    voted_batch,
)
from training.methods.method import Moment
from training.methods.scn import Scn, ScnOptions, better_labels, high_group, rank_loss, rules
from training.models import ExpressionNetwork, build, standardise

EARLY, LATE = (Moment(epoch=epoch, epochs=20, step=0, steps=1) for epoch in (9, 10))
ROWS = torch.tensor([3, 7, 11, 20, 35, 8, 1, 30, 16, 5])


def scaled_network() -> ExpressionNetwork:
    """A network that says something definite, and something else of every face's importance."""
    network = tiny_network(head="scaled")
    torch.nn.init.normal_(network.head.linear.weight)
    torch.nn.init.normal_(network.head.scale.weight)
    return network


def scn(network: ExpressionNetwork, **options: object) -> Scn:
    return Scn(ScnOptions(**options), network, training_set(tiny_faces()[1]))  # type: ignore[arg-type]


def said_of(network: ExpressionNetwork, faces: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return p (B, N) of the scaled logits and alpha (B,), both from the embedding."""
    with torch.no_grad():
        e = network(standardise(faces, network)).embedding.double().numpy()
    linear, scale = (
        {k: v.double().numpy() for k, v in m.state_dict().items()}
        for m in (network.head.linear, network.head.scale)
    )
    alpha = 1 / (1 + np.exp(-(e @ scale["weight"][0] + scale["bias"][0])))
    z = alpha[:, None] * (e @ linear["weight"].T + linear["bias"])
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), alpha


def relabelled_by_hand(p: np.ndarray, alpha: np.ndarray, labels: list[int], relabel: str) -> list[int]:
    order = np.argsort(-alpha)
    judged = {"low": order[7:], "all": order, "none": order[:0]}[relabel].tolist()
    return [
        int(p[n].argmax()) if n in judged and p[n].max() - p[n][label] > 0.2 else label
        for n, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("batch", "share", "high"),
    [(10, 0.7, 7), (9, 0.7, 6), (8, 0.7, 5), (2, 0.7, 1), (3, 0.01, 1), (2, 0.99, 1)],
)
def test_the_high_group_are_the_most_important(batch: int, share: float, high: int) -> None:
    alpha = torch.rand(batch, generator=torch.Generator().manual_seed(batch))
    found = high_group(alpha, share)
    assert found.sum() == high
    assert alpha[found].min() > alpha[~found].max()


def test_the_rank_loss_agrees_with_numpy() -> None:
    alpha = torch.rand(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ranked = np.sort(alpha.numpy())[::-1]
    gap = ranked[:7].mean() - ranked[7:].mean()
    assert rank_loss(alpha, high_group(alpha, 0.7), gap + 0.1).item() == pytest.approx(0.1, rel=1e-6)
    assert rank_loss(alpha, high_group(alpha, 0.7), gap - 0.01).item() == 0.0


def test_a_label_changes_only_where_another_is_likelier_by_more_than_the_margin() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2], [0.55, 0.3, 0.15], [0.55, 0.3, 0.15], [0.2, 0.1, 0.7]])
    labels = torch.tensor([1, 1, 0, 2])
    assert better_labels(p, labels, 0.21).tolist() == [1, 0, 0, 2]
    assert better_labels(p, labels, 0.26).tolist() == [1, 1, 0, 2]
    assert better_labels(torch.tensor([[0.75, 0.25]]), torch.tensor([1]), 0.5).tolist() == [1]


def test_the_loss_is_cross_entropy_of_the_scaled_logits_and_the_rank() -> None:
    network, batch = scaled_network().eval(), voted_batch(ROWS)
    p, alpha = said_of(network, batch.faces)
    ranked = np.sort(alpha)[::-1]
    rank = max(0.0, 0.9 - (ranked[:7].mean() - ranked[7:].mean()))
    classification = -(batch.targets.double().numpy() * np.log(p)).sum() / 10
    terms = scn(network, margin=0.9, classification=0.5, rank=2.0)(network, batch, EARLY)
    assert rank > 0
    assert terms["classification"].item() == pytest.approx(classification, rel=1e-5)
    assert terms["rank"].item() == pytest.approx(rank, rel=1e-5)
    assert terms["total"].item() == pytest.approx(0.5 * classification + 2.0 * rank, rel=1e-5)
    assert terms["relabelled"].item() == 0.0


@pytest.mark.parametrize("relabel", ["low", "all", "none"])
def test_the_asked_for_group_is_relabelled_from_the_epoch_on(relabel: str) -> None:
    network, batch = scaled_network().eval(), voted_batch(ROWS)
    method = scn(network, relabel=relabel)
    given = tiny_faces()[1]
    method(network, batch, EARLY)
    assert torch.equal(method.labels, given)
    terms = method(network, batch, LATE)
    wanted = given.clone()
    new = relabelled_by_hand(*said_of(network, batch.faces), given[ROWS].tolist(), relabel)
    wanted[ROWS] = torch.tensor(new)
    assert torch.equal(method.labels, wanted)
    changed = int((wanted != given).sum())
    assert terms["relabelled"].item() == method.relabelled.item() == changed
    assert {"low": 0 < changed <= 3, "all": changed > 3, "none": changed == 0}[relabel]


def test_relabelling_is_judged_in_training_mode() -> None:
    network, batch = scaled_network(), voted_batch(ROWS)
    network.train()
    method = scn(network, relabel="all")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    method(network, batch, LATE)
    network.load_state_dict(before)
    given = tiny_faces()[1][ROWS].tolist()
    training = relabelled_by_hand(*said_of(network, batch.faces), given, "all")
    network.load_state_dict(before)
    network.eval()
    assert method.labels[ROWS].tolist() == training
    assert training != relabelled_by_hand(*said_of(network, batch.faces), given, "all")


def test_a_new_label_is_the_target_from_the_next_step_on_and_for_good() -> None:
    network, batch = scaled_network().eval(), voted_batch(ROWS)
    method = scn(network, relabel="all")
    first = method(network, batch, LATE)["classification"].item()
    p, _ = said_of(network, batch.faces)
    assert first == pytest.approx(-(batch.targets.double().numpy() * np.log(p)).sum() / 10, rel=1e-5)
    targets = batch.targets.double().numpy().copy()
    for n, row in enumerate(ROWS.tolist()):
        if method.labels[row] != method.given[row]:
            targets[n] = np.eye(3)[int(method.labels[row])]
    assert (targets != batch.targets.double().numpy()).any()
    wanted = -(targets * np.log(p)).sum() / 10
    resumed = scn(network)
    resumed.load_state_dict(method.state_dict())
    for again in (method, resumed):
        assert again(network, batch, EARLY)["classification"].item() == pytest.approx(wanted, rel=1e-5)
    assert resumed.relabelled == method.relabelled > 0
    assert set(method.state_dict()) == {"labels"}


def test_relabelling_has_no_gradient_and_the_rank_trains_the_importance_alone() -> None:
    gradients = []
    for moment in (EARLY, LATE):
        network, batch = scaled_network().eval(), voted_batch(ROWS)
        terms = scn(network, relabel="all")(network, batch, moment)
        assert not terms["relabelled"].requires_grad
        terms["total"].backward()
        gradients.append([p.grad for p in network.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    network = scaled_network()
    scn(network, margin=0.9)(network, voted_batch(ROWS), EARLY)["rank"].backward()
    assert network.head.linear.weight.grad is None
    assert float(network.head.scale.weight.grad.abs().max()) > 0


def change_in_turn(rank: int, folder: str) -> None:
    """Relabel two faces of six in one of two processes; keep what it then knows of all of them."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    network = build("grefel-lite-s", classes=CLASSES, input_size=SIZE, head="scaled")
    method = Scn(ScnOptions(), network, training_set(torch.zeros(6, dtype=torch.long)))
    logits = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    judged = torch.tensor([[True, True], [False, True]])[rank]
    method.relabel(logits, judged, torch.tensor([[0, 5], [1, 3]])[rank])
    torch.save(method.labels, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_the_importance_is_exact_under_mixed_precision() -> None:
    network, batch = scaled_network().eval(), voted_batch(ROWS)
    embeddings: list[torch.Tensor] = []
    network.head.register_forward_hook(lambda module, given, said: embeddings.append(said.embedding.detach()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rank = scn(network, margin=0.9)(network, batch, EARLY)["rank"]
    importance = network.head.importance(embeddings[0])
    wanted = rank_loss(importance, high_group(importance, 0.7), 0.9)
    assert rank.dtype == torch.float32
    assert rank.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_every_process_knows_all_new_labels(tmp_path: Path) -> None:
    other = torch.multiprocessing.get_context("spawn").Process(target=change_in_turn, args=(1, str(tmp_path)))
    other.start()
    change_in_turn(0, str(tmp_path))
    other.join()
    assert other.exitcode == 0
    for rank in range(2):
        labels = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert labels.tolist() == [1, 0, 0, 2, 0, 2]


@pytest.mark.parametrize("epoch", [0, 10])
def test_it_trains(epoch: int) -> None:
    network = scaled_network()
    method = scn(network)
    history = train_tiny(method, network, epoch)
    assert falls(history["total"])
    assert set(history) == {"total", "classification", "rank", "relabelled"}
    assert not list(method.parameters())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("classification", 0.0),
        ("rank", math.nan),
        ("high_share", 1.0),
        ("high_share", math.nan),
        ("margin", 1.1),
        ("margin", math.nan),
        ("relabel", "high"),
        ("relabel_epoch", -1),
        ("relabel_margin", math.nan),
    ],
)
def test_options_no_run_can_use_are_named(option: str, value: object) -> None:
    assert refused(rules, ScnOptions(), option, value) == [option]
