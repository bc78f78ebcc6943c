"""From a picture to YuNet's input, and from its twelve outputs to faces, in numpy.

YuNet (Wu, Peng and Yu: YuNet: A Tiny Millisecond-level Face Detector, Machine Intelligence Research 20, 2023)
has no anchor boxes: every cell of three grids, of 8, 16 and 32 pixels, may hold one face. The formulas are
those of OpenCV's FaceDetectorYN (modules/objdetect/src/face_detect.cpp), which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

STRIDES = (8, 16, 32)
WIDTHS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # numbers per cell in the outputs cls_8, cls_16 ...
LEAST_SCORE = 0.6
MOST_OVERLAP = 0.3
ROW = 15  # x, y, width, height, five landmarks (x, y), score


def network_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return YuNet's input.

    Args:
        image: (H, W, 3) uint8 RGB 0..255.

    Returns:
        (1, 3, H', W') float32 BGR 0..255: black below and to the right, up to multiples of 32.
    """
    height, width = image.shape[:2]
    coarsest = STRIDES[-1]
    blob = np.zeros((1, 3, -(-height // coarsest) * coarsest, -(-width // coarsest) * coarsest), np.float32)
    blob[0, :, :height, :width] = image[:, :, ::-1].transpose(2, 0, 1)
    return blob


def decode(outputs: Mapping[str, NDArray[np.float32]], height: int, width: int) -> NDArray[np.float32]:
    """Return the faces that YuNet's outputs describe, the surest first.

    A cell in column c and row r of the grid of s pixels, with the outputs cls, obj, bbox (4) and kps (5 x 2):
    score = sqrt(cls obj), both kept within 0..1; centre = s ((c, r) + bbox[:2]); size = s exp(bbox[2:]);
    landmark = s ((c, r) + kps). Faces below `LEAST_SCORE` or much like a surer one are left out.

    Args:
        outputs: cls_8, cls_16 ... kps_32, each (1, cells, numbers) float32, cells row by row.
        height: of the network's input.
        width: of the network's input.

    Returns:
        (N, 15) float32: x, y, width, height, five landmarks as x and y, score; in pixels of the input.

    Raises:
        ValueError: these are not YuNet's outputs for an input of this size.
    """
    faces = np.concatenate([_decode_grid(outputs, stride, height, width) for stride in STRIDES])
    faces = faces[np.isfinite(faces).all(axis=1)]
    kept = _without_overlaps(faces[:, :4], faces[:, -1])
    return np.asarray(faces[kept], np.float32)


def _decode_grid(
    outputs: Mapping[str, NDArray[np.float32]], stride: int, height: int, width: int
) -> NDArray[np.float64]:
    rows, columns = height // stride, width // stride
    cls, obj, bbox, kps = (
        outputs[f"{name}_{stride}"].reshape(rows * columns, numbers) for name, numbers in WIDTHS.items()
    )
    score = np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))[:, 0]
    (found,) = np.nonzero(score >= LEAST_SCORE)
    cell = np.stack([found % columns, found // columns], axis=1)
    bbox, kps = bbox[found].astype(np.float64), kps[found].astype(np.float64)
    with np.errstate(over="ignore"):  # a size beyond all numbers is left out with the face
        size = stride * np.exp(bbox[:, 2:])
    corner = stride * (cell + bbox[:, :2]) - size / 2
    landmarks = stride * (np.tile(cell, 5) + kps)
    return np.concatenate([corner, size, landmarks, score[found, None]], axis=1)


def _without_overlaps(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> list[int]:
    """Return the faces that stay, the surest first: greedy suppression above `MOST_OVERLAP`.

    Overlap is intersection over union of whole pixels: OpenCV cuts the fractions off before it compares, and
    the same faces are to stay.
    """
    corner, size = np.trunc(boxes[:, :2]), np.trunc(boxes[:, 2:])
    area = size.prod(axis=1)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(corner[best], corner[left])
        high = np.minimum(corner[best] + size[best], corner[left] + size[left])
        shared = np.maximum(high - low, 0).prod(axis=1)
        # Two boxes without a whole pixel between them count as the same one.
        union = np.maximum(area[best] + area[left] - shared, 1e-9)
        overlap = np.where(area[best] + area[left] > 0, shared / union, 1)
        left = left[overlap <= MOST_OVERLAP]
    return kept
