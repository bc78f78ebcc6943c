"""Annotated pictures: what is drawn where, at every size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from edge_fer import draw
from edge_fer.draw import Annotation, draw_faces
from edge_fer.labels import LABELS

PROBABILITIES = dict(zip(LABELS, (0.05, 0.81, 0.06, 0.01, 0.02, 0.01, 0.01, 0.03), strict=True))


def annotation(box: tuple[float, float, float, float] | None, *, abstained: bool = False) -> Annotation:
    return Annotation(box, "happiness", 0.81, 0.62, abstained, PROBABILITIES)


def grey(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def changed(image: np.ndarray, result: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((image != result).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_nothing_to_draw_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_faces(image, []), image, strict=True)


def test_the_given_picture_is_not_changed() -> None:
    image = grey(300, 200)
    draw_faces(image, [annotation((50, 50, 80, 80))])
    assert (image == 128).all()


def test_box_has_the_colour_of_the_label_and_the_face_stays_free() -> None:
    result = draw_faces(grey(640, 480), [annotation((200, 150, 120, 140))])
    expected = draw._COLOURS["happiness"]
    for x, y in ((260, 150), (260, 289), (200, 220), (319, 220)):
        assert tuple(result[y, x]) == expected
    assert (result[155:285, 205:315] == 128).all()


def test_abstained_faces_are_grey_and_say_unsure(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    real = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, **options: (texts.append(text), real(self, xy, text, **options)),
    )
    result = draw_faces(grey(640, 480), [annotation((200, 150, 120, 140), abstained=True)])
    assert tuple(result[289, 260]) == draw._ABSTAINED
    assert "unsure: happiness 81%" in texts


def test_panel_shows_every_probability_and_the_reliability(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    real = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, **options: (texts.append(text), real(self, xy, text, **options)),
    )
    draw_faces(grey(640, 480), [annotation((200, 150, 120, 140))])
    rows = [item for name, value in PROBABILITIES.items() for item in (name, f"{value:.0%}")]
    assert texts == [*rows, "reliability", "62%", "happiness 81%"]


def test_bars_are_as_long_as_the_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[object, list[tuple[float, ...]]] = {}
    real = ImageDraw.ImageDraw.rectangle

    def record(self: ImageDraw.ImageDraw, xy: tuple[float, ...], **options: object) -> None:
        drawn.setdefault(options.get("fill"), []).append(xy)
        real(self, xy, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", record)
    values = dict.fromkeys(LABELS, 0.0) | {"anger": 0.25, "disgust": 0.75}
    draw_faces(grey(640, 480), [Annotation((100, 150, 120, 140), "fear", 1.0, 0.5, False, values)])
    tracks = drawn[draw._TRACK]
    assert len(tracks) == len(LABELS) + 1
    length = tracks[0][2] - tracks[0][0]
    assert length > 40
    for name, value in (("anger", 0.25), ("disgust", 0.75)):
        (bar,) = drawn[draw._COLOURS[name]]
        assert bar[0] == tracks[0][0]
        assert bar[2] - bar[0] == pytest.approx(value * length, abs=0.51)
    assert drawn[draw._RELIABILITY][0][2] - tracks[0][0] == pytest.approx(0.5 * length, abs=0.51)
    assert draw._COLOURS["surprise"] not in drawn


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1920, 1080), (3840, 2160)])
@pytest.mark.parametrize("corner", ["top left", "top right", "bottom left", "bottom right"])
def test_plates_of_faces_at_the_edges_are_whole(
    width: int, height: int, corner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[draw.Rectangle] = []
    real = draw._draw_label
    monkeypatch.setattr(draw, "_draw_label", lambda *a: (places.append(a[2]), real(*a)))
    side = height / 5
    x = -side / 4 if "left" in corner else width - side * 3 / 4
    y = -side / 4 if "top" in corner else height - side * 3 / 4
    result = draw_faces(grey(width, height), [annotation((x, y, side, side))])
    ((left, top, right, bottom),) = places
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    plate = result[top:bottom, left:right]
    assert (plate.max(axis=2) > 240).mean() > 0.02  # white letters ...
    assert (plate.max(axis=2) < 60).mean() > 0.4  # ... on a dark ground
    # Readable, and not larger than it has to be.
    assert height / 30 < bottom - top < height / 8


def test_sizes_follow_the_picture() -> None:
    heights = []
    for height in (480, 1080, 2160):
        image = grey(height * 16 // 9, height)
        result = draw_faces(image, [annotation((height / 2, height / 3, height / 5, height / 5))])
        left, top, right, bottom = changed(image, result)
        assert right - left < image.shape[1] * 0.7
        heights.append((bottom - top) / height)
    assert max(heights) / min(heights) < 1.15


def test_panels_cover_no_other_face() -> None:
    boxes = [(40 + 200 * i, 60 + 210 * j, 90, 90) for i in range(3) for j in range(2)]
    image = grey(640, 480)
    result = draw_faces(image, [annotation(box) for box in boxes])
    for x, y, width, height in boxes:
        assert (result[y + 8 : y + height - 8, x + 8 : x + width - 8] == 128).all()


def test_whole_picture_without_a_box() -> None:
    result = draw_faces(grey(300, 300), [annotation(None)])
    assert tuple(result[299, 150]) == draw._COLOURS["happiness"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.tuples(*[st.floats(-400, 400)] * 2, *[st.floats(0, 500)] * 2), max_size=4),
)
def test_any_box_in_any_picture(
    width: int, height: int, boxes: list[tuple[float, float, float, float]]
) -> None:
    image = grey(width, height)
    result = draw_faces(image, [annotation(box) for box in boxes])
    assert result.shape == image.shape
    assert result.dtype == np.uint8


def test_result_can_be_saved() -> None:
    result = draw_faces(grey(64, 64), [annotation((5, 5, 30, 30))])
    assert Image.fromarray(result).mode == "RGB"
