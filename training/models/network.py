"""A network is an encoder under a head, described by one serialisable spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from edge_fer.labels import LABELS
from training.models.balancing import BalancingOptions, HeadOutput, ReliabilityBalancing
from training.models.encoder import MapEncoder
from training.models.grefel import GrefelEncoder
from training.models.grefel_lite import SIZES, LiteEncoder
from training.models.heads import DanHead, LinearHead, RulHead, ScaledHead
from training.models.mobilenet import MobileNetV1Encoder, MobileNetV2Encoder
from training.models.recognition import RecognitionEncoder
from training.models.resnet import RESNETS, ResNetEncoder
from training.models.shufflenet import ShuffleNetEncoder
from training.models.swin import SwinEncoder

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """Everything needed to rebuild a network around its weights.

    `mean` and `std` normalise pixels scaled to 0..1, RGB. `anchors` is K per class, `delta` the temperature
    of the anchor similarity (Eq. 14), `slots` the m of the attentive correction. `temperature` calibrates the
    corrected distribution after training; 1 leaves it as it is. `balancing` says which corrections the head
    has, `printed_order` puts its dropout before its BatchNorm. `project_query` adds the query projection
    that Eq. 1 prints and neither code has.
    """

    model: str
    labels: tuple[str, ...] = LABELS
    input_size: int
    head: str = "balanced"
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    anchors: int = 10
    delta: float = 1.0
    slots: int = 5
    dropout: float = 0.5
    temperature: float = 1.0
    balancing: str = "both"
    printed_order: bool = False
    resize_mode: str = "nearest"
    project_query: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the spec as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> NetworkSpec:
        """Rebuild a spec written by `to_json`.

        Raises:
            ValueError: not an object, or a key is missing or unknown.
        """
        if not isinstance(value, dict):
            raise ValueError(f"expected the object of a network spec, got {type(value).__name__}")
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"expected the keys of a network spec, got {sorted(value)} ({error})") from error


def grefel_encoder(spec: NetworkSpec) -> nn.Module:
    """Build the published GReFEL encoder."""
    return GrefelEncoder(
        input_size=spec.input_size, resize_mode=spec.resize_mode, project_query=spec.project_query
    )


def grefel_lite_encoder(spec: NetworkSpec) -> nn.Module:
    """Build the compact encoder in the size that the model's name says."""
    size = SIZES[spec.model]
    return LiteEncoder(input_size=spec.input_size, widths=size.widths, blocks=size.blocks)


def resnet_encoder(spec: NetworkSpec) -> nn.Module:
    """Build the residual network that the model's name says."""
    return ResNetEncoder(input_size=spec.input_size, layout=RESNETS[spec.model])


ENCODERS: dict[str, Callable[[NetworkSpec], nn.Module]] = {
    "grefel": grefel_encoder,
    **dict.fromkeys(SIZES, grefel_lite_encoder),
    "mobilefacenet": lambda spec: RecognitionEncoder(input_size=spec.input_size),
    "posterpp": grefel_encoder,
    **dict.fromkeys(RESNETS, resnet_encoder),
    "mobilenet_v1": lambda spec: MobileNetV1Encoder(input_size=spec.input_size),
    "mobilenet_v2": lambda spec: MobileNetV2Encoder(input_size=spec.input_size),
    "shufflenet_v1": lambda spec: ShuffleNetEncoder(input_size=spec.input_size),
    "swin_t": lambda spec: SwinEncoder(input_size=spec.input_size),
}
# Those that others' methods are published on: 224 pixels, and a linear layer.
PUBLISHED = (*RESNETS, "mobilenet_v1", "mobilenet_v2", "shufflenet_v1")


def imagenet(model: str, input_size: int, head: str = "balanced") -> NetworkSpec:
    """Return the spec of a network that is fed with the mean and spread of ImageNet's pixels."""
    return NetworkSpec(model=model, input_size=input_size, head=head, mean=IMAGENET_MEAN, std=IMAGENET_STD)


DEFAULTS: dict[str, NetworkSpec] = {
    "grefel": imagenet("grefel", 112),
    **{name: NetworkSpec(model=name, input_size=64) for name in SIZES},
    # At 96 pixels a FER+ crop shows a face as large as the 112 pixels of a recognition crop do.
    "mobilefacenet": imagenet("mobilefacenet", 96),
    "posterpp": imagenet("posterpp", 112, "linear"),
    **{name: imagenet(name, 224, "linear") for name in PUBLISHED},
    "swin_t": imagenet("swin_t", 112, "linear"),
}
VECTOR_HEADS: dict[str, Callable[..., nn.Module]] = {"linear": LinearHead, "scaled": ScaledHead}
MAP_HEADS: dict[str, Callable[..., nn.Module]] = {"dan": DanHead, "rul": RulHead}
HEADS = tuple(sorted(("balanced", *VECTOR_HEADS, *MAP_HEADS)))


def build_head(spec: NetworkSpec, encoder: nn.Module) -> nn.Module:
    """Build the head that a spec asks for on an encoder.

    Raises:
        ValueError: there is no such head, or the encoder has no map that it could read.
    """
    classes, temperature = len(spec.labels), spec.temperature
    if spec.head in MAP_HEADS:
        if not isinstance(encoder, MapEncoder):
            raise ValueError(
                f"expected a network with a feature map under the head {spec.head}, got {spec.model}, whose "
                "encoder has none; take head linear, scaled or balanced, or another network"
            )
        kind = MAP_HEADS[spec.head]
        return kind(encoder.map_channels, encoder.map_size, classes, temperature=temperature)
    dim = encoder.embedding_dim
    assert isinstance(dim, int)
    if spec.head in VECTOR_HEADS:
        return VECTOR_HEADS[spec.head](dim, classes, temperature=temperature)
    if spec.head != "balanced":
        raise ValueError(f"expected head {', '.join(HEADS[:-1])} or {HEADS[-1]}, got {spec.head!r}")
    options = BalancingOptions(
        balancing=spec.balancing,
        anchors=spec.anchors,
        delta=spec.delta,
        slots=spec.slots,
        dropout=spec.dropout,
        printed_order=spec.printed_order,
    )
    return ReliabilityBalancing(dim, classes, options, temperature=temperature)


class ExpressionNetwork(nn.Module):
    """Encoder and head: normalised faces (B, 3, S, S) in, `HeadOutput` out."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = ENCODERS[spec.model](spec)
        self.head = build_head(spec, self.encoder)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised faces (B, 3, S, S) to the embedding e (B, D)."""
        return self.encoder(images)

    def head_input(self, images: torch.Tensor) -> torch.Tensor:
        """Map faces (B, 3, S, S) to what the head reads: embeddings (B, D) or maps (B, C, h, w)."""
        if self.head.takes_map:
            return self.encoder(images, pooled=False)
        return self.forward_features(images)

    def forward(self, images: torch.Tensor) -> HeadOutput:
        """Map normalised faces (B, 3, S, S) to the distributions; the head always computes in float32."""
        features = self.head_input(images)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float())


def calibrated(network: ExpressionNetwork, temperature: float) -> ExpressionNetwork:
    """Return the same weights under a head with this temperature, in eval mode."""
    other = build_from_spec(replace(network.spec, temperature=temperature))
    other.load_state_dict(network.state_dict())
    return other.eval()


def standardise(faces: torch.Tensor, network: ExpressionNetwork) -> torch.Tensor:
    """Return the network's input: less its mean, over its standard deviation, channels last in memory.

    Args:
        faces: (B, 3, S, S) in 0..1, RGB.
    """
    mean = torch.tensor(network.spec.mean, device=faces.device).reshape(3, 1, 1)
    std = torch.tensor(network.spec.std, device=faces.device).reshape(3, 1, 1)
    return ((faces - mean) / std).contiguous(memory_format=torch.channels_last)


def build_from_spec(spec: NetworkSpec) -> ExpressionNetwork:
    """Build the network a spec describes, with fresh weights from torch's global generator.

    Raises:
        ValueError: the spec names an unknown model or head.
    """
    if spec.model not in ENCODERS:
        raise ValueError(f"expected one of {', '.join(sorted(ENCODERS))}, got network {spec.model!r}")
    return ExpressionNetwork(spec)


def build(
    name: str,
    *,
    classes: int | None = None,
    input_size: int | None = None,
    head: str | None = None,
    resize_mode: str = "nearest",
) -> ExpressionNetwork:
    """Build a network by name; `classes` takes the first so many of the project's labels (7 drops contempt).

    Input size and head are the network's own where they are None.
    `build("grefel", classes=7, input_size=224, head="linear")` is the published encoder with POSTER++'s head.

    Raises:
        ValueError: unknown name or head, or more classes than labels.
    """
    if name not in DEFAULTS:
        raise ValueError(f"expected one of {', '.join(sorted(DEFAULTS))}, got network {name!r}")
    classes = len(LABELS) if classes is None else classes
    if not 2 <= classes <= len(LABELS):
        raise ValueError(f"expected 2 to {len(LABELS)} classes, got {classes}")
    default = DEFAULTS[name]
    spec = replace(
        default,
        labels=LABELS[:classes],
        input_size=input_size or default.input_size,
        head=head or default.head,
        resize_mode=resize_mode,
    )
    return build_from_spec(spec)
