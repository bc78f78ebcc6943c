"""Augmentation on the training device, for 48-pixel gray faces that must also stand for colour photos.

Geometry covers the scatter of face detectors' boxes; blur and noise cover resolution and sensors;
brightness, contrast and gamma cover exposure. Colour is left alone: `grefel-lite` reads luma only, and FER+
has no colour. Erasing and mixing keep a network from learning the training faces by heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from kornia import augmentation


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentOptions:
    """Ranges of the augmentations; zero switches one off. Angles in degrees, shares of the side otherwise.

    `erase` is how often a part of the face is erased, `erase_area` its largest share of the face. `mixup` is
    the parameter of the Beta distribution that says how much of another face is mixed in.
    """

    flip: float = 0.5
    rotate: float = 12.0
    translate: float = 0.08
    scale: float = 0.12
    brightness: float = 0.25
    contrast: float = 0.3
    gamma: float = 0.25
    blur: float = 0.2
    noise: float = 0.02
    erase: float = 0.3
    erase_area: float = 0.15
    mixup: float = 0.0


@dataclass(frozen=True, slots=True)
class Mixing:
    """Which face of a batch is mixed into each, (B,) int64, and each face's own share, (B,) in 0.5..1."""

    partner: torch.Tensor
    share: torch.Tensor

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return what (B, ...) float32 values of the faces become: faces, targets and embeddings alike."""
        share = self.share.reshape(-1, *[1] * (values.ndim - 1))
        return torch.lerp(values[self.partner], values, share)


def draw_mixing(count: int, mixup: float, device: torch.device) -> Mixing:
    """Draw the mixing of a batch of `count` faces (mixup: Zhang et al., ICLR 2018, a share for each face).

    The larger part stays with the face itself, so that its label remains the one it mostly shows.
    """
    share = torch.distributions.Beta(mixup, mixup).sample((count,))
    return Mixing(torch.randperm(count).to(device), torch.maximum(share, 1.0 - share).to(device))


def build_augmentation(options: AugmentOptions) -> torch.nn.Module:
    """Return a module that maps faces (B, 3, S, S) in 0..1 to augmented faces of the same shape."""
    spread = options.scale
    stages: list[torch.nn.Module] = [
        augmentation.RandomHorizontalFlip(p=options.flip),
        augmentation.RandomAffine(
            degrees=options.rotate,
            translate=(options.translate, options.translate),
            scale=(1.0 - spread, 1.0 + spread),
            padding_mode="border",
            p=0.9,
        ),
        augmentation.RandomBrightness((1.0 - options.brightness, 1.0 + options.brightness), p=0.5),
        augmentation.RandomContrast((1.0 - options.contrast, 1.0 + options.contrast), p=0.5),
        augmentation.RandomGamma((1.0 - options.gamma, 1.0 + options.gamma), p=0.3),
        augmentation.RandomGaussianBlur((5, 5), (0.3, 1.5), p=options.blur),
        augmentation.RandomGaussianNoise(std=options.noise, p=0.3 if options.noise else 0.0),
        augmentation.RandomErasing(scale=(0.02, options.erase_area), value=0.5, p=options.erase),
    ]
    return torch.nn.Sequential(*stages)
