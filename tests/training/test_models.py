"""The networks: sizes, shapes, an independent second implementation, and that a sample stands alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from edge_fer.labels import LABELS
from tests.training.counting import count, multiply_adds
from tests.training.grefel_reference import encode, position_bias, weight_by_rule
from training.models import DEFAULTS, ExpressionNetwork, MapEncoder, build, build_from_spec, calibrated
from training.models.cross_attention import (
    CrossFusionLevel,
    WindowCrossAttention,
    merge_windows,
    partition_windows,
    relative_position_index,
)
from training.models.grefel_lite import SIZES
from training.models.network import NetworkSpec, standardise


def ruled(network: ExpressionNetwork) -> ExpressionNetwork:
    """Set every weight by rule and switch to eval mode."""
    values = {name: weight_by_rule(name, tensor) for name, tensor in network.state_dict().items()}
    network.load_state_dict(values)
    return network.eval()


def faces(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def grefel() -> ExpressionNetwork:
    """GReFEL under its own head at 112 pixels, weights by rule."""
    return ruled(build("grefel"))


@pytest.fixture(scope="module")
def blueprint() -> ExpressionNetwork:
    """The published encoder under POSTER++'s head, without storage: for counting and shapes."""
    with torch.device("meta"):
        return build("grefel", classes=7, input_size=224, head="linear").eval()


def test_faces_are_standardised_with_channels_last() -> None:
    pixels = torch.rand(2, 3, 4, 5)
    images = standardise(pixels, build("shufflenet_v1", input_size=32))
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images[:, 1], (pixels[:, 1] - 0.456) / 0.224)


def test_the_published_encoder_has_its_published_size(blueprint: ExpressionNetwork) -> None:
    assert count(blueprint) == 43_753_941
    with torch.device("meta"):
        assert count(build("grefel", classes=8, head="linear")) == 43_754_710


def test_every_part_of_grefel_has_its_size(blueprint: ExpressionNetwork) -> None:
    encoder = blueprint.encoder
    levels = (encoder.level1, encoder.level2, encoder.level3)
    vit = encoder.vit
    assert count(encoder.image_branch) == 17_611_968
    assert count(encoder.landmark_branch) == 911_232
    assert count(encoder.landmark_last) == 1_179_904
    assert [count(level.down) for level in levels] == [36_928, 147_584, 590_080]
    assert [count(level.norm) for level in levels] == [128, 256, 512]
    assert [count(level.attention) for level in levels] == [18_530, 52_452, 198_728]
    feed_forward = [count(level.norm_mlp, level.mlp, level.scale1, level.scale2) for level in levels]
    assert feed_forward == [33_344, 132_224, 526_592]
    assert count(vit.tokens.embed1) == 5_752_320
    assert count(vit.tokens.embed2) == 885_504
    assert count(vit.tokens.embed3) == 197_376
    assert count(vit.tokens.cls, vit.tokens.position) == 114_432
    assert count(vit.blocks) == 14_175_744
    assert count(vit.norm) == 1_536
    assert count(vit.gate) == 1_181_184
    assert count(blueprint.head) == 5_383


def test_grefel_costs_what_was_measured_on_the_original(blueprint: ExpressionNetwork) -> None:
    images = torch.zeros(1, 3, 224, 224, device="meta")
    assert multiply_adds(blueprint.forward_features, images) == pytest.approx(8.593e9, abs=0.001e9)


@pytest.mark.parametrize("classes", [2, 7, 8])
def test_grefel_lite_stays_within_its_limits(classes: int) -> None:
    network = build("grefel-lite", classes=classes).eval()
    assert network.spec.input_size == 64
    assert count(network) <= 1_500_000
    assert multiply_adds(network, torch.zeros(1, 3, 64, 64)) <= 0.25e9


@pytest.mark.parametrize(
    ("name", "least", "most", "work"),
    [
        ("grefel-lite-s", 280_000, 320_000, 0.05e9),
        ("grefel-lite", 1_000_000, 1_500_000, 0.15e9),
        ("grefel-lite-l", 2_600_000, 2_850_000, 0.36e9),
    ],
)
def test_the_ladder_has_its_sizes(name: str, least: int, most: int, work: float) -> None:
    """The largest, a byte for each weight, leaves 150,000 of 3,000,000 bytes to the graph around it."""
    network = build(name).eval()
    assert network.spec.model == name
    assert least <= count(network) <= most
    assert multiply_adds(network, torch.zeros(1, 3, 64, 64)) <= work


SHAPES = {
    "image_branch.stem_prelu": (64, 112, 112),
    "image_branch.stage1": (64, 56, 56),
    "image_branch.stage2": (128, 28, 28),
    "image_branch.stage3": (256, 14, 14),
    "landmark_branch.stem": (64, 56, 56),
    "landmark_branch.stem_depthwise": (64, 56, 56),
    "landmark_branch.blocks1": (64, 28, 28),
    "landmark_branch.blocks2": (128, 14, 14),
    "landmark_branch.last": (512, 7, 7),
    "landmark_last": (256, 7, 7),
    "level1.down": (64, 28, 28),
    "level2.down": (128, 14, 14),
    "level3.down": (256, 7, 7),
    "level1.attention": (784, 64),
    "level2.attention": (196, 128),
    "level3.attention": (49, 256),
    "level1.mlp": (28, 28, 64),
    "level2.mlp": (14, 14, 128),
    "level3.mlp": (7, 7, 256),
    "level1": (64, 28, 28),
    "level2": (128, 14, 14),
    "level3": (256, 7, 7),
    "vit.tokens.embed1": (768, 7, 7),
    "vit.tokens.embed2": (768, 7, 7),
    "vit.tokens.embed3": (768, 7, 7),
    "vit.tokens": (148, 768),
    "vit.blocks.0": (148, 768),
    "vit.blocks.1": (148, 768),
    "vit": (768,),
}


def test_every_module_of_grefel_gives_its_shape(blueprint: ExpressionNetwork) -> None:
    with outputs(blueprint.encoder, SHAPES) as seen:
        blueprint.forward_features(torch.zeros(1, 3, 224, 224, device="meta"))
    assert {name: tuple(tensor.shape) for name, tensor in seen.items()} == {
        name: (1, *shape) for name, shape in SHAPES.items()
    }


@contextmanager
def outputs(
    module: nn.Module, names: dict[str, tuple[int, ...]] | list[str]
) -> Iterator[dict[str, torch.Tensor]]:
    """Collect what these submodules return while the block runs."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    yield seen
    for handle in handles:
        handle.remove()


PARTS = {
    "map1": "image_branch.stage1",
    "map2": "image_branch.stage2",
    "map3": "image_branch.stage3",
    "tap1": "landmark_branch.blocks1",
    "tap2": "landmark_branch.blocks2",
    "tap3": "landmark_branch.last",
    "landmark_last": "landmark_last",
    "level1": "level1",
    "level2": "level2",
    "level3": "level3",
    "tokens": "vit.tokens",
    "block0": "vit.blocks.0",
    "block1": "vit.blocks.1",
    "e": "vit",
}


@pytest.fixture(scope="module")
def second_opinion(grefel: ExpressionNetwork) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two faces (2, 3, 112, 112) and what the reference says of them, in float64."""
    weights = {name: tensor.double() for name, tensor in grefel.state_dict().items()}
    images = faces(2, 112, seed=1)
    with torch.inference_mode():
        return images, encode(weights, images.double())


def check_parts(
    encoder: nn.Module, images: torch.Tensor, expected: dict[str, torch.Tensor], tolerance: float
) -> None:
    """Compare every part's output, the embedding last, relative to the part's largest activation."""
    with outputs(encoder, list(PARTS.values())) as got, torch.inference_mode():
        encoder(images)
    for part, module in PARTS.items():
        scale = float(expected[part].abs().max())
        assert 0.5 < scale < 50.0, part  # activations of order 1, or the comparison would say nothing
        difference = float((got[module] - expected[part]).abs().max())
        assert difference <= tolerance * scale, f"{part}: {difference / scale:.1e} of its scale"


SecondOpinion = tuple[torch.Tensor, dict[str, torch.Tensor]]


def test_grefel_is_the_reference_in_double_precision(
    grefel: ExpressionNetwork, second_opinion: SecondOpinion
) -> None:
    """The bound is below what another epsilon of a norm or another GELU would change."""
    images, expected = second_opinion
    check_parts(copy.deepcopy(grefel.encoder).double(), images.double(), expected, 1e-10)


def test_grefel_follows_the_reference_in_single_precision(
    grefel: ExpressionNetwork, second_opinion: SecondOpinion
) -> None:
    check_parts(grefel.encoder, *second_opinion, 1e-5)


def test_grefel_of_224_pixels_sees_every_second_one(second_opinion: SecondOpinion) -> None:
    images, expected = second_opinion
    large = faces(2, 224, seed=2)
    large[:, :, ::2, ::2] = images
    check_parts(ruled(build("grefel", input_size=224)).encoder, large, expected, 1e-5)


def test_nearest_resizing_keeps_exactly_every_second_pixel() -> None:
    with torch.device("meta"):
        encoder = build("grefel", input_size=224).encoder
    images = faces(2, 224, seed=3)
    small = encoder.to_trunk_size(images)
    assert torch.equal(small, images[:, :, ::2, ::2])
    assert torch.equal(small, torch.nn.functional.interpolate(images, size=112))
    assert small.data_ptr() == images.data_ptr()  # a slice, which no runtime reads in a way of its own
    with torch.device("meta"):
        encoder = build("grefel", input_size=224, resize_mode="bilinear").encoder
    smooth = encoder.to_trunk_size(images)
    assert smooth.shape == (2, 3, 112, 112)
    assert float(smooth.std()) < 0.7 * float(images.std())


def test_a_face_of_trunk_size_is_read_directly() -> None:
    with torch.device("meta"):
        encoder = build("grefel", input_size=112).encoder
    images = faces(1, 112, seed=4)
    assert encoder.to_trunk_size(images) is images


@pytest.mark.parametrize("side", [1, 3, 7])
def test_position_indices_follow_the_formula(side: int) -> None:
    index = relative_position_index(side)
    for query in range(side * side):
        for key in range(side * side):
            dy = query // side - key // side
            dx = query % side - key % side
            assert index[query, key] == (dy + side - 1) * (2 * side - 1) + (dx + side - 1)
    table = torch.randn((2 * side - 1) ** 2, 2)
    assert torch.equal(position_bias(table, side), table[index].permute(2, 0, 1))


@pytest.mark.parametrize(("height", "width", "window"), [(7, 7, 7), (14, 14, 7), (4, 6, 2), (3, 9, 3)])
def test_windows_are_cut_and_put_back(height: int, width: int, window: int) -> None:
    x = torch.arange(2 * height * width * 5).reshape(2, height, width, 5)
    windows = partition_windows(x, window)
    across = width // window
    assert windows.shape == (2 * (height // window) * across, window * window, 5)
    for sample in range(2):
        for number in range((height // window) * across):
            top, left = number // across * window, number % across * window
            expected = x[sample, top : top + window, left : left + window].reshape(-1, 5)
            assert torch.equal(windows[sample * (len(windows) // 2) + number], expected)
    assert torch.equal(merge_windows(windows, height, width, window), x)


def test_every_window_of_a_sample_gets_the_sample_s_query() -> None:
    attention = WindowCrossAttention(64, 2)
    query, windows = torch.randn(2, 4, 64), torch.randn(6, 4, 64)
    together = attention(windows, query)
    for number in range(6):
        alone = attention(windows[number : number + 1], query[number // 3 : number // 3 + 1])
        torch.testing.assert_close(together[number : number + 1], alone, rtol=1e-5, atol=1e-6)


def test_a_level_of_several_windows_works_window_by_window() -> None:
    level = CrossFusionLevel(64, 2, drop_path=0.0).eval()
    image, landmark = torch.randn(2, 64, 8, 8), torch.randn(2, 64, 2, 2)
    fused = level(image, landmark)
    assert fused.shape == (2, 64, 4, 4)
    torch.testing.assert_close(fused[1:], level(image[1:], landmark[1:]), rtol=1e-5, atol=1e-5)


def test_drop_path_drops_whole_samples_only_while_training() -> None:
    drop = CrossFusionLevel(64, 2, drop_path=0.25).drop_path
    x = torch.ones(4000, 3, 2)
    assert torch.equal(drop.eval()(x), x)
    kept = drop.train()(x)
    per_sample = kept.flatten(1)
    assert torch.equal(per_sample, per_sample[:, :1].expand_as(per_sample))
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0.0, 4 / 3])
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["grefel", *SIZES, "mobilefacenet"])
def test_a_sample_gives_the_same_alone_and_in_any_batch(name: str, grefel: ExpressionNetwork) -> None:
    network = grefel if name == "grefel" else ruled(build(name))
    images = faces(3, network.spec.input_size, seed=5)
    with torch.inference_mode():
        alone = network(images[:1])
        for others in ([1], [2, 1]):
            batch = network(images[[*others, 0]])
            for field, value in zip(alone._fields, alone, strict=True):
                torch.testing.assert_close(getattr(batch, field)[-1:], value, rtol=1e-5, atol=1e-5, msg=field)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
@pytest.mark.parametrize("head", ["balanced", "linear"])
def test_a_spec_rebuilds_its_network(name: str, head: str) -> None:
    with torch.device("meta"):
        network = build(name, classes=7, head=head)
        again = build_from_spec(NetworkSpec.from_json(network.spec.to_json()))
    assert again.spec == network.spec
    assert again.spec.labels == LABELS[:7]
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_grefel_lite_reads_luma_only() -> None:
    network = ruled(build("grefel-lite"))
    colour = faces(1, 64, seed=6)
    luma = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    gray = luma[:, None].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        got, expected = network.forward_features(colour), network.forward_features(gray)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "resnet"}, f"expected one of {', '.join(sorted(DEFAULTS))}, got network 'resnet'"),
        ({"name": "grefel-lite", "classes": 9}, "expected 2 to 8 classes, got 9"),
        ({"name": "grefel-lite", "classes": 1}, "expected 2 to 8 classes, got 1"),
        (
            {"name": "grefel-lite", "head": "dense"},
            "expected head balanced, dan, linear, rul or scaled, got 'dense'",
        ),
        ({"name": "grefel", "resize_mode": "cubic"}, "expected resize_mode nearest or bilinear, got 'cubic'"),
    ],
)
def test_unknown_choices_are_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError) as error:
        build(**arguments)  # type: ignore[arg-type]
    assert str(error.value) == text


@pytest.mark.parametrize("value", [None, "grefel", {"modle": "grefel"}, {"model": "grefel"}])
def test_a_foreign_spec_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="network spec"):
        NetworkSpec.from_json(value)


def test_a_spec_of_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="got network 'resnet'"):
        build_from_spec(NetworkSpec(model="resnet", input_size=64))


def test_the_spread_map_has_the_embedding_as_its_mean() -> None:
    network = build("grefel-lite-s", input_size=40)
    network(torch.randn(16, 3, 40, 40))  # running statistics that are not 0 and 1
    images = torch.randn(3, 3, 40, 40)
    encoder = network.eval().encoder
    assert isinstance(encoder, MapEncoder)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.last(encoder.trunk(images)), encoder.forward_map(images))
        spread = encoder.spread(encoder.forward_map(images))
        assert spread.shape == (3, 80, 5, 5)
        torch.testing.assert_close(spread.mean(dim=(2, 3)), encoder(images), rtol=1e-5, atol=1e-5)


def test_a_temperature_calibrates_a_linear_head_too() -> None:
    network = build("grefel-lite-s", input_size=32, head="linear").eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        plain, cold = network(images), calibrated(network, 0.5)(images)
    squared = plain.probabilities.square()
    torch.testing.assert_close(cold.probabilities, squared / squared.sum(dim=1, keepdim=True))
    assert cold.primary is cold.probabilities
