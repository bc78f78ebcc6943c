"""Optical flow on faces whose motion is known, and on cuts, where it has to give up."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.tracking.flow import Place, carry, patch, reduce_frame
from tests.edge_fer.tracking.clips import Picture, astronaut, overlap, paste, texture

PLACE = (320.0, 240.0, 110.0)
BOX = (265.0, 185.0, 110.0, 110.0)
LANDMARKS = np.array([[300, 225], [340, 225], [320, 245], [303, 265], [337, 265]], np.float32)


def noisy(frame: Picture, seed: int) -> Picture:
    noise = np.random.default_rng(seed).normal(0, 4, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def shown(place: tuple[float, float, float] | None, seed: int = 0, factor: int = 1) -> Picture:
    frame = texture(seed)
    if place:
        paste(frame, astronaut(), place)
    return noisy(frame.repeat(factor, axis=0).repeat(factor, axis=1), seed + (0 if place == PLACE else 1))


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("place", [(320, 240, 110), (333, 231, 110), (290, 260, 118), (360, 240, 100)])
def test_the_box_goes_where_the_face_goes(place: tuple[float, float, float], factor: int) -> None:
    before, after = reduce_frame(shown(PLACE, factor=factor)), reduce_frame(shown(place, factor=factor))
    box = tuple(factor * value for value in BOX)
    (moved,) = carry(before, after, [Place(box, factor * LANDMARKS)])  # type: ignore[arg-type]
    assert moved is not None and moved.landmarks is not None
    x, y, side = (factor * value for value in place)
    np.testing.assert_allclose(moved.box, (x - side / 2, y - side / 2, side, side), rtol=0, atol=1.5 * factor)
    expected = (LANDMARKS - PLACE[:2]) * place[2] / PLACE[2] + place[:2]
    np.testing.assert_allclose(moved.landmarks, factor * expected, rtol=0, atol=1.5 * factor)


def test_landmarks_turn_with_the_head() -> None:
    frame = shown(PLACE)
    degrees = 8.0
    matrix = cv2.getRotationMatrix2D(PLACE[:2], degrees, 1.0)
    turned = cv2.warpAffine(frame, matrix, frame.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    (moved,) = carry(reduce_frame(frame), reduce_frame(turned), [Place(BOX, LANDMARKS)])
    assert moved is not None and moved.landmarks is not None
    expected: NDArray[np.float64] = LANDMARKS @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(moved.landmarks, expected, rtol=0, atol=1)
    assert overlap(moved.box, BOX) > 0.95


def test_each_of_several_faces_has_its_own_answer() -> None:
    before, after = texture(3), texture(3)
    for x in (120, 500):
        paste(before, astronaut(), (x, 240, 90))
    paste(after, astronaut(), (130, 240, 90))  # the other one is gone
    places = [Place((x - 45, 195, 90, 90), None) for x in (120, 500)]
    first, second = carry(reduce_frame(noisy(before, 1)), reduce_frame(noisy(after, 2)), places)
    assert first is not None and overlap(first.box, (85, 195, 90, 90)) > 0.95
    assert second is None


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_scene_cut_loses_the_face(seed: int) -> None:
    before = reduce_frame(shown(PLACE))
    for after in (shown(None, seed), np.full((480, 640, 3), 127, np.uint8), shown((100, 100, 60), seed)):
        assert carry(before, reduce_frame(after), [Place(BOX, None)]) == [None]


@pytest.mark.parametrize(
    "box", [(630.0, 470.0, 100.0, 100.0), (-200.0, 0.0, 90.0, 90.0), (3.0, 3.0, 0.5, 0.5)]
)
def test_boxes_at_and_beyond_the_edge_do_no_harm(box: tuple[float, float, float, float]) -> None:
    before, after = reduce_frame(shown(PLACE)), reduce_frame(shown((325, 240, 110)))
    (moved,) = carry(before, after, [Place(box, None)])
    assert moved is None or all(math.isfinite(value) for value in moved.box)


def test_frames_of_another_size_are_another_scene() -> None:
    small = reduce_frame(shown(PLACE)[:300])
    assert carry(reduce_frame(shown(PLACE)), small, [Place(BOX, None)]) == [None]


@pytest.mark.parametrize("size", [(1, 1), (4000, 2), (480, 640), (200, 300)])
def test_reduced_frames_keep_their_scale(size: tuple[int, int]) -> None:
    reduced = reduce_frame(np.zeros((*size, 3), np.uint8))
    height, width = reduced.gray.shape
    assert max(height, width) == min(320, max(size))
    np.testing.assert_allclose(reduced.factor, (size[1] / width, size[0] / height), rtol=1e-6)


def test_a_patch_knows_a_face_by_light_and_size_and_no_other_place() -> None:
    frame = shown(PLACE)
    look = patch(reduce_frame(frame), BOX)
    assert look.shape == (16, 16)
    np.testing.assert_allclose((look.sum(), (look**2).sum()), (0, 1), rtol=0, atol=1e-5)
    darker = patch(reduce_frame((0.6 * frame).astype(np.uint8)), BOX)
    smaller = patch(reduce_frame(shown((200, 200, 80))), (160, 160, 80, 80))
    elsewhere = patch(reduce_frame(frame), (20, 20, 110, 110))
    assert (look * darker).sum() > 0.99
    assert (look * smaller).sum() > 0.95
    assert (look * elsewhere).sum() < 0.5
    assert not patch(reduce_frame(np.full((480, 640, 3), 90, np.uint8)), BOX).any()
