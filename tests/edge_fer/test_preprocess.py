"""The one preprocessing against a slow, exact reference written from its description, with fractions."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from math import floor, isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fer.errors import InputError
from edge_fer.preprocess import FERPLUS_TEMPLATE, CropSpec, crop_face, crop_whole

HALF = Fraction(1, 2)
coordinates = st.floats(-60, 60).map(lambda value: round(value * 16) / 16)
sides = st.one_of(st.floats(0.01, 50), st.floats(0.01, 4000)).map(
    lambda value: max(1, round(value * 16)) / 16
)
margins = st.sampled_from([0.0, 0.1, 0.25, -0.2, 1.0])
sizes = st.integers(1, 7)
RECORDED = ["f15bc39a2b6bcf0d", "80fb9b49650cfcd7", "5abf7b5fde7a0a5c"]


@st.composite
def images(draw: st.DrawFn) -> NDArray[np.uint8]:
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fixed(value: Fraction) -> Fraction:
    return Fraction(round(value * 65536), 65536)


def overlaps(begin: Fraction, end: Fraction, length: int) -> dict[int, Fraction]:
    """How much of each pixel lies in an interval, when the first and last pixel go on for ever."""
    shares: dict[int, Fraction] = {}
    low, high = max(begin, Fraction(0)), min(end, Fraction(length))
    for pixel in range(max(0, floor(low)), min(length, floor(high) + 1)):
        share = min(high, Fraction(pixel + 1)) - max(low, Fraction(pixel))
        if share > 0:
            shares[pixel] = share
    before, after = min(end, Fraction(0)) - begin, end - max(begin, Fraction(length))
    if before > 0:
        shares[0] = shares.get(0, Fraction(0)) + before
    if after > 0:
        shares[length - 1] = shares.get(length - 1, Fraction(0)) + after
    return shares


def reference_origin(centre: Fraction, factor: int) -> Fraction:
    if centre - floor(centre) == HALF:
        return centre if factor % 2 == 0 else centre - Fraction(factor, 2)
    return Fraction(floor(centre + HALF))


def reference_crop(
    image: NDArray[np.uint8], centre: tuple[Fraction, Fraction], pixel: tuple[Fraction, Fraction], size: int
) -> NDArray[np.uint8]:
    """Sample a crop with `centre` in its middle, one pixel of which is the vector `pixel`, as described."""
    centre_x, centre_y = map(fixed, centre)
    half_x, half_y = fixed(pixel[0] / 2), fixed(pixel[1] / 2)
    squared = 4 * (half_x**2 + half_y**2)
    factor = max(1, isqrt(floor(squared)))
    origin_x, origin_y = reference_origin(centre_x, factor), reference_origin(centre_y, factor)
    known: dict[tuple[int, int], list[int]] = {}

    def cell(row: int, column: int) -> list[int]:
        if (row, column) not in known:
            across = overlaps(origin_x + column * factor, origin_x + (column + 1) * factor, image.shape[1])
            down = overlaps(origin_y + row * factor, origin_y + (row + 1) * factor, image.shape[0])
            total = [Fraction(0)] * 3
            for y, share_y in down.items():
                for x, share_x in across.items():
                    for channel in range(3):
                        total[channel] += share_x * share_y * int(image[y, x, channel])
            known[row, column] = [floor(value / factor**2 + HALF) for value in total]
        return known[row, column]

    crop = np.zeros((size, size, 3), np.uint8)
    for j in range(size):
        for i in range(size):
            right, down_ = 2 * i + 1 - size, 2 * j + 1 - size
            x = centre_x + half_x * right - half_y * down_
            y = centre_y + half_y * right + half_x * down_
            u = Fraction(round((x - origin_x) / factor * 2048), 2048) - HALF
            v = Fraction(round((y - origin_y) / factor * 2048), 2048) - HALF
            column, row = floor(u), floor(v)
            a, b = u - column, v - row
            for channel in range(3):
                value = (1 - b) * ((1 - a) * cell(row, column)[channel] + a * cell(row, column + 1)[channel])
                value += b * (
                    (1 - a) * cell(row + 1, column)[channel] + a * cell(row + 1, column + 1)[channel]
                )
                crop[j, i, channel] = floor(value + HALF)
    return crop


def reference_box(
    image: NDArray[np.uint8], box: tuple[float, ...], margin: float, size: int
) -> NDArray[np.uint8]:
    x, y, width, height = (Fraction(value) for value in box)  # given in sixteenths: nothing to round
    side = max(width, height) * (1 + 2 * Fraction(round(margin * 65536), 65536))
    centre = (x + width / 2, y + height / 2)
    # The smallest step there is keeps a vanishing crop from sampling one point only.
    return reference_crop(image, centre, (max(side / size, Fraction(1, 32768)), Fraction(0)), size)


def solve(matrix: list[list[Fraction]]) -> list[Fraction]:
    """Solve linear equations (last column: right side) by elimination."""
    size = len(matrix)
    for column in range(size):
        pivot = next(row for row in range(column, size) if matrix[row][column] != 0)
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        matrix[column] = [value / matrix[column][column] for value in matrix[column]]
        for row in range(size):
            if row != column:
                scale = matrix[row][column]
                matrix[row] = [a - scale * b for a, b in zip(matrix[row], matrix[column], strict=True)]
    return [row[-1] for row in matrix]


def reference_similarity(landmarks: NDArray[np.float64]) -> list[Fraction]:
    """Least squares for x = a u - b v + c, y = b u + a v + d by the normal equations."""
    rows: list[tuple[list[Fraction], Fraction]] = []
    for (x, y), mark in zip(landmarks.tolist(), FERPLUS_TEMPLATE, strict=True):
        u, v = (Fraction(round(value * 65536), 65536) for value in mark)
        rows.append(([u, -v, Fraction(1), Fraction(0)], Fraction(round(x * 16), 16)))
        rows.append(([v, u, Fraction(0), Fraction(1)], Fraction(round(y * 16), 16)))
    normal = [
        [sum((row[i] * row[j] for row, _ in rows), Fraction(0)) for j in range(4)]
        + [sum((row[i] * value for row, value in rows), Fraction(0))]
        for i in range(4)
    ]
    return solve(normal)


@settings(max_examples=150, deadline=None)
@given(images(), coordinates, coordinates, sides, sides, margins, sizes)
def test_margin_crop_equals_the_reference(
    image: NDArray[np.uint8], x: float, y: float, width: float, height: float, margin: float, size: int
) -> None:
    spec = CropSpec(size=size, margin=margin)
    box = (x, y, width, height)
    np.testing.assert_array_equal(
        crop_face(image, box, None, spec), reference_box(image, box, margin, size), strict=True
    )


@settings(max_examples=60, deadline=None)
@given(images(), sizes, st.lists(st.floats(-40, 60), min_size=10, max_size=10))
def test_aligned_crop_equals_the_reference(image: NDArray[np.uint8], size: int, values: list[float]) -> None:
    spec = CropSpec(size=size, margin=0, alignment="five-point", template=FERPLUS_TEMPLATE)
    landmarks = np.array(values).reshape(5, 2)
    a, b, c, d = reference_similarity(landmarks)
    crop = crop_face(image, (0, 0, 5, 5), landmarks, spec)
    if abs(a) + abs(b) < Fraction(1, 1000):
        return  # degenerate: has its own test
    centre = ((a - b) / 2 + c, (a + b) / 2 + d)
    np.testing.assert_array_equal(
        crop, reference_crop(image, centre, (a / size, b / size), size), strict=True
    )


@settings(max_examples=60, deadline=None)
@given(images(), sizes)
def test_whole_crop_equals_the_reference(image: NDArray[np.uint8], size: int) -> None:
    height, width = image.shape[:2]
    side = max(height, width)
    box = ((width - side) / 2, (height - side) / 2, side, side)
    np.testing.assert_array_equal(
        crop_whole(image, CropSpec(size=size, margin=0.3)), reference_box(image, box, 0, size), strict=True
    )


@settings(max_examples=150, deadline=None)
@given(images(), coordinates, coordinates, sides, sides, margins, sizes)
def test_mirrored_picture_gives_the_mirrored_crop(
    image: NDArray[np.uint8], x: float, y: float, width: float, height: float, margin: float, size: int
) -> None:
    spec = CropSpec(size=size, margin=margin)
    mirrored = crop_face(image[:, ::-1], (image.shape[1] - x - width, y, width, height), None, spec)
    np.testing.assert_array_equal(mirrored[:, ::-1], crop_face(image, (x, y, width, height), None, spec))
    turned = crop_face(image[::-1], (x, image.shape[0] - y - height, width, height), None, spec)
    np.testing.assert_array_equal(turned[::-1], crop_face(image, (x, y, width, height), None, spec))


@pytest.mark.parametrize("size", [1, 2, 47, 48, 64])
def test_picture_of_the_crop_size_is_unchanged(size: int) -> None:
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop_whole(image, CropSpec(size=size, margin=0.2)), image)


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_whole_number_of_pixels_per_crop_pixel_is_their_mean(factor: int) -> None:
    image = np.random.default_rng(factor).integers(0, 256, (8 * factor, 8 * factor, 3), dtype=np.uint8)
    means = image.reshape(8, factor, 8, factor, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(crop_whole(image, CropSpec(size=8, margin=0)), np.floor(means + 0.5))


def test_single_pixel_and_uniform_pictures_stay_uniform() -> None:
    spec = CropSpec(size=9, margin=0.4)
    for height, width in ((1, 1), (1, 30), (40, 30)):
        image = np.full((height, width, 3), (7, 130, 255), np.uint8)
        for crop in (crop_whole(image, spec), crop_face(image, (-9, 4, 33.3, 2), None, spec)):
            assert crop.shape == (9, 9, 3)
            assert (crop == image[0, 0]).all()


def test_box_outside_repeats_the_nearest_corner() -> None:
    image = np.random.default_rng(1).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    crop = crop_face(image, (500, 400, 90, 90), None, CropSpec(size=8, margin=0))
    assert (crop == image[-1, -1]).all()


def test_aligned_crop_brings_the_landmarks_to_the_template() -> None:
    size, angle, scale = 64, 0.3, 150
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    template = np.array(FERPLUS_TEMPLATE)
    for mark in range(5):
        landmarks = template @ turn.T + (120, 60)
        image = np.zeros((300, 300, 3), np.uint8)
        x, y = np.floor(landmarks[mark]).astype(int)
        image[y - 3 : y + 5, x - 3 : x + 5] = 255
        spec = CropSpec(size=size, margin=0, alignment="five-point", template=FERPLUS_TEMPLATE)
        light = crop_face(image, (0, 0, 1, 1), landmarks, spec)[..., 0].astype(float)
        middle = [(light.sum(axis) * (np.arange(size) + 0.5)).sum() / light.sum() for axis in (0, 1)]
        np.testing.assert_allclose(middle, template[mark] * size, rtol=0, atol=0.75)


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 17.0),
        np.full((5, 2), np.nan),
        np.full((5, 2), np.inf),
        np.full((5, 2), 1e30),
        np.array(FERPLUS_TEMPLATE) * [1, 0] + [0, np.nan],
    ],
)
def test_degenerate_landmarks_give_the_margin_crop(landmarks: NDArray[np.float64]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    aligned = CropSpec(size=16, margin=0.1, alignment="five-point", template=FERPLUS_TEMPLATE)
    plain = CropSpec(size=16, margin=0.1)
    box = (4, 5, 20, 22)
    np.testing.assert_array_equal(
        crop_face(image, box, landmarks, aligned), crop_face(image, box, None, plain)
    )


def test_landmarks_are_ignored_without_alignment() -> None:
    image = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    spec = CropSpec(size=16, margin=0.1)
    landmarks = np.array(FERPLUS_TEMPLATE) * 30
    np.testing.assert_array_equal(
        crop_face(image, (4, 5, 20, 22), landmarks, spec), crop_face(image, (4, 5, 20, 22), None, spec)
    )


def test_crops_are_the_ones_recorded() -> None:
    """A change of rule must be seen: bundles carry crops made by the old one."""
    rows, columns = np.mgrid[:211, :307]
    image = np.stack([rows * columns % 256, (rows + 3 * columns) % 256, rows**2 % 256], -1).astype(np.uint8)
    spec = CropSpec(size=64, margin=0.12, alignment="five-point", template=FERPLUS_TEMPLATE)
    landmarks = np.array([[120, 80], [190, 95], [150, 120], [118, 150], [170, 160]], np.float32)
    crops = (
        crop_face(image, (33.3, 20.7, 180.2, 201.9), None, spec),
        crop_face(image, (33.3, 20.7, 180.2, 201.9), landmarks, spec),
        crop_whole(image[:48, :48], spec),
    )
    assert [hashlib.sha256(crop.tobytes()).hexdigest()[:16] for crop in crops] == RECORDED


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 5),
        (0, 0, 5, -1),
        (0, 0, 5),
        (np.nan, 0, 5, 5),
        (0, np.inf, 5, 5),
        (0, 0, 1e9, 1e9),
        (1e8, 0, 5, 5),
    ],
)
def test_bad_boxes_are_refused_in_one_line(box: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="face box") as caught:
        crop_face(np.zeros((9, 9, 3), np.uint8), box, None, CropSpec(size=8, margin=0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 9, 3), np.float32),
        np.zeros((0, 9, 3), np.uint8),
    ],
)
def test_bad_images_are_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match=r"expected \(H, W, 3\) uint8"):
        crop_whole(image, CropSpec(size=8, margin=0))


def test_bad_landmark_shape_is_refused() -> None:
    spec = CropSpec(size=8, margin=0, alignment="five-point", template=FERPLUS_TEMPLATE)
    with pytest.raises(InputError, match=r"landmarks: expected \(5, 2\)"):
        crop_face(np.zeros((9, 9, 3), np.uint8), (0, 0, 5, 5), np.zeros((68, 2)), spec)


def test_spec_survives_json() -> None:
    spec = CropSpec(size=64, margin=0.125, alignment="five-point", template=FERPLUS_TEMPLATE)
    assert CropSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"size": 0}, "crop size"),
        ({"size": 64.0}, "crop size"),
        ({"size": True}, "crop size"),
        ({"margin": -0.5}, "crop margin"),
        ({"margin": float("nan")}, "crop margin"),
        ({"margin": "0.1"}, "expected a number"),
        ({"filter": "lanczos"}, "crop filter"),
        ({"alignment": "68-point"}, "crop alignment"),
        ({"alignment": "five-point"}, "five points"),
        ({"alignment": "five-point", "template": [[0.5, 0.5]] * 5}, "coincide"),
        ({"template": [[0, 1, 2]]}, "expected points"),
        ({"template": [[0, 7]]}, "crop units"),
        ({"template": "x"}, "expected a list"),
        ({"gamma": 2.2}, "unknown key 'gamma'"),
    ],
)
def test_bad_specs_are_refused(change: dict[str, object], text: str) -> None:
    value = {**CropSpec(size=64, margin=0.1).to_json(), **change}
    with pytest.raises(ValueError, match=text):
        CropSpec.from_json(value)


@pytest.mark.parametrize("key", ["size", "margin", "filter", "alignment", "template"])
def test_missing_spec_keys_are_named(key: str) -> None:
    value = CropSpec(size=64, margin=0.1).to_json()
    del value[key]
    with pytest.raises(ValueError, match=f"'{key}' is missing"):
        CropSpec.from_json(value)
    with pytest.raises(ValueError, match="expected an object"):
        CropSpec.from_json([])
