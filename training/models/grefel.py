"""GReFEL's encoder: two face backbones, cross-attention at three scales, a multi-scale ViT."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import interpolate

from training.models.cross_attention import CrossFusionLevel
from training.models.iresnet import IResNet50Trunk
from training.models.mobilefacenet import MobileFaceNetTrunk
from training.models.vit import DIM, MultiScaleViT

TRUNK_SIZE = 112


class GrefelEncoder(nn.Module):
    """Published GReFEL / POSTER++ encoder (systems §1): faces (B, 3, S, S) to the embedding e (B, 768).

    S = 112 is read directly; any other size is brought to 112 by `resize_mode` ("nearest" as published,
    which for 224 keeps exactly every second pixel, or "bilinear" with anti-aliasing).
    """

    embedding_dim = DIM

    def __init__(self, *, input_size: int, resize_mode: str = "nearest", project_query: bool = False) -> None:
        super().__init__()
        if resize_mode not in ("nearest", "bilinear"):
            raise ValueError(f"expected resize_mode nearest or bilinear, got {resize_mode!r}")
        self.input_size = input_size
        self.resize_mode = resize_mode
        self.image_branch = IResNet50Trunk()
        self.landmark_branch = MobileFaceNetTrunk()
        self.landmark_last = nn.Conv2d(512, 256, 3, padding=1)
        self.level1 = CrossFusionLevel(64, 28, drop_path=0.0, project_query=project_query)
        self.level2 = CrossFusionLevel(128, 14, drop_path=0.125, project_query=project_query)
        self.level3 = CrossFusionLevel(256, 7, drop_path=0.25, project_query=project_query)
        self.vit = MultiScaleViT()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to embeddings (B, 768)."""
        face = self.to_trunk_size(image)
        map1, map2, map3 = self.image_branch(face)
        tap1, tap2, tap3 = self.landmark_branch(face)
        fused1 = self.level1(map1, tap1)
        fused2 = self.level2(map2, tap2)
        fused3 = self.level3(map3, self.landmark_last(tap3))
        return self.vit(fused1, fused2, fused3)

    def to_trunk_size(self, image: torch.Tensor) -> torch.Tensor:
        """Resize (B, 3, S, S) to (B, 3, 112, 112) in the chosen mode."""
        if self.input_size == TRUNK_SIZE:
            return image
        step, rest = divmod(self.input_size, TRUNK_SIZE)
        if self.resize_mode == "nearest":
            # The same pixels as a nearest resize, which TensorFlow Lite's converter takes from other places.
            return image[..., ::step, ::step] if rest == 0 else interpolate(image, size=TRUNK_SIZE)
        return interpolate(image, size=TRUNK_SIZE, mode="bilinear", antialias=True, align_corners=False)
