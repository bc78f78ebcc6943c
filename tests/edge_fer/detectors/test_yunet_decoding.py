"""YuNet's arithmetic against the published formulas, written out once more in plain float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fer.detectors.yunet_decoding import decode, network_input

Outputs = dict[str, NDArray[np.float32]]
WIDTHS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


def drawn_outputs(seed: int, height: int, width: int, sure: float = 0.3) -> Outputs:
    """Draw a network's outputs: about `sure` of the cells score above 0.6, some numbers lie outside 0..1."""
    rng = np.random.default_rng(seed)
    outputs: Outputs = {}
    for stride in (8, 16, 32):
        cells = (height // stride) * (width // stride)
        for name in ("cls", "obj"):
            score = np.where(
                rng.random(cells) < sure, rng.uniform(0.5, 1.2, cells), rng.uniform(-0.2, 0.5, cells)
            )
            outputs[f"{name}_{stride}"] = score.astype(np.float32).reshape(1, cells, 1)
        outputs[f"bbox_{stride}"] = rng.normal(0, 0.7, (1, cells, 4)).astype(np.float32)
        outputs[f"kps_{stride}"] = rng.normal(0, 1, (1, cells, 10)).astype(np.float32)
    return outputs


def plain_decode(outputs: Outputs, height: int, width: int) -> list[list[float]]:
    """Decode cell by cell, as the paper and OpenCV's documentation say."""
    faces = []
    for stride in (8, 16, 32):
        for row in range(height // stride):
            for column in range(width // stride):
                cell = row * (width // stride) + column
                cls, obj, bbox, kps = (
                    [float(value) for value in outputs[f"{name}_{stride}"][0, cell]] for name in WIDTHS
                )
                score = math.sqrt(min(1.0, max(0.0, cls[0])) * min(1.0, max(0.0, obj[0])))
                if score < 0.6:
                    continue
                w, h = math.exp(bbox[2]) * stride, math.exp(bbox[3]) * stride
                x, y = (column + bbox[0]) * stride - w / 2, (row + bbox[1]) * stride - h / 2
                points = [
                    ((column if index % 2 == 0 else row) + value) * stride for index, value in enumerate(kps)
                ]
                faces.append([x, y, w, h, *points, score])
    return plain_suppression(faces)


def plain_suppression(faces: list[list[float]]) -> list[list[float]]:
    kept: list[list[float]] = []
    for face in sorted(faces, key=lambda face: -face[14]):
        if all(plain_overlap(face, other) <= 0.3 for other in kept):
            kept.append(face)
    return kept


def plain_overlap(first: list[float], second: list[float]) -> float:
    a, b = ([int(side) for side in face[:4]] for face in (first, second))
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0, across) * max(0, down)
    total = a[2] * a[3] + b[2] * b[3]
    return 1.0 if total == 0 else shared / (total - shared)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (160, 96)])
def test_faces_are_those_of_the_formulas(seed: int, height: int, width: int) -> None:
    outputs = drawn_outputs(seed, height, width)
    expected = np.array(plain_decode(outputs, height, width))
    got = decode(outputs, height, width)
    assert got.dtype == np.float32
    assert got.shape == expected.shape and 3 < len(got) < 300
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-4)


def test_no_sure_cell_gives_no_row() -> None:
    assert decode(drawn_outputs(0, 64, 64, sure=0.0), 64, 64).shape == (0, 15)


def test_numbers_that_are_none_are_left_out() -> None:
    outputs = drawn_outputs(1, 64, 64, sure=0.0)
    for name in ("cls_8", "obj_8"):
        outputs[name][0, [3, 20, 40]] = 0.9
    outputs["bbox_8"][0, 3, 2] = 1e4  # exp of it is beyond all numbers
    outputs["kps_8"][0, 20, 7] = np.nan
    outputs["cls_8"][0, 41] = np.nan
    (face,) = decode(outputs, 64, 64)
    assert np.isfinite(face).all()
    assert 40 % 8 * 8 - 40 < face[0] < 40 % 8 * 8 + 40


def test_outputs_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        decode(drawn_outputs(0, 64, 64), 64, 96)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_the_input_is_blue_first_and_black_beyond_the_picture(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    blob = network_input(image)
    assert blob.dtype == np.float32
    _, channels, down, across = blob.shape
    assert channels == 3 and down % 32 == across % 32 == 0
    assert height <= down < height + 32 and width <= across < width + 32
    np.testing.assert_array_equal(blob[0, 0, :height, :width], image[:, :, 2])
    np.testing.assert_array_equal(blob[0, 2, :height, :width], image[:, :, 0])
    np.testing.assert_array_equal(blob[0, 1, :height, :width], image[:, :, 1])
    assert not blob[0, :, height:].any() and not blob[0, :, :, width:].any()
