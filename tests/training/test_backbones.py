"""The published backbones: their published sizes, their maps, and the parts that are easy to get wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.counting import count, multiply_adds
from training.models import DEFAULTS, ExpressionNetwork, MapEncoder, build
from training.models.network import IMAGENET_MEAN, IMAGENET_STD
from training.models.resnet import InstanceBatchNorm
from training.models.shufflenet import ShuffleUnit, shuffle_channels
from training.models.swin import PatchMerging, ShiftedWindowAttention

# With 1,000 classes at 224 pixels: parameters, and multiply-adds as the papers round them. ShuffleNet's paper
# prints no parameters: 5.4 million is what others count. For ResNets see `training/models/resnet.py`.
PUBLISHED = {
    "resnet18": (11_689_512, 1.8e9, 0.05e9),
    "resnet50": (25_557_032, 4.1e9, 0.05e9),
    "resnet101": (44_549_160, 7.8e9, 0.05e9),
    "resnet50_ibn": (25_557_032, 4.1e9, 0.05e9),
    "mobilenet_v1": (4_231_976, 569e6, 0.5e6),
    "mobilenet_v2": (3_504_872, 300e6, 1e6),
    "shufflenet_v1": (5_450_776, 524e6, 0.5e6),
    "swin_t": (28_288_354, 4.5e9, 0.05e9),
}
# One of each kind, for what has to be computed.
KINDS = ("resnet18", "resnet50_ibn", "mobilenet_v1", "mobilenet_v2", "shufflenet_v1", "swin_t")


def blueprint(name: str, input_size: int, head: str | None = None) -> ExpressionNetwork:
    """The network without storage: for counting and shapes."""
    with torch.device("meta"):
        return build(name, input_size=input_size, head=head).eval()


def map_encoder(network: ExpressionNetwork) -> MapEncoder:
    assert isinstance(network.encoder, MapEncoder)
    return network.encoder


def lived_in(name: str, input_size: int = 32) -> ExpressionNetwork:
    """A small seeded network with running statistics that are not 0 and 1, in eval mode."""
    torch.manual_seed(3)
    network = build(name, input_size=input_size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(8, 3, input_size, input_size))
    return network.eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_backbone_has_its_published_size(name: str) -> None:
    parameters, work, rounding = PUBLISHED[name]
    encoder = map_encoder(blueprint(name, 224))
    classifier = 1000 * encoder.embedding_dim
    assert count(encoder) + classifier + 1000 == parameters
    images = torch.zeros(1, 3, 224, 224, device="meta")
    assert multiply_adds(encoder, images) + classifier == pytest.approx(work, abs=rounding)


def test_posterpp_is_the_encoder_of_grefel_under_a_linear_head() -> None:
    with torch.device("meta"):
        ours, grefel = build("posterpp"), build("grefel")
    shapes = [{k: v.shape for k, v in n.encoder.state_dict().items()} for n in (ours, grefel)]
    assert shapes[0] == shapes[1]
    assert count(ours) == 43_754_710
    assert (ours.spec.head, grefel.spec.head) == ("linear", "balanced")


@pytest.mark.parametrize("name", [*PUBLISHED, "posterpp"])
def test_a_backbone_comes_with_a_linear_head_and_pixels_of_imagenet(name: str) -> None:
    spec = DEFAULTS[name]
    assert (spec.head, spec.mean, spec.std) == ("linear", IMAGENET_MEAN, IMAGENET_STD)
    assert spec.input_size == (112 if name in ("swin_t", "posterpp") else 224)
    assert blueprint(name, spec.input_size, "balanced").head.anchor_correction.anchors.ndim == 3


@pytest.mark.parametrize("name", [*KINDS, "grefel-lite-s"])
@pytest.mark.parametrize("size", [224, 96, 64])
def test_the_map_has_the_size_that_the_encoder_names(name: str, size: int) -> None:
    encoder = map_encoder(blueprint(name, size))
    trunk = encoder.trunk(torch.zeros(2, 3, size, size, device="meta"))
    maps = encoder.last(trunk)
    side = encoder.map_size
    assert maps.shape == (2, encoder.map_channels, side, side)
    assert trunk.shape[2] == trunk.shape[3] == 2 * side
    assert encoder.pool(maps).shape == (2, encoder.embedding_dim)


@pytest.mark.parametrize("name", PUBLISHED)
def test_maps_are_of_seven_by_seven_at_the_published_size_and_four_at_64_pixels(name: str) -> None:
    sides = [map_encoder(blueprint(name, size)).map_size for size in (224, 112, 64)]
    assert sides == [7, 7 if name == "swin_t" else 4, 4]


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "swin_t"])
def test_a_checkpoint_of_one_size_fits_any_other(name: str) -> None:
    large, small = (blueprint(name, size).state_dict() for size in (224, 64))
    assert {k: v.shape for k, v in large.items()} == {k: v.shape for k, v in small.items()}


@pytest.mark.parametrize(
    ("name", "channels", "share"),
    [
        ("resnet18", 256, 0.72),
        ("mobilenet_v2", 96, 0.75),
        ("shufflenet_v1", 960, 0.62),
        ("swin_t", 384, 0.55),
    ],
)
def test_the_last_stage_is_the_one_that_dmue_copies(name: str, channels: int, share: float) -> None:
    encoder = map_encoder(blueprint(name, 64))
    assert encoder.trunk(torch.zeros(1, 3, 64, 64, device="meta")).shape[1:] == (channels, 8, 8)
    assert count(encoder.last) / count(encoder) == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_of_the_last_stage_gives_the_map_and_its_mean_the_embedding(name: str) -> None:
    network = lived_in(name)
    encoder = map_encoder(network)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        maps = copy.deepcopy(encoder.last)(encoder.trunk(images))
        assert float(maps.std()) > 0.01
        torch.testing.assert_close(maps.mean(dim=(2, 3)), network.forward_features(images))
        spread = encoder.spread(maps)
        torch.testing.assert_close(spread.mean(dim=(2, 3)), encoder.pool(maps))


@pytest.mark.parametrize("name", KINDS)
def test_a_sample_of_a_backbone_stands_alone(name: str) -> None:
    network = lived_in(name)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        alone, batch = network(images[1:2]), network(images)
    assert float(batch.embedding.std(dim=0).mean()) > 1e-3
    torch.testing.assert_close(batch.embedding[1:2], alone.embedding, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(batch.probabilities[1:2], alone.probabilities, rtol=1e-4, atol=1e-5)
    assert torch.equal(batch.primary, batch.probabilities)


@pytest.mark.parametrize("name", KINDS)
def test_every_weight_of_a_backbone_is_trained(name: str) -> None:
    torch.manual_seed(4)
    network = build(name, input_size=32)
    network(torch.randn(8, 3, 32, 32)).logits[:, 0].square().mean().backward()
    idle = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert [key for key in idle if not key.startswith("head")] == []


def test_half_of_the_first_norm_is_by_instance_in_the_first_three_stages() -> None:
    network = blueprint("resnet50_ibn", 64)
    found = [name for name, module in network.named_modules() if isinstance(module, InstanceBatchNorm)]
    units = [f"encoder.stages.{s}.{u}" for s, units in enumerate((3, 4, 6)) for u in range(units)]
    assert found == [f"{unit}.conv1.1" for unit in units]


def test_instance_and_batch_norm_are_as_defined() -> None:
    torch.manual_seed(5)
    norm = InstanceBatchNorm(6).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(3))
        norm.batch.running_mean.copy_(torch.randn(3))
        norm.batch.running_var.copy_(torch.rand(3) + 0.5)
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    got = norm.eval()(x).detach().numpy()
    for face in range(2):
        for channel in range(6):
            values = x[face, channel].numpy()
            part, place = (norm.instance, channel) if channel < 3 else (norm.batch, channel - 3)
            mean, variance = values.mean(), values.var()
            if channel >= 3:
                mean, variance = float(part.running_mean[place]), float(part.running_var[place])
            expected = (values - mean) / np.sqrt(variance + 1e-5)
            expected = expected * part.weight[place].item() + part.bias[place].item()
            np.testing.assert_allclose(got[face, channel], expected, rtol=1e-10, atol=1e-12)


def test_channels_are_dealt_out_from_group_to_group() -> None:
    x = np.random.default_rng(6).normal(size=(2, 12, 3, 2))
    got = shuffle_channels(torch.from_numpy(x), 3).numpy()
    for place in range(4):
        for group in range(3):
            np.testing.assert_array_equal(got[:, 3 * place + group], x[:, 4 * group + place])


def test_a_halving_unit_of_shufflenet_sets_its_averaged_input_in_front() -> None:
    torch.manual_seed(7)
    unit = ShuffleUnit(24, 60, 2, groups_in=1).eval()
    x = torch.rand(1, 24, 6, 6)
    with torch.inference_mode():
        got = unit(x)
    assert got.shape == (1, 60, 3, 3)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = [
        [padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].mean(axis=(2, 3)) for j in range(3)]
        for i in range(3)
    ]
    np.testing.assert_allclose(
        got[:, :24].numpy(), np.moveaxis(np.array(expected), (0, 1), (2, 3)), rtol=1e-5
    )
    groups = [layer[0].groups for layer in (unit.reduce, unit.depthwise, unit.expand)]
    assert groups == [1, 15, 3]
    shuffled = shuffle_channels(torch.relu(unit.reduce(x)), 3)
    rest = unit.expand(unit.depthwise(shuffled)).relu().detach()
    np.testing.assert_allclose(got[:, 24:].numpy(), rest.numpy(), rtol=1e-5, atol=1e-6)


def test_a_unit_of_shufflenet_adds_what_it_computes_to_its_input() -> None:
    torch.manual_seed(8)
    unit = ShuffleUnit(24, 24, 1).eval()
    x = torch.randn(1, 24, 6, 6)
    with torch.inference_mode():
        rest = unit.expand(unit.depthwise(shuffle_channels(unit.reduce(x).clamp_min(0), 3)))
        np.testing.assert_allclose(unit(x).numpy(), np.maximum(x + rest, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("side", "window", "shift"), [(8, 4, 2), (6, 2, 1), (4, 4, 0), (9, 3, 1)])
def test_shifted_windows_attend_to_true_neighbours_only(side: int, window: int, shift: int) -> None:
    """Position by position, in float64, on the map as it lies: no rolling, no mask.

    Moving the map by `shift` moves the borders of the windows: they then lie at shift, shift + window ...
    """
    torch.manual_seed(8)
    attention = ShiftedWindowAttention(64, side, window, shift).double()
    nn.init.normal_(attention.position_bias)
    x = torch.randn(2, side, side, 64, dtype=torch.float64)
    with torch.inference_mode():
        got = attention(x).numpy()
        qkv = attention.qkv(x).numpy().reshape(2, side, side, 3, 2, 32)
        table = attention.position_bias.numpy()
        weight, bias = attention.project.weight.numpy(), attention.project.bias.numpy()
    places = [(y, z) for y in range(side) for z in range(side)]
    for y, z in places:
        home = ((y - shift) // window, (z - shift) // window)
        others = [(v, w) for v, w in places if ((v - shift) // window, (w - shift) // window) == home]
        for face in range(2):
            mixed = []
            for head in range(2):
                query = qkv[face, y, z, 0, head] * 32**-0.5
                scores = np.array(
                    [
                        query @ qkv[face, v, w, 1, head]
                        + table[(y - v + window - 1) * (2 * window - 1) + z - w + window - 1, head]
                        for v, w in others
                    ]
                )
                shares = np.exp(scores - scores.max())
                shares /= shares.sum()
                mixed.append(shares @ np.array([qkv[face, v, w, 2, head] for v, w in others]))
            expected = weight @ np.concatenate(mixed) + bias
            np.testing.assert_allclose(got[face, y, z], expected, rtol=1e-9, atol=1e-10)


def test_patches_are_merged_from_four_neighbours() -> None:
    merging = PatchMerging(2)
    merging.norm, merging.reduce = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    x = torch.arange(4 * 6 * 2).reshape(1, 4, 6, 2)
    got = merging(x)
    assert got.shape == (1, 2, 3, 8)
    for row in range(2):
        for column in range(3):
            block = x[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert got[0, row, column].tolist() == block.transpose(0, 1).reshape(-1).tolist()


@pytest.mark.parametrize(
    ("size", "patch", "window"), [(224, 4, 7), (112, 2, 7), (96, 2, 6), (64, 2, 4), (160, 4, 5)]
)
def test_swin_chooses_patch_and_window_by_the_size_of_faces(size: int, patch: int, window: int) -> None:
    encoder = blueprint("swin_t", size).encoder
    attentions = [m for m in encoder.modules() if isinstance(m, ShiftedWindowAttention)]
    assert encoder.patches.kernel_size == (patch, patch)
    assert {a.window for a in attentions} == {window}
    moved = [a.shift for a in attentions]
    assert moved == [0, window // 2] * 5 + [0, 0]
    assert [round(b.drop_path.rate, 4) for b in encoder.modules() if hasattr(b, "drop_path")] == [
        round(0.1 * number / 11, 4) for number in range(12)
    ]


def test_swin_refuses_faces_that_its_windows_do_not_divide() -> None:
    with pytest.raises(ValueError, match="expected faces of a multiple of 16 pixels for swin_t, got 100"):
        build("swin_t", input_size=100)


def test_the_deeper_a_block_of_swin_the_more_often_it_is_dropped() -> None:
    encoder = blueprint("swin_t", 64).encoder
    stages = [*encoder.stages, encoder.last.blocks]
    rates = [b.drop_path.rate for stage in stages if isinstance(stage, nn.Sequential) for b in stage]
    np.testing.assert_allclose(rates, np.arange(12) / 110, rtol=1e-6)
