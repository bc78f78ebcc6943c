"""Videos for tests and benchmarks: the demo photo's face moves over a textured background, in real files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.images import read_image
from edge_fer.sources.opencv import silence

ASTRONAUT = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
HEAD = (110, 0, 330, 260)  # left, top, right, bottom of the demo photo, with some room
NOISE = 3.0  # standard deviation of the camera's noise, of 255


def moving_faces(
    frames: int, *, faces: int = 1, size: tuple[int, int] = (640, 480), fps: float = 25.0, seed: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """Give frames (H, W, 3) uint8 RGB in which one or two heads move on ellipses, the second one mirrored.

    Args:
        frames: how many.
        faces: one or two.
        size: width and height in pixels.
        fps: frames per second, which sets how far a head moves from one to the next.
        seed: of background and noise.
    """
    width, height = size
    generator = np.random.default_rng(seed)
    coarse = generator.integers(100, 140, (height // 48, width // 48, 3), np.uint8)
    background = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    noise = [generator.normal(0, NOISE, (height, width, 3)).astype(np.int8) for _ in range(4)]
    side = round((0.6 if faces == 1 else 0.5) * height)
    head = cv2.resize(head_of_the_photo(), (round(side * 0.85), side), interpolation=cv2.INTER_AREA)
    for number in range(frames):
        frame = background.copy()
        for face in range(faces):
            angle = 2 * np.pi * (number / fps / 8) + np.pi * face
            centre = width * (0.5 if faces == 1 else 0.26 + 0.48 * face), height / 2
            x = round(centre[0] + 0.05 * width * np.cos(angle) - head.shape[1] / 2)
            y = round(centre[1] + 0.1 * height * np.sin(angle) - side / 2)
            patch = head if face == 0 else head[:, ::-1]
            frame[y : y + side, x : x + head.shape[1]] = patch
        noisy = frame.astype(np.int16) + noise[number % len(noise)]
        yield noisy.clip(0, 255).astype(np.uint8)


def head_of_the_photo() -> NDArray[np.uint8]:
    """Return the head of the demo photo, (260, 220, 3) uint8 RGB."""
    left, top, right, bottom = HEAD
    return read_image(ASTRONAUT)[top:bottom, left:right]


def write_clip(path: Path, frames: Iterator[NDArray[np.uint8]], fps: float = 25.0) -> Path:
    """Write frames (H, W, 3) uint8 RGB as a video: Motion JPEG for .avi, MPEG-4 part 2 for .mp4."""
    code = cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    silence()  # FFmpeg takes its level from the first video of the process, which this may be
    writer = None
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(path), code, fps, (frame.shape[1], frame.shape[0]))
            assert writer.isOpened()
        writer.write(frame[:, :, ::-1])
    assert writer is not None
    writer.release()
    return path
