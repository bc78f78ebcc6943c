"""RAC and RSL: rare classes' attention maps and labels count more (Zhang et al., NeurIPS 2023; systems §4.2).

Re-balanced attention consistency learns about rare classes from every face; re-balanced smooth labels let the
targets of every face lean towards them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from edge_fer.errors import TrainingError
from training.methods.attention_maps import class_attention_maps, feature_maps, judge
from training.methods.cross_entropy import effective_weights
from training.methods.method import Batch, Method, Moment, Rule, Terms, TrainingSet
from training.methods.needs import need_head, need_map
from training.models import ExpressionNetwork

VARIANTS = ("paper", "code")
# The paper names scaling and intensity without their sizes (Sec. 4.9); these are ours.
SCALE = 0.75
INTENSITY = (0.5, 1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class RacRslOptions:
    """The paper's constants.

    `consistency` is lambda, the weight of RAC; `smoothing` is alpha, the strength of RSL; 0 switches either
    off. `transform` is what the second view of a face is: flip, scale or intensity.

    `variant` chooses the forms. paper: class weights by the effective number of faces with `beta`, which sum
    to N; both views are classified (also without RAC); mean over the classes' maps; smoothing spreads over
    all classes. code, as released for Swin-T: class weights by inverse frequency; the faces alone are
    classified; sum over the classes' maps; smoothing spreads over the other classes. Its lambda is 0.1, its
    alpha 0.3.
    """

    variant: str = "paper"
    consistency: float = 2.0
    smoothing: float = 0.1
    beta: float = 0.9999
    transform: str = "flip"


def rules(options: RacRslOptions) -> tuple[Rule, ...]:
    """Return what has to hold of the options."""
    return (
        ("variant", options.variant, " or ".join(VARIANTS), options.variant in VARIANTS),
        ("consistency", options.consistency, "of 0 or more", 0.0 <= options.consistency < math.inf),
        ("smoothing", options.smoothing, "from 0 to below 1", 0.0 <= options.smoothing < 1.0),
        ("beta", options.beta, "above 0 and below 1", 0.0 < options.beta < 1.0),
        ("transform", options.transform, " or ".join(TRANSFORMS), options.transform in TRANSFORMS),
    )


def inverse_frequency(counts: torch.Tensor) -> torch.Tensor:
    """Return (N,) weights M / (10 n_l), the constants that the released code has for RAF-DB.

    Args:
        counts: (N,), the faces n_l of each class; M is their sum.
    """
    return counts.sum() / (10.0 * counts)


def smooth_over_all(targets: torch.Tensor, weights: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return (1 - alpha) y + alpha B / L, the true class included (RAC+RSL Eq. 8).

    Args:
        targets: (B, N) distributions y. weights: (N,) B, which sum to N. smoothing: alpha.
    """
    return (1.0 - smoothing) * targets + smoothing * weights / targets.shape[-1]


def smooth_over_others(targets: torch.Tensor, weights: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return targets of which each class gives alpha to the other classes in proportion to their weights.

    The released code's form, there for one-hot labels.

    Args:
        targets: (B, N) distributions. weights: (N,). smoothing: alpha.
    """
    others = weights.repeat(len(weights), 1).fill_diagonal_(0.0)
    return (1.0 - smoothing) * targets + smoothing * targets @ (others / others.sum(dim=1, keepdim=True))


def consistency_loss(maps: torch.Tensor, aligned: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over (B, N, h, w) of B_l (A - A~)^2 (RAC+RSL Eq. 3 and 5).

    Printed is the norm of a scalar, |B_l (A - A~)|; squared with B_l linear is what the released code has.

    Args:
        maps: A, attention maps of the faces.
        aligned: A~, those of the second view with its transform undone.
        weights: (N,) B.
    """
    return (weights[:, None, None] * (maps - aligned).square()).mean()


def mirror(images: torch.Tensor) -> torch.Tensor:
    """Return mirror images of faces or maps (B, ?, h, w); it undoes itself."""
    return images.flip(-1)


def zoom(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Return faces or maps (B, ?, h, w) `factor` times as large about their centre, the border repeated."""
    theta = torch.tensor([[1.0 / factor, 0.0, 0.0], [0.0, 1.0 / factor, 0.0]], device=images.device)
    with torch.autocast(images.device.type, enabled=False):  # places need more than bfloat16's digits
        grid = affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return grid_sample(images, grid, padding_mode="border", align_corners=False)


def shrink(faces: torch.Tensor) -> torch.Tensor:
    """Return faces (B, 3, S, S) at SCALE of their size in the same frame."""
    return zoom(faces, SCALE)


def enlarge(maps: torch.Tensor) -> torch.Tensor:
    """Return the middle of maps (B, N, h, w) of shrunk faces, resized to where the faces were."""
    return zoom(maps, 1.0 / SCALE)


def change_intensity(faces: torch.Tensor) -> torch.Tensor:
    """Return faces (B, 3, S, S) in 0..1, each attenuated or amplified by a random factor within INTENSITY."""
    factors = torch.empty(len(faces), 1, 1, 1).uniform_(*INTENSITY).to(faces)
    return (faces * factors).clamp(0.0, 1.0)


def keep(maps: torch.Tensor) -> torch.Tensor:
    """Return the maps: a change of intensity moves nothing."""
    return maps


Change = Callable[[torch.Tensor], torch.Tensor]
# What makes the second view of a face, and what undoes it in the attention maps.
TRANSFORMS: dict[str, tuple[Change, Change]] = {
    "flip": (mirror, mirror),
    "scale": (shrink, enlarge),
    "intensity": (change_intensity, keep),
}


def class_weights(options: RacRslOptions, faces: TrainingSet) -> torch.Tensor:
    """Return B (N,) float32 in the variant's form.

    Raises:
        TrainingError: a class has no face, and its weight would be infinite.
    """
    counts = faces.counts().double()
    absent = [label for label, count in enumerate(counts.tolist()) if count == 0]
    if absent:
        raise TrainingError(
            f"rac_rsl: expected training faces of all {faces.classes} classes, got none of class "
            f"{', '.join(map(str, absent))}; add some or lower network.classes"
        )
    if options.variant == "code":
        return inverse_frequency(counts).float()
    return effective_weights(counts, options.beta).float()


class RacRsl(Method):
    """Cross-entropy with re-balanced smooth labels, and re-balanced agreement of two views' attention maps.

    The gradient of the agreement reaches both passes through the encoder, but not the head.
    """

    name = "rac_rsl"
    weights: torch.Tensor

    def __init__(self, options: RacRslOptions, network: ExpressionNetwork, faces: TrainingSet) -> None:
        super().__init__(options, network, faces)
        need_head(network, RacRsl)
        need_map(network, RacRsl)
        self.options = options
        self.register_buffer("weights", class_weights(options, faces), persistent=False)

    def smooth(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the re-balanced smooth labels of targets (B, N)."""
        form = smooth_over_others if self.options.variant == "code" else smooth_over_all
        with torch.autocast(targets.device.type, enabled=False):
            return form(targets, self.weights, self.options.smoothing)

    def forward(self, network: ExpressionNetwork, batch: Batch, moment: Moment) -> Terms:
        """Return classification, summed over the classified views, and consistency."""
        code = self.options.variant == "code"
        # Mixed precision may hand over both in bfloat16.
        faces, targets = batch.faces.float(), self.smooth(batch.targets.float())
        change, undo = TRANSFORMS[self.options.transform]
        maps = feature_maps(network, faces)
        classification = cross_entropy(judge(network, maps).logits.float(), targets)
        changed_maps = feature_maps(network, change(faces))
        if not code:
            logits = judge(network, changed_maps).logits.float()
            classification = classification + cross_entropy(logits, targets)
        consistency = consistency_loss(
            class_attention_maps(network, maps),
            undo(class_attention_maps(network, changed_maps)),
            self.weights * len(self.weights) if code else self.weights,  # a sum over the classes, or a mean
        )
        total = classification + self.options.consistency * consistency
        return {"total": total, "classification": classification, "consistency": consistency}
