"""Synthetic clips: real faces pasted over a textured background, moving as told, with camera noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.images import read_image

ROOT = Path(__file__).parents[3]
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
ASTRONAUT_FACE = (177.0, 67.0, 93.0, 93.0)  # by eye and by the cascade
HEIGHT, WIDTH = 480, 640
FPS = 30.0

Picture = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A head to paste: the photo around a face, and an oval that fades to 0 at its edge.

    Attributes:
        head: (S, S, 3) uint8 RGB; its middle half is the face's box.
        mask: (S, S) float32 0..1.
    """

    head: Picture
    mask: NDArray[np.float32]

    def lit(self, gain: Sequence[float], mirrored: bool = False) -> Person:
        """Return the same head as another person: recoloured, and seen in a mirror."""
        head = np.clip(self.head * np.asarray(gain), 0, 255).astype(np.uint8)
        return Person(np.ascontiguousarray(head[:, ::-1]) if mirrored else head, self.mask)


def cut_out(photo: Picture, face: Box) -> Person:
    """Cut a head out of a photo (H, W, 3) uint8 RGB whose face's box is known."""
    side = round(2 * max(face[2:]))
    centre = face[0] + face[2] / 2, face[1] + face[3] / 2
    head = cv2.getRectSubPix(photo, (side, side), centre)
    down, across = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    radius = np.hypot(across / 0.78, (down + 0.02) / 0.95)
    return Person(head, np.clip((1 - radius) / 0.12, 0, 1).astype(np.float32))


def astronaut() -> Person:
    return cut_out(read_image(ASTRONAUT), ASTRONAUT_FACE)


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Picture:
    """Return a seeded background (H, W, 3) uint8 RGB with structure at several scales."""
    generator = np.random.default_rng(seed)
    total = np.full((height, width, 3), 110, np.float32)
    for cells, strength in ((6, 35), (20, 25), (80, 15)):
        coarse = generator.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one person does in a clip.

    Attributes:
        who: the head at a time in seconds.
        place: the face's centre x, y and the side of its box at a time, in pixels; None: not in the picture.
    """

    who: Callable[[float], Person]
    place: Callable[[float], tuple[float, float, float] | None]

    def box(self, time_s: float) -> Box | None:
        """Return the true box of the face."""
        place = self.place(time_s)
        return place and (place[0] - place[2] / 2, place[1] - place[2] / 2, place[2], place[2])


def paste(frame: Picture, person: Person, place: tuple[float, float, float]) -> None:
    """Draw a head into a frame (H, W, 3) uint8 RGB, its face's centre and side at `place`."""
    x, y, side = place
    left, top = max(0, int(x - side) - 1), max(0, int(y - side) - 1)
    right, bottom = min(frame.shape[1], int(x + side) + 2), min(frame.shape[0], int(y + side) + 2)
    if left >= right or top >= bottom:
        return
    scale = 2 * side / len(person.head)
    matrix = np.array([[scale, 0, x - side - left], [0, scale, y - side - top]])
    size = right - left, bottom - top
    head = cv2.warpAffine(person.head, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(person.mask, matrix, size)[..., None]
    area = frame[top:bottom, left:right]
    area[:] = (area * (1 - mask) + head * mask + 0.5).astype(np.uint8)


def play(
    parts: Sequence[Part], seconds: float, *, seed: int = 0, fps: float = FPS, noise: float = 4.0
) -> Iterator[tuple[float, Picture]]:
    """Yield time in seconds and frame (480, 640, 3) uint8 RGB; later parts are in front of earlier ones."""
    background = texture(seed)
    generator = np.random.default_rng(seed)
    # Camera noise from a pool: drawing a new field for every frame would take longer than tracking it.
    pool = generator.normal(0, noise, (HEIGHT + 64, WIDTH + 64, 3)).astype(np.float32)
    for number in range(round(seconds * fps)):
        time_s = number / fps
        frame = background.copy()
        for part in parts:
            place = part.place(time_s)
            if place is not None:
                paste(frame, part.who(time_s), place)
        down, across = generator.integers(0, 64, 2)
        noisy = frame + pool[down : down + HEIGHT, across : across + WIDTH]
        yield time_s, np.clip(noisy, 0, 255).astype(np.uint8)


def overlap(first: Box, second: Box) -> float:
    """Return intersection over union."""
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    shared = max(0.0, across) * max(0.0, down)
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)
