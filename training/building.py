"""What a recipe builds before it trains: the network and the method."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from edge_fer.errors import TrainingError
from edge_fer.labels import LABELS
from training.data.faces import FaceTensors
from training.methods import METHODS, name_of
from training.methods.method import Method, TrainingSet
from training.models import DEFAULTS, ExpressionNetwork, build_from_spec
from training.options import Recipe


@dataclass(frozen=True, slots=True)
class Start:
    """The weights a run starts from and the SHA-256 of their file."""

    network: ExpressionNetwork
    sha256: str


def build_network(recipe: Recipe, labels: tuple[str, ...] = LABELS) -> ExpressionNetwork:
    """Build the recipe's network, for the first of these labels, with weights from its seed.

    Raises:
        TrainingError: head, encoder and input size do not go together.
    """
    options = recipe.network
    default = DEFAULTS[options.model]
    spec = replace(
        default,
        labels=labels[: options.classes],
        input_size=options.input_size or default.input_size,
        head=options.head or METHODS[name_of(recipe.method)].method.heads[0],
        anchors=options.anchors,
        delta=options.delta,
        slots=options.slots,
        dropout=options.dropout,
        balancing=options.balancing,
        printed_order=options.printed_order,
        project_query=options.project_query,
    )
    torch.manual_seed(recipe.optimiser.seed)
    try:
        return build_from_spec(spec)
    except ValueError as error:
        raise TrainingError(f"{recipe.name}: {error}") from error


def build_method(recipe: Recipe, network: ExpressionNetwork, faces: FaceTensors) -> Method:
    """Build the recipe's method for `network` and the training faces."""
    known = TrainingSet(labels=faces.labels, classes=len(network.spec.labels))
    return METHODS[name_of(recipe.method)].method(recipe.method, network, known)
