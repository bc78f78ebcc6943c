"""What a method needs of a network, said in one line where it is missing."""

from __future__ import annotations

from edge_fer.errors import TrainingError
from training.methods.method import Method
from training.models import ExpressionNetwork, MapEncoder


def need_head(network: ExpressionNetwork, method: type[Method]) -> None:
    """Refuse a network whose head the method cannot train.

    Raises:
        TrainingError: the head is none of the method's.
    """
    if network.spec.head not in method.heads:
        heads = " or ".join(f'"{head}"' for head in method.heads)
        raise TrainingError(
            f'{method.name}: expected a network with head {heads}, got head "{network.spec.head}"; '
            f'set network.head = "{method.heads[0]}" in the recipe'
        )


def need_map(network: ExpressionNetwork, method: type[Method]) -> None:
    """Refuse a network whose embedding is not the mean of a feature map.

    Raises:
        TrainingError: its encoder has no such map.
    """
    if not isinstance(network.encoder, MapEncoder):
        raise TrainingError(
            f"{method.name}: expected an encoder whose embedding is the mean of a feature map, got "
            f'"{network.spec.model}", which has no such map; choose another network.model, such as '
            '"grefel-lite"'
        )
