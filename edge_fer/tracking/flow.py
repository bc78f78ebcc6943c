"""Carries faces from one frame to the next by sparse optical flow; knows when it has lost one.

Knows pictures and boxes; nothing of identities, detectors or time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.detectors.base import Box, shrink

_REDUCED_SIDE = 320  # pixels of the longer side that flow looks at
_GRID = 7  # points a side, laid over the middle of the face's box
_SPREAD = 0.7  # ... which share of the box they cover: its corners are background
_WINDOW = (13, 13)
_LEVELS = 3  # halvings of the picture: with them a face may move some 100 of 640 pixels in one frame
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 12, 0.03)
_RETURN_ERROR = 1.0  # reduced pixels that a point may miss its start by, forth and back
_LEAST_SHARE = 0.4  # of the points have to come back
_SCATTER = 0.08  # mean distance from the common motion that is still one face, as a share of the box
_LARGEST_CHANGE = 1.3  # of size from one frame to the next
_PATCH = 16  # side of the gray patch that a face is known by
_SLACK = 3  # patch pixels to every side in which it is looked for in a detection
_FLAT = 16.0  # length of a patch (its deviation times 16) below which it is noise


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A frame as flow sees it.

    Attributes:
        gray: (h, w) uint8 0..255, its longer side at most 320.
        factor: (2,) float32, frame pixels per reduced pixel, x and y.
    """

    gray: NDArray[np.uint8]
    factor: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a face is.

    Attributes:
        box: x, y, width, height in pixels of the frame.
        landmarks: (5, 2) float32, x and y in pixels of the frame, or None.
    """

    box: Box
    landmarks: NDArray[np.float32] | None


def reduce_frame(image: NDArray[np.uint8]) -> Reduced:
    """Make the gray, reduced picture of a frame (H, W, 3) uint8 RGB 0..255; once per frame."""
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    small, *factors = shrink(cv2, gray, _REDUCED_SIDE)
    return Reduced(small, np.array(factors, np.float32))


def carry(before: Reduced, after: Reduced, places: Sequence[Place]) -> list[Place | None]:
    """Move faces along with the pixels under them.

    The median flow of Kalal et al. (Forward-backward error, ICPR 2010): a grid of points in the box is
    followed to the next frame and back (pyramidal Lucas-Kanade); those that come back to where they started
    vote. Shift is their median motion; size and rotation are medians over all pairs of them. The box takes
    shift and size, the landmarks rotation as well.

    Args:
        before: the frame in which the faces are at `places`.
        after: the next frame, of the same size.
        places: faces in pixels of the frame.

    Returns:
        The new places in the same order; None: lost (too few points came back, or they do not move as one).
    """
    if not places or before.gray.shape != after.gray.shape:
        return [None] * len(places)
    starts = (np.concatenate([_grid(place.box) for place in places]) / before.factor).astype(np.float32)
    ends, forth = _follow(before.gray, after.gray, starts)
    returned, back = _follow(after.gray, before.gray, ends)
    size = np.array(before.gray.shape[::-1], np.float32)
    inside = ((starts >= 0) & (starts < size) & (ends >= 0) & (ends < size)).all(axis=1)
    came_back = np.linalg.norm(returned - starts, axis=1) <= _RETURN_ERROR
    good = inside & came_back & forth & back
    votes = zip(
        np.split(starts, len(places)), np.split(ends, len(places)), np.split(good, len(places)), strict=True
    )
    return [
        _moved(place, start[kept] * before.factor, end[kept] * before.factor)
        if kept.mean() >= _LEAST_SHARE
        else None
        for place, (start, end, kept) in zip(places, votes, strict=True)
    ]


def patch(frame: Reduced, box: Box) -> NDArray[np.float32]:
    """Return what a face looks like: (16, 16) float32, mean 0 and length 1; all 0 where there is no texture.

    The sum of the product of two patches is their correlation, -1..1.
    """
    values = _sampled(frame, box, 0)
    values -= values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > _FLAT else np.zeros_like(values)


def surroundings(frame: Reduced, box: Box) -> NDArray[np.float32]:
    """Return a face with a border: (22, 22) float32 0..255, in which `likeness` looks for a patch."""
    return _sampled(frame, box, _SLACK)


def likeness(look: NDArray[np.float32], around: NDArray[np.float32]) -> float:
    """Return the highest correlation of a patch with any place in `surroundings`, -1..1.

    Detectors place the box of one face a tenth of its size to and fro; at such an offset patches of the same
    face correlate no better than those of two people.
    """
    windows = np.lib.stride_tricks.sliding_window_view(around, look.shape).reshape(-1, look.size)
    windows = windows - windows.mean(axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(windows, axis=1), _FLAT)
    return float((windows @ look.ravel() / lengths).max())


def _sampled(frame: Reduced, box: Box, border: int) -> NDArray[np.float32]:
    """Return the 16x16 samples of a box with `border` more on each side, float32 0..255."""
    x, y, width, height = box
    factor_x, factor_y = frame.factor.tolist()
    step_x, step_y = width / factor_x / _PATCH, height / factor_y / _PATCH
    first_x = x / factor_x + (0.5 - border) * step_x - 0.5
    first_y = y / factor_y + (0.5 - border) * step_y - 0.5
    size = _PATCH + 2 * border
    sampled = cv2.warpAffine(
        frame.gray,
        np.array([[step_x, 0, first_x], [0, step_y, first_y]]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(sampled, np.float32)


def _follow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Follow points (n, 2) from one gray picture to another; also tell which (n,) were found."""
    ends, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points, np.empty_like(points), winSize=_WINDOW, maxLevel=_LEVELS, criteria=_STOP
    )
    return np.asarray(ends, np.float32), np.asarray(found).ravel() == 1


def _grid(box: Box) -> NDArray[np.float32]:
    """Return the points followed for a box: (49, 2) float32 in pixels of the frame."""
    x, y, width, height = box
    steps = 0.5 + _SPREAD * np.linspace(-0.5, 0.5, _GRID)
    across, down = np.meshgrid(x + width * steps, y + height * steps)
    return np.stack([across.ravel(), down.ravel()], axis=1).astype(np.float32)


def _moved(place: Place, start: NDArray[np.float32], end: NDArray[np.float32]) -> Place | None:
    """Move a place by what its points (n, 2), in frame pixels, say; None: they contradict each other."""
    shift = np.median(end - start, axis=0)
    first, second = np.triu_indices(len(start), 1)
    old, new = (_as_complex(points[second] - points[first]) for points in (start, end))
    ratio = new / old  # grid points never coincide
    size = float(np.median(np.abs(ratio)))
    turn = size * np.exp(1j * float(np.median(np.angle(ratio))))
    middle = start.mean(axis=0)
    centre = middle + shift
    expected = _turned(start - middle, turn) + centre
    x, y, width, height = place.box
    scatter = float(np.median(np.linalg.norm(end - expected, axis=1)))
    if scatter > _SCATTER * min(width, height) or not 1 / _LARGEST_CHANGE < size < _LARGEST_CHANGE:
        return None
    box_middle = np.array([x + width / 2, y + height / 2]) - middle
    x, y = (size * box_middle + centre - np.array([width, height]) * size / 2).tolist()
    landmarks = place.landmarks
    if landmarks is not None:
        landmarks = (_turned(landmarks - middle, turn) + centre).astype(np.float32)
    return Place((x, y, width * size, height * size), landmarks)


def _as_complex(points: NDArray[np.float32]) -> NDArray[np.complex128]:
    return points[:, 0] + 1j * points[:, 1].astype(np.float64)


def _turned(points: NDArray[np.floating], turn: complex) -> NDArray[np.float64]:
    """Rotate and scale points (n, 2) about the origin by a complex factor."""
    moved = (points[:, 0] + 1j * points[:, 1]) * turn
    return np.stack([moved.real, moved.imag], axis=1)
