"""The one preprocessing: from a picture and a face's place in it to the uint8 crop that every graph takes.

Integers only, from the geometry to the last pixel, so a crop is the same on every machine. Knows nothing of
detectors, files or engines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fer.errors import InputError

FILTER = "box-bilinear"
ALIGNMENTS = ("none", "five-point")
# Where the landmarks lie in a FER+ crop: the mean over 3,212 of 5,000 training faces (seed 0), enlarged to
# 192 pixels and bordered by 64 repeated ones, those that YuNet answered with a score above 0.9; then made
# left-right symmetric.
FERPLUS_TEMPLATE: tuple[tuple[float, float], ...] = (
    (0.3213, 0.3845),
    (0.6787, 0.3845),
    (0.5, 0.5881),
    (0.3469, 0.7419),
    (0.6531, 0.7419),
)

_Number = TypeVar("_Number", np.uint8, np.uint32)
_Sum = TypeVar("_Sum", np.uint32, np.int64)

_POINT_BITS = 16  # positions in the picture: units of 2^-16 pixel
_WEIGHT_BITS = 11  # bilinear weights: 255 * 2^11 * 2^11 still fits into an int32
_INPUT_UNITS = 16  # boxes and landmarks are rounded to 1/16 pixel first
_SPEC_UNITS = 1 << 16  # margins and templates are rounded to 2^-16
_LARGEST = 1 << 20  # pixels; keeps every sum below inside int64


@dataclass(frozen=True, slots=True, kw_only=True)
class CropSpec:
    """How a face is cut out of a picture; part of every bundle.

    Attributes:
        size: Side of the square crop in pixels.
        margin: Added on each side of a detector's box, as a fraction of the side of the squared box (its
            longer side); may be negative (a tighter crop), above -0.5.
        filter: Name of the resampling; "box-bilinear" is integer box reduction, then fixed-point bilinear.
        alignment: "five-point" (similarity transform onto `template` where landmarks exist) or "none".
        template: Five (x, y) in crop units 0..1: eye, eye, nose tip, mouth corner, mouth corner, of each pair
            the one on the left of the image first.

    Raises:
        ValueError: a value outside its range.
    """

    size: int
    margin: float
    filter: str = FILTER
    alignment: str = "none"
    template: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 1024:
            raise ValueError(f"crop size: expected 1 to 1024 pixels, got {self.size}")
        if not -0.5 < self.margin <= 4:
            raise ValueError(f"crop margin: expected a fraction above -0.5 and at most 4, got {self.margin}")
        if self.filter != FILTER:
            raise ValueError(f"crop filter: expected {FILTER!r}, got {self.filter!r}")
        if self.alignment not in ALIGNMENTS:
            raise ValueError(f"crop alignment: expected {' or '.join(ALIGNMENTS)}, got {self.alignment!r}")
        if not all(len(point) == 2 and all(-1 <= value <= 2 for value in point) for point in self.template):
            raise ValueError("crop template: expected points (x, y) within -1 to 2 crop units")
        if self.alignment == "five-point" and (len(self.template) != 5 or len(set(self.template)) < 2):
            raise ValueError("crop template: five-point alignment needs five points that do not all coincide")

    def to_json(self) -> dict[str, object]:
        """Return the value of `input` in bundle.json; `from_json` reads it back."""
        return {
            "size": self.size,
            "margin": self.margin,
            "filter": self.filter,
            "alignment": self.alignment,
            "template": [list(point) for point in self.template],
        }

    @classmethod
    def from_json(cls, value: object) -> CropSpec:
        """Read what `to_json` wrote.

        Raises:
            ValueError: a missing, unknown or badly typed key, or a value outside its range.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"crop spec: expected an object, got {type(value).__name__}")
        keys = ("size", "margin", "filter", "alignment", "template")
        for key in keys:
            if key not in value:
                raise ValueError(f"crop spec: the key {key!r} is missing")
        unknown = sorted(str(key) for key in value if key not in keys)
        if unknown:  # a rule this version does not know would give other pixels
            raise ValueError(f"crop spec: unknown key {unknown[0]!r}; a newer edge-fer may know it")
        size, template = value["size"], value["template"]
        if not isinstance(size, int) or isinstance(size, bool):
            raise ValueError(f"crop size: expected a whole number, got {size!r}")
        if not isinstance(template, list):
            raise ValueError(f"crop template: expected a list of points, got {template!r}")
        return cls(
            size=size,
            margin=_number(value["margin"]),
            filter=str(value["filter"]),
            alignment=str(value["alignment"]),
            template=tuple(_point(point) for point in template),
        )


@dataclass(frozen=True, slots=True)
class _Placement:
    """Where a crop lies in the picture: its centre and half of one crop pixel's step, all in 2^-16 pixel.

    The crop pixel (column i, row j) has its centre at
    (x + step_x * (2i + 1 - S) - step_y * (2j + 1 - S), y + step_y * (2i + 1 - S) + step_x * (2j + 1 - S)).
    """

    x: int
    y: int
    step_x: int
    step_y: int


def crop_face(
    image: NDArray[np.uint8],
    box: Sequence[float],
    landmarks: NDArray[np.floating] | None,
    spec: CropSpec,
) -> NDArray[np.uint8]:
    """Cut one face out of a picture.

    Aligned by the similarity transform that maps the template onto the landmarks with the least squared error
    when the spec asks for it and there are landmarks. Otherwise, and also when the landmarks are degenerate
    (not finite, all in one place, or so far off that the crop would be beyond 2^20 pixels), the box is
    squared around its centre, enlarged by the margin and resampled. Pixels outside the picture repeat its
    edge.

    Args:
        image: (H, W, 3) uint8 RGB 0..255.
        box: x, y, width, height in pixels; may lie partly or wholly outside the picture.
        landmarks: (5, 2) float, x and y in pixels in the template's order, or None.
        spec: The bundle's crop rule.

    Returns:
        (S, S, 3) uint8 RGB 0..255.

    Raises:
        InputError: not such an image, or a box that is empty, not finite or beyond 2^20 pixels.
    """
    _check_image(image)
    if spec.alignment == "five-point" and landmarks is not None:
        placement = _aligned(landmarks, spec)
        if placement is not None:
            return _resample(image, placement, spec.size)
    values = [float(value) for value in box]
    if len(values) != 4 or not all(abs(value) <= _LARGEST for value in values) or min(values[2:]) <= 0:
        raise InputError(f"face box: expected x, y, width > 0, height > 0 within 2^20 pixels, got {values}")
    x, y, width, height = (_quantised(value) for value in values)
    margin = Fraction(round(spec.margin * _SPEC_UNITS), _SPEC_UNITS)
    side = max(width, height, Fraction(1, _INPUT_UNITS)) * (1 + 2 * margin)
    return _resample(image, _upright(x + width / 2, y + height / 2, side, spec.size), spec.size)


def crop_whole(image: NDArray[np.uint8], spec: CropSpec) -> NDArray[np.uint8]:
    """Resample a whole picture that already is a face crop: squared around its centre, nothing else.

    Args:
        image: (H, W, 3) uint8 RGB 0..255. A picture that is not square has its edge repeated on its shorter
            side.
        spec: The bundle's crop rule; only its size is used.

    Returns:
        (S, S, 3) uint8 RGB 0..255.

    Raises:
        InputError: not such an image, or a side beyond 2^20 pixels.
    """
    _check_image(image)
    height, width = image.shape[:2]
    if max(height, width) > _LARGEST:
        raise InputError(
            f"picture of {width}x{height} pixels: expected sides up to 2^20; scale it down first"
        )
    if height == width == spec.size:
        return image  # resampling gives the same pixels, in more time than a small network takes
    centre_x, centre_y, side = Fraction(width, 2), Fraction(height, 2), Fraction(max(height, width))
    return _resample(image, _upright(centre_x, centre_y, side, spec.size), spec.size)


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"image: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"crop spec: expected a number, got {value!r}")
    return float(value)


def _point(value: object) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"crop template: expected points [x, y], got {value!r}")
    return _number(value[0]), _number(value[1])


def _quantised(value: float) -> Fraction:
    # Multiplying by a power of two is exact and round() is defined: the same fraction on every machine.
    return Fraction(round(value * _INPUT_UNITS), _INPUT_UNITS)


def _fixed(value: Fraction) -> int:
    return round(value * (1 << _POINT_BITS))


def _upright(x: Fraction, y: Fraction, side: Fraction, size: int) -> _Placement:
    """Place an upright square of `side` pixels around the centre (x, y)."""
    return _Placement(_fixed(x), _fixed(y), max(1, _fixed(side / (2 * size))), 0)


def _aligned(landmarks: NDArray[np.floating], spec: CropSpec) -> _Placement | None:
    """Place the crop by the least-squares similarity from template to landmarks; None where there is none.

    Closed form in complex notation: with both point sets centred, rotation-scale = sum(conj(t) p) /
    sum(|t|^2) (Umeyama 1991, eq. 40-42, in the plane and without reflection).
    """
    if landmarks.shape != (5, 2):
        raise InputError(f"landmarks: expected (5, 2), got {landmarks.shape}")
    if not bool(np.all(np.abs(landmarks) <= _LARGEST)):  # false for NaN too
        return None
    marks = _centred([(round(x * _SPEC_UNITS), round(y * _SPEC_UNITS)) for x, y in spec.template])
    points = _centred([(round(x * _INPUT_UNITS), round(y * _INPUT_UNITS)) for x, y in landmarks.tolist()])
    pairs = list(zip(points.offsets, marks.offsets, strict=True))
    spread = sum(u * u + v * v for u, v in marks.offsets)
    if spread == 0:
        return None
    # Picture pixels per crop unit; all offsets are whole numbers, five times too large like one another.
    unit = Fraction(_SPEC_UNITS, _INPUT_UNITS * spread)
    real = unit * sum(u * x + v * y for (x, y), (u, v) in pairs)
    imaginary = unit * sum(u * y - v * x for (x, y), (u, v) in pairs)
    to_x, to_y = (Fraction(1, 2) - Fraction(total, 5 * _SPEC_UNITS) for total in marks.totals)
    step_x, step_y = _fixed(real / (2 * spec.size)), _fixed(imaginary / (2 * spec.size))
    if step_x == 0 == step_y or max(abs(real), abs(imaginary)) > _LARGEST:
        return None
    point_x, point_y = (Fraction(total, 5 * _INPUT_UNITS) for total in points.totals)
    centre_x = point_x + real * to_x - imaginary * to_y
    centre_y = point_y + imaginary * to_x + real * to_y
    return _Placement(_fixed(centre_x), _fixed(centre_y), step_x, step_y)


class _Centred(NamedTuple):
    """Five points as whole numbers: their sum, and five times the way from their mean to each."""

    totals: tuple[int, int]
    offsets: list[tuple[int, int]]


def _centred(points: list[tuple[int, int]]) -> _Centred:
    total_x, total_y = sum(x for x, _ in points), sum(y for _, y in points)
    return _Centred((total_x, total_y), [(5 * x - total_x, 5 * y - total_y) for x, y in points])


def _resample(image: NDArray[np.uint8], placement: _Placement, size: int) -> NDArray[np.uint8]:
    """Sample a crop: box reduction by floor(scale) in both directions, then bilinear at its pixel centres."""
    step_x, step_y = placement.step_x, placement.step_y
    # One crop pixel is 2 * step picture pixels long; the largest whole number not above that length.
    factor = max(1, math.isqrt(4 * (step_x**2 + step_y**2)) >> _POINT_BITS)
    reach = (abs(step_x) + abs(step_y)) * (size - 1)
    start_x, count_x = _grid(placement.x, reach, factor)
    start_y, count_y = _grid(placement.y, reach, factor)
    cells = _reduced(image, (start_x, count_x), (start_y, count_y), factor)

    offset = 2 * np.arange(size, dtype=np.int64) + 1 - size
    x = placement.x + step_x * offset[None, :] - step_y * offset[:, None]
    y = placement.y + step_y * offset[None, :] + step_x * offset[:, None]
    column, right = _cell_position(x, start_x, factor)
    row, below = _cell_position(y, start_y, factor)
    flat = cells.reshape(-1, 3)
    index = row * count_x + column
    left, above = (1 << _WEIGHT_BITS) - right, (1 << _WEIGHT_BITS) - below
    mixed = (flat[index] * left + flat[index + 1] * right) * above
    mixed += (flat[index + count_x] * left + flat[index + count_x + 1] * right) * below
    mixed += 1 << (2 * _WEIGHT_BITS - 1)
    crop: NDArray[np.uint8] = (mixed >> (2 * _WEIGHT_BITS)).astype(np.uint8)
    return crop


def _grid(centre: int, reach: int, factor: int) -> tuple[int, int]:
    """Return where a row of cells of `factor` pixels starts, in half pixels, and how many cover a crop.

    The cells lie symmetrically around the centre, so that a mirrored picture gives the mirrored crop: a cell
    border at the nearest whole pixel, or, when the centre is exactly between two, a cell's middle (odd
    factor) or a border through the middle of a pixel (even factor).
    """
    one = 1 << _POINT_BITS
    tie = centre % one == one // 2
    middle = 2 * (centre // one) + 1 if tie else 2 * ((centre + one // 2) // one)
    each_side = -(-(reach + one) // (factor * one)) + 2
    if tie and factor % 2:
        return middle - 2 * factor * each_side - factor, 2 * each_side + 1
    return middle - 2 * factor * each_side, 2 * each_side


def _cell_position(
    position: NDArray[np.int64], start: int, factor: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Turn positions (2^-16 pixel) into the cell before each and the weight (S, S, 1) of the one after."""
    from_start = (position - (start << (_POINT_BITS - 1))) << _WEIGHT_BITS
    unit = factor << _POINT_BITS
    cell, rest = np.divmod(from_start, unit)
    # Half to even, as the mirrored position rounds to the mirrored cell only so.
    cell += (2 * rest > unit) | ((2 * rest == unit) & (cell % 2 == 1))
    cell -= 1 << (_WEIGHT_BITS - 1)  # a cell's value stands at its middle
    weight = (cell & ((1 << _WEIGHT_BITS) - 1)).astype(np.int32)
    return cell >> _WEIGHT_BITS, weight[..., None]


def _reduced(
    image: NDArray[np.uint8], columns: tuple[int, int], rows: tuple[int, int], factor: int
) -> NDArray[np.int32]:
    """Average the picture over a grid of square cells, rounded half up: (rows, columns, 3) int32, 0..255."""
    height, width = image.shape[:2]
    if factor == 1:  # the cells are the pixels: `_grid` never starts between two then
        row_index = np.clip(np.arange(rows[1]) + rows[0] // 2, 0, height - 1)
        column_index = np.clip(np.arange(columns[1]) + columns[0] // 2, 0, width - 1)
        return image[row_index[:, None], column_index].astype(np.int32)
    first = min(max(columns[0] // 2, 0), width - 1)
    last = min(max((columns[0] + 2 * factor * columns[1] + 1) // 2, first + 1), width)
    by_row = _cell_sums(image[:, first:last], rows[0], rows[1], factor, np.uint32)
    sums = _cell_sums(by_row.transpose(1, 0, 2), columns[0] - 2 * first, columns[1], factor, np.int64)
    area = 4 * factor * factor
    return ((sums.transpose(1, 0, 2) + area // 2) // area).astype(np.int32)


def _cell_sums(
    values: NDArray[_Number], start: int, count: int, factor: int, dtype: type[_Sum]
) -> NDArray[_Sum]:
    """Sum `count` cells along the first axis, in half-pixel weights; outside, the edge entries repeat."""
    # Whole pixels from the first half pixel on, and from the second: each half counts once.
    pixels = np.arange(count * factor)
    total = _block_sums(values, start // 2 + pixels, factor, dtype)
    total += total if start % 2 == 0 else _block_sums(values, start // 2 + 1 + pixels, factor, dtype)
    return total


def _block_sums(
    values: NDArray[_Number], entries: NDArray[np.int64], factor: int, dtype: type[_Sum]
) -> NDArray[_Sum]:
    """Sum `factor` successive entries of the first axis at a time; outside, the edge entries repeat."""
    taken = values.take(entries, axis=0, mode="clip")
    blocks = taken.reshape(-1, factor, *values.shape[1:])
    total = blocks[:, 0].astype(dtype)
    for entry in range(1, factor):  # a few additions of whole arrays, where one reduction goes cell by cell
        total += blocks[:, entry]
    return total
