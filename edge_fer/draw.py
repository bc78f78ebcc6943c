"""Annotated pictures: box, label and distribution of each face. Knows drawing, no models or files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels; the last two are outside
Colour = tuple[int, int, int]

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
_RELIABILITY: Colour = (255, 255, 255)
_PLATE = (18, 20, 26, 215)
_TRACK = (255, 255, 255, 45)
_RULE = (255, 255, 255, 90)
_TEXT: Colour = (255, 255, 255)
_SMALLEST_FONT = 7
_SMALLEST_PANEL_FONT = 10


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is drawn for one face.

    Attributes:
        box: x, y, width, height in pixels; None when the whole picture is the face.
        label: The label on top.
        probability: Its probability, 0..1.
        reliability: 0..1.
        abstained: Whether the reliability is below what was asked for; the label is then shown as unsure.
        probabilities: Every label's probability, in the order to draw them.
    """

    box: tuple[float, float, float, float] | None
    label: str
    probability: float
    reliability: float
    abstained: bool
    probabilities: Mapping[str, float]


def draw_faces(image: NDArray[np.uint8], annotations: Sequence[Annotation]) -> NDArray[np.uint8]:
    """Draw every face's box and label, and its distribution where there is room beside or below the box.

    Sizes follow the picture and the face, so that the text can be read at 480 lines and at 4K; nothing leaves
    the picture.

    Args:
        image: (H, W, 3) uint8 RGB 0..255; not changed.
        annotations: The faces.

    Returns:
        (H, W, 3) uint8 RGB 0..255.
    """
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture, "RGBA")  # colours with alpha are blended onto the RGB picture
    boxes = [_rectangle(annotation, picture.size) for annotation in annotations]
    labels = [_label_place(canvas, *pair) for pair in zip(annotations, boxes, strict=True)]
    taken = boxes + [place for place, _ in labels if place is not None]
    for annotation, box in zip(annotations, boxes, strict=True):
        place, size = _panel_place(canvas, annotation, box, taken)
        if place is not None:
            taken.append(place)
            _draw_panel(canvas, annotation, place, size)
    for annotation, box, (place, size) in zip(annotations, boxes, labels, strict=True):
        _draw_box(canvas, annotation, box)
        if place is not None:
            _draw_label(canvas, annotation, place, size)
    return np.array(picture)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _text_width(canvas: ImageDraw.ImageDraw, text: str, size: int) -> int:
    return int(canvas.textlength(text, font=_font(size))) + 1


def _colour(annotation: Annotation) -> Colour:
    return _ABSTAINED if annotation.abstained else _COLOURS.get(annotation.label, _TEXT)


def _text(annotation: Annotation) -> str:
    text = f"{annotation.label} {annotation.probability:.0%}"
    return f"unsure: {text}" if annotation.abstained else text


def _rectangle(annotation: Annotation, size: tuple[int, int]) -> Rectangle:
    """Return the box in whole pixels, cut to the picture, at least one pixel large."""
    width, height = size
    if annotation.box is None:
        return 0, 0, width, height
    x, y, box_width, box_height = annotation.box
    left, top = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    right = min(max(round(x + box_width), left + 1), width)
    return left, top, right, min(max(round(y + box_height), top + 1), height)


def _font_size(box: Rectangle, picture: tuple[int, int]) -> int:
    """Follow the face, within what can be read at the picture's size."""
    short = min(picture)
    return round(min(max(0.13 * (box[2] - box[0]), short / 36, 12), max(short / 22, 12)))


def _label_place(
    canvas: ImageDraw.ImageDraw, annotation: Annotation, box: Rectangle
) -> tuple[Rectangle | None, int]:
    """Find the plate's place and font size: on top of the box, or inside it at the picture's upper edge."""
    width, height = canvas.im.size
    for size in range(_font_size(box, (width, height)), _SMALLEST_FONT - 1, -1):
        plate_width = _text_width(canvas, _text(annotation), size) + size
        plate_height = round(1.6 * size)
        if plate_width <= width and plate_height <= height:
            left = min(box[0], width - plate_width)
            top = box[1] - plate_height if box[1] >= plate_height else box[1]
            top = min(top, height - plate_height)
            return (left, top, left + plate_width, top + plate_height), size
    return None, 0


def _panel_place(
    canvas: ImageDraw.ImageDraw, annotation: Annotation, box: Rectangle, taken: Sequence[Rectangle]
) -> tuple[Rectangle | None, int]:
    """Find free room for the distribution, right of the box, left of it or below it, and its font size."""
    width, height = canvas.im.size
    full = _font_size(box, (width, height))
    smallest = max(_SMALLEST_PANEL_FONT, round(min(width, height) / 50))
    for size in range(max(round(0.8 * full), smallest), smallest - 1, -1):
        panel_width, panel_height = _panel_size(canvas, annotation, size)
        gap = size // 2
        top = min(box[1], height - panel_height)
        places = [
            (box[2] + gap, top),
            (box[0] - gap - panel_width, top),
            (min(box[0], width - panel_width), box[3] + gap),
        ]
        for left, upper in places:
            place = (left, upper, left + panel_width, upper + panel_height)
            inside = left >= 0 and upper >= 0 and place[2] <= width and place[3] <= height
            if inside and not any(_overlap(place, other) for other in taken):
                return place, size
    return None, 0


def _panel_size(canvas: ImageDraw.ImageDraw, annotation: Annotation, size: int) -> tuple[int, int]:
    names = _names_width(canvas, annotation, size)
    return round(names + 9.6 * size), round((len(annotation.probabilities) + 1) * 1.4 * size + 1.5 * size)


def _names_width(canvas: ImageDraw.ImageDraw, annotation: Annotation, size: int) -> int:
    return max(_text_width(canvas, name, size) for name in (*annotation.probabilities, "reliability"))


def _overlap(first: Rectangle, second: Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _draw_box(canvas: ImageDraw.ImageDraw, annotation: Annotation, box: Rectangle) -> None:
    thickness = max(2, round(min(canvas.im.size) / 240))
    left, top, right, bottom = box
    # A dark line around the coloured one: it shows on bright and on dark pictures.
    canvas.rectangle((left - 1, top - 1, right, bottom), outline=(0, 0, 0, 150), width=thickness + 2)
    canvas.rectangle((left, top, right - 1, bottom - 1), outline=_colour(annotation), width=thickness)


def _draw_label(canvas: ImageDraw.ImageDraw, annotation: Annotation, place: Rectangle, size: int) -> None:
    left, top, right, bottom = place
    canvas.rectangle((left, top, right - 1, bottom - 1), fill=_PLATE)
    canvas.rectangle((left, top, left + max(2, size // 5) - 1, bottom - 1), fill=_colour(annotation))
    middle = (top + bottom) / 2
    canvas.text((left + 0.6 * size, middle), _text(annotation), font=_font(size), fill=_TEXT, anchor="lm")


def _draw_panel(canvas: ImageDraw.ImageDraw, annotation: Annotation, place: Rectangle, size: int) -> None:
    left, top, right, bottom = place
    canvas.rounded_rectangle((left, top, right - 1, bottom - 1), radius=size // 2, fill=_PLATE)
    bar_left = left + size + _names_width(canvas, annotation, size) + size // 2
    bar_right = right - round(3.5 * size)
    rows = [(name, value, _COLOURS.get(name, _TEXT)) for name, value in annotation.probabilities.items()]
    middle = top + 1.2 * size
    for name, value, colour in rows:
        _draw_row(canvas, (name, value, colour), (left + size // 2, bar_left, bar_right, middle), size)
        middle += 1.4 * size
    rule = round(middle - 0.5 * size)
    canvas.line((left + size // 2, rule, right - size // 2, rule), fill=_RULE, width=max(1, size // 12))
    last = ("reliability", annotation.reliability, _RELIABILITY)
    _draw_row(canvas, last, (left + size // 2, bar_left, bar_right, middle + 0.3 * size), size)


def _draw_row(
    canvas: ImageDraw.ImageDraw, row: tuple[str, float, Colour], place: tuple[int, int, int, float], size: int
) -> None:
    """Draw a name, a bar and a percentage; `place`: the text's left, the bar's left and right, the middle."""
    name, value, colour = row
    text_left, bar_left, bar_right, middle = place
    above, below = round(middle - 0.36 * size), round(middle + 0.36 * size)
    canvas.text((text_left, middle), name, font=_font(size), fill=_TEXT, anchor="lm")
    canvas.rectangle((bar_left, above, bar_right, below), fill=_TRACK)
    length = round(min(max(value, 0.0), 1.0) * (bar_right - bar_left))
    if length > 0:
        canvas.rectangle((bar_left, above, bar_left + length, below), fill=colour)
    canvas.text((bar_right + 2.9 * size, middle), f"{value:.0%}", font=_font(size), fill=_TEXT, anchor="rm")
