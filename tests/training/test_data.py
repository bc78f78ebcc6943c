"""Faces as tensors, duplicates, the order of an epoch, and the augmentation."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_fer.errors import InputError
from edge_fer.images import read_image, write_image
from edge_fer.labels import LABELS
from edge_fer.preprocess import CropSpec, crop_whole
from training.data.augment import AugmentOptions, Mixing, build_augmentation, draw_mixing
from training.data.faces import FaceTensors, drop_duplicates, load_faces
from training.data.labelled import split_data
from training.data.order import batches, epoch_order

CROP = CropSpec(size=24, margin=0.0)
STAGES = [
    field.name for field in dataclasses.fields(AugmentOptions) if field.name not in ("erase_area", "mixup")
]
OFF = AugmentOptions(**dict.fromkeys(STAGES, 0.0))


def ferplus_folder(root: Path, votes: list[list[int]]) -> str:
    """Write a FER+ layout with one training face of noise per row of ten votes; return its DATA."""
    folder = root / "FER2013Train"
    folder.mkdir()
    lines = ["Usage,Image name," + ",".join((*LABELS, "unknown", "NF"))]
    for number, row in enumerate(votes):
        name = f"fer{number:07d}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (48, 48, 3)).astype(np.uint8)
        write_image(folder / name, pixels)
        lines.append(f"Training,{name}," + ",".join(map(str, row)))
    (root / "fer2013new.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"ferplus:{root}:train"


def test_a_folder_becomes_tensors(noise_data: Path) -> None:
    faces = load_faces(str(noise_data / "train"), CROP, classes=8)
    assert len(faces) == 72
    assert faces.crops.shape == (72, 24, 24, 3) and faces.crops.dtype == torch.uint8
    assert faces.labels.dtype == torch.int64
    assert torch.bincount(faces.labels).tolist() == [24, 24, 24]
    assert faces.votes is None
    pixels = crop_whole(read_image(noise_data / "train" / "happiness" / "05.png"), CROP)
    of_class = faces.crops[faces.labels == LABELS.index("happiness")]
    assert any(np.array_equal(crop.numpy(), pixels) for crop in of_class)


def test_votes_become_distributions_over_the_networks_classes(tmp_path: Path) -> None:
    votes = [[6, 1, 0, 0, 0, 0, 0, 3, 0, 0], [0, 0, 0, 0, 0, 0, 1, 9, 0, 0], [0, 2, 7, 0, 0, 0, 1, 0, 0, 0]]
    data = ferplus_folder(tmp_path, votes)
    every = load_faces(data, CROP, classes=8)
    assert every.labels.tolist() == [0, 7, 2]
    assert every.votes is not None and every.votes.dtype == torch.float32
    assert every.votes.tolist() == [[float(vote) for vote in row[:8]] for row in votes]
    seven = load_faces(data, CROP, classes=7)  # the face of contempt is dropped, and contempt's votes
    assert seven.labels.tolist() == [0, 2]
    assert seven.votes is not None and torch.equal(seven.votes, every.votes[[0, 2], :7])
    other = load_faces(data, CROP, ("happiness", "other", "neutral", "surprise"))
    assert other.names == ("happiness", "other", "neutral", "surprise") and other.labels.tolist() == [2, 3]
    assert other.votes is not None and other.votes.tolist() == [[1.0, 0.0, 6.0, 0.0], [2.0, 0.0, 0.0, 7.0]]


def test_data_without_a_usable_face_is_refused(noise_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "contempt"
    shutil.copytree(noise_data / "valid" / "neutral", folder)
    with pytest.raises(InputError, match=r"expected faces of the classes neutral, .*, fear, got none"):
        load_faces(str(tmp_path), CROP, classes=7)
    table = tmp_path / "faces.csv"
    table.write_text("file,label\ncontempt/00.png,contempt\ncontempt/01.png,\n", encoding="utf-8")
    with pytest.raises(InputError):
        load_faces(str(table), CROP, classes=8)


def test_splits_are_found(noise_data: Path, tmp_path: Path) -> None:
    assert split_data(str(noise_data)) == (str(noise_data / "train"), str(noise_data / "valid"))
    assert split_data("ferplus:/data") == ("ferplus:/data:train", "ferplus:/data:valid")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=r"expected ferplus:DIR, .* or a folder that holds train/"):
        split_data(str(tmp_path))


def tensors(values: list[int], *, votes: bool = True) -> FaceTensors:
    """Return one-colour faces of these values, each labelled with its place."""
    crops = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3).contiguous()
    shares = torch.arange(len(values)).float()[:, None].expand(-1, 8).contiguous()
    return FaceTensors(crops, torch.arange(len(values)), shares if votes else None)


def test_duplicates_are_dropped_within_and_across() -> None:
    train = drop_duplicates(tensors([1, 2, 1, 3, 4, 2, 5]), tensors([4, 9]))
    assert train.crops[:, 0, 0, 0].tolist() == [1, 2, 3, 5]
    assert train.labels.tolist() == [0, 1, 3, 6]
    assert train.votes is not None and train.votes[:, 0].tolist() == [0.0, 1.0, 3.0, 6.0]


def test_dropping_duplicates_keeps_faces_that_differ_in_one_pixel() -> None:
    faces = tensors([1, 1, 1], votes=False)
    faces.crops[1, 3, 3, 2] = 2
    kept = drop_duplicates(faces, tensors([9], votes=False))
    assert kept.labels.tolist() == [0, 1]
    assert kept.votes is None


@given(count=st.integers(1, 200), seed=st.integers(0, 100_000_000), epoch=st.integers(0, 1000))
def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(torch.zeros(count), seed, epoch)
    assert sorted(order.tolist()) == list(range(count))
    torch.manual_seed(count)  # the global generator has no say
    torch.rand(3)
    assert torch.equal(epoch_order(torch.zeros(count), seed, epoch), order)


def test_epochs_and_seeds_have_different_orders() -> None:
    labels = torch.zeros(50)
    orders = {tuple(epoch_order(labels, seed, epoch).tolist()) for seed in range(5) for epoch in range(20)}
    assert len(orders) == 100


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    first=st.integers(0, 12),
)
def test_batches_go_on_where_they_were_left(count: int, batch_size: int, first: int) -> None:
    order = epoch_order(torch.zeros(count), 1, 2)
    every = [(number, indices.tolist()) for number, indices in batches(order, batch_size, 0)]
    assert [number for number, _ in every] == list(range(count // batch_size))
    assert all(len(indices) == batch_size for _, indices in every)
    joined = [index for _, indices in every for index in indices]
    assert joined == order[: len(joined)].tolist()
    rest = [(number, indices.tolist()) for number, indices in batches(order, batch_size, first)]
    assert rest == every[first:]


def some_faces(count: int = 6, size: int = 32) -> torch.Tensor:
    """Return smooth faces in 0.1..0.9, so that no stage starts out clipped."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    return 0.1 + 0.8 * torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")


def test_augmentation_keeps_shape_and_range() -> None:
    faces = some_faces(64)
    torch.manual_seed(1)
    noiseless = build_augmentation(AugmentOptions(noise=0.0))(faces)
    assert noiseless.shape == faces.shape and noiseless.dtype == torch.float32
    assert float(noiseless.min()) >= -1e-6 and float(noiseless.max()) <= 1 + 1e-6
    noisy = build_augmentation(AugmentOptions())(faces)
    assert torch.isfinite(noisy).all()
    assert float(noisy.min()) >= -0.2 and float(noisy.max()) <= 1.2  # the loop clamps the noise


def test_augmentation_depends_on_the_seed_alone() -> None:
    augmentation, faces = build_augmentation(AugmentOptions()), some_faces()
    torch.manual_seed(5)
    first = augmentation(faces)
    torch.manual_seed(6)
    other = augmentation(faces)
    torch.manual_seed(5)
    assert torch.equal(augmentation(faces), first)
    assert torch.equal(faces, some_faces())  # the input stays as it is
    changed = [not torch.equal(left, right) for left, right in zip(first, other, strict=True)]
    assert all(changed)


def test_every_face_of_a_batch_is_changed_differently() -> None:
    faces = some_faces(1).repeat(8, 1, 1, 1)
    augmented = build_augmentation(AugmentOptions())(faces)
    assert len({face.numpy().tobytes() for face in augmented}) == 8


def test_augmentation_that_is_off_changes_nothing() -> None:
    faces = some_faces()
    torch.testing.assert_close(build_augmentation(OFF)(faces), faces, rtol=0, atol=1e-5)


def test_flip_mirrors_left_and_right() -> None:
    faces = some_faces()
    flipped = build_augmentation(dataclasses.replace(OFF, flip=1.0))(faces)
    torch.testing.assert_close(flipped, faces.flip(-1), rtol=0, atol=1e-5)
    torch.manual_seed(2)
    mixed = build_augmentation(dataclasses.replace(OFF, flip=0.5))(some_faces(40))
    mirrored = [
        torch.allclose(face, was.flip(-1), atol=1e-5) for face, was in zip(mixed, some_faces(40), strict=True)
    ]
    assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize("name", STAGES)
def test_every_option_does_something(name: str) -> None:
    faces = some_faces(24)
    value = {"rotate": 30.0, "noise": 0.1}.get(name, 0.5)
    augmented = build_augmentation(dataclasses.replace(OFF, **{name: value}))(faces)
    assert float((augmented - faces).abs().max()) > 0.01


def test_the_erased_part_is_as_large_as_the_option_allows() -> None:
    torch.manual_seed(0)
    for area in (0.05, 0.4):
        erased = build_augmentation(dataclasses.replace(OFF, erase=1.0, erase_area=area))(some_faces(200))
        shares = (erased - some_faces(200)).abs().amax(dim=1).gt(1e-3).float().mean(dim=(1, 2))
        assert 0.8 * area < float(shares.max()) < 1.15 * area


def test_mixing_is_the_same_for_faces_and_targets() -> None:
    generator = np.random.default_rng(0)
    partner, share = np.array([2, 0, 1]), np.array([0.5, 0.75, 1.0], np.float32)
    mixing = Mixing(torch.from_numpy(partner), torch.from_numpy(share))
    for shape in ((3, 3, 8, 8), (3, 5), (3,)):
        values = generator.normal(size=shape).astype(np.float32)
        expected = [
            s * values[i] + (1 - s) * values[p] for i, (p, s) in enumerate(zip(partner, share, strict=True))
        ]
        np.testing.assert_allclose(mixing(torch.from_numpy(values)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_larger_part_of_a_mixture_is_the_face_itself() -> None:
    torch.manual_seed(0)
    mixing = draw_mixing(20_000, 0.2, torch.device("cpu"))
    assert sorted(mixing.partner.tolist()) == list(range(20_000))
    assert float(mixing.share.min()) >= 0.5 and float(mixing.share.max()) <= 1.0
    beta = np.random.default_rng(1).beta(0.2, 0.2, 200_000)
    expected = np.quantile(np.maximum(beta, 1 - beta), (0.1, 0.25, 0.5))
    np.testing.assert_allclose(np.quantile(mixing.share.numpy(), (0.1, 0.25, 0.5)), expected, atol=0.01)
