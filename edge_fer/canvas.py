"""Ink on pictures: plain and translucent rectangles, dots and letters. Knows pixels, no faces.

Everything changes the given (H, W, 3) uint8 RGB array in place and touches the covered pixels only; what lies
outside the picture is cut off. Letters are drawn once by Pillow and kept as masks: that is what makes the
annotation of a video cheap.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels; the last two are outside
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_BITS = 3  # OpenCV's circles take parts of a pixel as binary fractions


@lru_cache(maxsize=128)
def font(size: int) -> Font:
    """Return Pillow's own typeface, `size` pixels high."""
    return ImageFont.load_default(size=size)


@lru_cache(maxsize=1024)
def text_width(text: str, size: int) -> int:
    """Return how many pixels a line of text takes."""
    return int(font(size).getlength(text)) + 1


def fill(pixels: Pixels, place: Rectangle, colour: Colour) -> None:
    """Paint a rectangle."""
    region = _region(pixels, place)
    if region.size:
        cv2.rectangle(region, (0, 0), (region.shape[1], region.shape[0]), colour, cv2.FILLED)


def shade(pixels: Pixels, place: Rectangle, level: int, opacity: float) -> None:
    """Lay a translucent gray rectangle over the picture.

    Args:
        pixels: the picture.
        place: the rectangle.
        level: the gray, 0..255.
        opacity: 0: nothing is seen of it; 1: nothing of the picture.
    """
    region = _region(pixels, place)
    if region.size:
        cv2.convertScaleAbs(region, region, alpha=1 - opacity, beta=opacity * level)


def outline(pixels: Pixels, place: Rectangle, colour: Colour, thickness: int) -> None:
    """Paint the frame of a rectangle, `thickness` pixels inwards."""
    for strip in frame_strips(place, thickness):
        fill(pixels, strip, colour)


def frame_strips(place: Rectangle, thickness: int) -> tuple[Rectangle, ...]:
    """Return the four rectangles that make up a frame inside `place`; they do not overlap."""
    left, top, right, bottom = place
    across, down = min(thickness, (right - left + 1) // 2), min(thickness, (bottom - top + 1) // 2)
    return (
        (left, top, right, top + down),
        (left, max(bottom - down, top + down), right, bottom),
        (left, top + down, left + across, bottom - down),
        (max(right - across, left + across), top + down, right, bottom - down),
    )


def dot(pixels: Pixels, centre: tuple[float, float], radius: float, colour: Colour) -> None:
    """Paint a disc with a smooth edge; centre and radius in pixels, parts of a pixel count."""
    reach = int(radius) + 2
    x, y = round(centre[0]), round(centre[1])
    left, top = max(x - reach, 0), max(y - reach, 0)
    region = _region(pixels, (left, top, x + reach + 1, y + reach + 1))
    if region.size:
        scale = 1 << _BITS
        at = (round((centre[0] - left) * scale), round((centre[1] - top) * scale))
        cv2.circle(region, at, round(radius * scale), colour, cv2.FILLED, cv2.LINE_AA, _BITS)


def write(
    pixels: Pixels,
    at: tuple[float, float],
    text: str,
    size: int,
    *,
    colour: Colour = (255, 255, 255),
    anchor: Literal["lm", "mm", "rm"] = "lm",
) -> None:
    """Write a line of text.

    Args:
        pixels: the picture.
        at: x, y of the anchor.
        text: what to write.
        size: the letters' height in pixels.
        colour: of the letters.
        anchor: left, middle or right of the text; in height its middle.
    """
    mask, left, top = _letters(text, size, anchor)
    left, top = left + round(at[0]), top + round(at[1])
    height, width = mask.shape[:2]
    region = _region(pixels, (left, top, left + width, top + height))
    if region.size:
        skip_x, skip_y = max(-left, 0), max(-top, 0)
        part = mask[skip_y : skip_y + region.shape[0], skip_x : skip_x + region.shape[1]].astype(np.uint16)
        # (v * 255 + 255) >> 8 is v: what no letter covers stays exactly as it is, and 16 bits are enough.
        blended = region * (255 - part) + np.array(colour, np.uint16) * part
        region[:] = (blended + 255) >> 8


@lru_cache(maxsize=256)  # at 4K a text takes 70 kB
def _letters(text: str, size: int, anchor: str) -> tuple[NDArray[np.uint8], int, int]:
    """Return the (h, w, 1) coverage 0..255 of a text, and the place of its corner from the anchor."""
    canvas = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = (int(side) for side in canvas.textbbox((0, 0), text, font(size), anchor))
    picture = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(picture).text((1 - left, 1 - top), text, 255, font(size), anchor)
    return np.array(picture)[..., None], left - 1, top - 1


def _region(pixels: Pixels, place: Rectangle) -> Pixels:
    left, top, right, bottom = (max(side, 0) for side in place)
    return pixels[top:bottom, left:right]
