"""EAC: erasing attention consistency against noisy labels (Zhang et al., ECCV 2022; systems §4.1).

A network that learns wrong labels by heart looks at other places in a face than in its mirror image. The
mirror images themselves are not classified: what is memorised of the faces does not help with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from kornia.augmentation import RandomErasing
from torch.nn.functional import cross_entropy

from training.methods.attention_maps import class_attention_maps, feature_maps, judge
from training.methods.method import Batch, Method, Moment, Rule, Terms, TrainingSet
from training.methods.needs import need_head, need_map
from training.models import ExpressionNetwork

SMALLEST_AREA = 0.02  # of what is erased, as published


@dataclass(frozen=True, slots=True, kw_only=True)
class EacOptions:
    """The published constants.

    `consistency` is lambda, the weight of the attention maps' agreement. `erase` is how often a part of a
    face is erased independently in the face and in its mirror image, as published for noisy labels with 0.5;
    0 mirrors the same pixels, whatever the recipe's augmentation erased of them. `erase_area` is the largest
    share of the face that is erased.
    """

    consistency: float = 5.0
    erase: float = 0.0
    erase_area: float = 0.25


def rules(options: EacOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    area = options.erase_area
    return (
        ("consistency", options.consistency, "of 0 or more", 0.0 <= options.consistency < math.inf),
        ("erase", options.erase, "of 0 to 1", 0.0 <= options.erase <= 1.0),
        ("erase_area", area, f"of {SMALLEST_AREA} to 1", SMALLEST_AREA <= area <= 1.0),
    )


def flip_consistency(maps: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Return the mean over (B, N, h, w) of (A - flip(A~))^2.

    Args:
        maps: A, attention maps of the faces. mirrored: A~, those of the mirror images.
    """
    return (maps - mirrored.flip(-1)).square().mean()


class Eac(Method):
    """Cross-entropy of the faces, and agreement of all classes' attention maps with those of mirror images.

    The gradient of the agreement reaches both passes through the encoder, but not the head.
    """

    name = "eac"

    def __init__(self, options: EacOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        need_head(network, Eac)
        need_map(network, Eac)
        self.options = options
        self.erasing = RandomErasing(scale=(SMALLEST_AREA, options.erase_area), value=0.5, p=options.erase)

    def views(self, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return faces and mirror images, each with parts of its own erased if the options ask for it."""
        if self.options.erase == 0.0:
            return faces, faces.flip(-1)
        return self.erasing(faces), self.erasing(faces).flip(-1)

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification and consistency."""
        faces, mirrored = self.views(batch.faces)
        maps = feature_maps(network, faces)
        logits = judge(network, maps).logits.float()
        mirrored_maps = feature_maps(network, mirrored)
        classification = cross_entropy(logits, batch.targets.float())
        consistency = flip_consistency(
            class_attention_maps(network, maps), class_attention_maps(network, mirrored_maps)
        )
        total = classification + self.options.consistency * consistency
        return {"total": total, "classification": classification, "consistency": consistency}
