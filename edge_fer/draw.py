"""Annotated pictures: box, label and distribution of each face. Knows drawing, no models or files."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fer import canvas
from edge_fer.canvas import Colour, Pixels, Rectangle
from edge_fer.placement import Placement, Spot, Subject, chip_width, names_width

_COLOURS: dict[str, Colour] = {
    "neutral": (176, 190, 197),
    "happiness": (255, 202, 40),
    "surprise": (255, 138, 101),
    "sadness": (100, 181, 246),
    "anger": (239, 83, 80),
    "disgust": (156, 204, 101),
    "fear": (186, 104, 200),
    "contempt": (77, 208, 195),
}
_ABSTAINED: Colour = (158, 158, 158)
_TEXT: Colour = (255, 255, 255)
_DARK: Colour = (20, 20, 20)
_PLATE = (20, 0.84)  # gray and opacity
_TRACK = (255, 0.18)
_RULE = (255, 0.35)
_RIM = (0, 0.6)
_GOLDEN_TURN = 0.618034  # steps of it around the circle of hues lie far apart, however many there are


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """What is drawn for one face.

    Attributes:
        box: x, y, width, height in pixels; None when the whole picture is the face.
        label: The label on top; None: unsure.
        probability: Its probability, 0..1.
        reliability: 0..1.
        abstained: Whether the reliability is below what was asked for; the label is then shown as unsure.
        probabilities: Every label's probability, in the order to draw them.
        track: Number of the person, shown before the label; None: none.
        landmarks: (N, 2) float32, x, y in pixels; None: none. Drawn where the face is large enough for them.
    """

    box: tuple[float, float, float, float] | None
    label: str | None
    probability: float
    reliability: float
    abstained: bool
    probabilities: Mapping[str, float]
    track: int | None = None
    landmarks: NDArray[np.float32] | None = None


def draw_faces(
    image: NDArray[np.uint8], annotations: Sequence[Annotation], placement: Placement | None = None
) -> NDArray[np.uint8]:
    """Draw every face's box and label, and its distribution where there is room beside or below the box.

    Sizes follow the picture and the face, so that the text can be read at 480 lines and at 4K; nothing leaves
    the picture. Where faces stand so close that plates would cover each other, the shorter text or the
    coloured box alone has to do.

    Args:
        image: (H, W, 3) uint8 RGB 0..255; not changed.
        annotations: The faces, the most important first.
        placement: One object for all frames of a video keeps plates and panels on their side of a tracked
            face; None: this picture stands alone.

    Returns:
        (H, W, 3) uint8 RGB 0..255.
    """
    pixels = np.array(image, order="C")
    size = (image.shape[1], image.shape[0])
    subjects = [_subject(annotation, size) for annotation in annotations]
    spots = (placement or Placement()).arrange(size, subjects)
    for annotation, (_, panel) in zip(annotations, spots, strict=True):
        if panel is not None:
            _draw_panel(pixels, annotation, panel)
    thickness = max(2, round(min(size) / 240))
    for annotation, subject, (_, panel) in zip(annotations, subjects, spots, strict=True):
        if panel is not None:
            _join(pixels, annotation, subject.box, panel, thickness)
    for annotation, subject in zip(annotations, subjects, strict=True):
        _draw_box(pixels, annotation, subject.box, thickness)
    for annotation, subject, (label, _) in zip(annotations, subjects, spots, strict=True):
        if label is not None:
            _draw_label(pixels, annotation, subject, label)
    return pixels


def label_colour(label: str | None) -> Colour:
    """Return the colour of a label wherever it is shown; None: of a face that the model is unsure of."""
    return _ABSTAINED if label is None else _COLOURS.get(label, _TEXT)


def track_colour(track: int) -> Colour:
    """Return a track's own light colour, the same in every frame and far from its neighbours' numbers'."""
    red, green, blue = colorsys.hsv_to_rgb((track * _GOLDEN_TURN) % 1, 0.38, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _shown_label(annotation: Annotation) -> str | None:
    return None if annotation.abstained else annotation.label


def _subject(annotation: Annotation, picture: tuple[int, int]) -> Subject:
    label = annotation.label
    texts: tuple[str, ...] = (f"{label} {annotation.probability:.0%}", f"{label}")
    if label is None:
        texts = ("unsure",)
    elif annotation.abstained:
        texts = (f"unsure: {texts[0]}", "unsure")
    return Subject(
        box=_rectangle(annotation, picture),
        texts=texts,
        chip="" if annotation.track is None else f"#{annotation.track}",
        names=tuple(annotation.probabilities),
        track=annotation.track,
    )


def _rectangle(annotation: Annotation, size: tuple[int, int]) -> Rectangle:
    """Return the box in whole pixels, cut to the picture, at least one pixel large."""
    width, height = size
    if annotation.box is None:
        return 0, 0, width, height
    x, y, box_width, box_height = annotation.box
    left, top = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    right = min(max(round(x + box_width), left + 1), width)
    return left, top, right, min(max(round(y + box_height), top + 1), height)


def _draw_box(pixels: Pixels, annotation: Annotation, box: Rectangle, thickness: int) -> None:
    left, top, right, bottom = box
    # A dark line on both sides of the coloured one: it shows on bright and on dark pictures.
    inner = (left + thickness, top + thickness, right - thickness, bottom - thickness)
    for frame in ((left - 1, top - 1, right + 1, bottom + 1), inner):
        if frame[0] < frame[2] and frame[1] < frame[3]:
            for strip in canvas.frame_strips(frame, 1):
                canvas.shade(pixels, strip, *_RIM)
    canvas.outline(pixels, box, label_colour(_shown_label(annotation)), thickness)
    radius = 0.8 * thickness
    if annotation.landmarks is not None and right - left >= 40 * radius:
        for x, y in annotation.landmarks.tolist():
            canvas.dot(pixels, (x, y), radius + 1, _DARK)
            canvas.dot(pixels, (x, y), radius, _TEXT)


def _draw_label(pixels: Pixels, annotation: Annotation, subject: Subject, spot: Spot) -> None:
    left, top, _, bottom = spot.rectangle
    size, middle = spot.size, (top + bottom) / 2
    canvas.shade(pixels, spot.rectangle, *_PLATE)
    text_left = left + 0.6 * size
    if annotation.track is not None:
        chip = left + chip_width(subject.chip, size)
        canvas.fill(pixels, (left, top, chip, bottom), track_colour(annotation.track))
        at = ((left + chip) / 2, middle)
        canvas.write(pixels, at, subject.chip, size, colour=_DARK, anchor="mm")
        left, text_left = chip, chip + 0.6 * size
    stripe = (left, top, left + max(2, size // 5), bottom)
    canvas.fill(pixels, stripe, label_colour(_shown_label(annotation)))
    canvas.write(pixels, (text_left, middle), spot.text, size)


def _draw_panel(pixels: Pixels, annotation: Annotation, spot: Spot) -> None:
    left, top, right, _ = spot.rectangle
    size = spot.size
    canvas.shade(pixels, spot.rectangle, *_PLATE)
    bar_left = left + size + names_width(tuple(annotation.probabilities), size) + size // 2
    across = (left + size // 2, bar_left, right - round(3.5 * size))
    middle = top + 1.2 * size
    for name, value in annotation.probabilities.items():
        _draw_row(pixels, (name, value, label_colour(name)), (*across, middle), size)
        middle += 1.4 * size
    rule = round(middle - 0.5 * size)
    line = (left + size // 2, rule, right - size // 2, rule + max(1, size // 12))
    canvas.shade(pixels, line, *_RULE)
    row = ("reliability", annotation.reliability, _TEXT)
    _draw_row(pixels, row, (*across, middle + 0.3 * size), size)


def _join(pixels: Pixels, annotation: Annotation, box: Rectangle, spot: Spot, thickness: int) -> None:
    """Give the panel an edge in its face's colour and a bridge to it: in a crowd it may stand between two."""
    left, top, right, bottom = spot.rectangle
    from_x, from_y = max(left, box[0]), max(top, box[1])
    if spot.side == "right":
        edge = (left, top, left + thickness, bottom)
        bridge = (box[2], from_y, left, from_y + 2 * thickness)
    elif spot.side == "left":
        edge = (right - thickness, top, right, bottom)
        bridge = (right, from_y, box[0], from_y + 2 * thickness)
    else:
        edge = (left, top, right, top + thickness)
        bridge = (from_x, box[3], from_x + 2 * thickness, top)
    for place in (edge, bridge):
        canvas.fill(pixels, place, label_colour(_shown_label(annotation)))


def _draw_row(
    pixels: Pixels, row: tuple[str, float, Colour], place: tuple[int, int, int, float], size: int
) -> None:
    """Draw a name, a bar and a percentage; `place`: the text's left, the bar's left and right, the middle."""
    name, value, colour = row
    text_left, bar_left, bar_right, middle = place
    above, below = round(middle - 0.36 * size), round(middle + 0.36 * size) + 1
    canvas.write(pixels, (text_left, middle), name, size)
    end = bar_left + round(min(max(value, 0.0), 1.0) * (bar_right - bar_left))
    canvas.shade(pixels, (end, above, bar_right, below), *_TRACK)
    canvas.fill(pixels, (bar_left, above, end, below), colour)
    canvas.write(pixels, (bar_right + 2.9 * size, middle), f"{value:.0%}", size, anchor="rm")
