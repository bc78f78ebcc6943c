"""Annotated pictures: what is drawn where, at every size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_fer import canvas, draw
from edge_fer.draw import Annotation, draw_faces, label_colour
from edge_fer.labels import LABELS
from edge_fer.placement import Placement

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


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is written, in order."""
    written: list[str] = []
    real = canvas.write
    monkeypatch.setattr(
        canvas,
        "write",
        lambda pixels, at, text, *a, **k: (written.append(text), real(pixels, at, text, *a, **k)),
    )
    return written


def extent(result: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the pixels of exactly this colour."""
    rows, columns = np.nonzero((result == colour).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_abstained_faces_are_grey_and_say_unsure(texts: list[str]) -> None:
    result = draw_faces(grey(640, 480), [annotation((200, 150, 120, 140), abstained=True)])
    assert tuple(result[289, 260]) == draw._ABSTAINED
    assert "unsure: happiness 81%" in texts


def test_faces_without_a_label_are_grey_and_say_unsure(texts: list[str]) -> None:
    face = Annotation((200, 150, 120, 140), None, 0.81, 0.1, True, PROBABILITIES)
    result = draw_faces(grey(640, 480), [face])
    assert tuple(result[289, 260]) == draw._ABSTAINED
    assert "unsure" in texts
    assert not [text for text in texts if "None" in text]


def test_panel_shows_every_probability_and_the_reliability(texts: list[str]) -> None:
    draw_faces(grey(640, 480), [annotation((200, 150, 120, 140))])
    rows = [item for name, value in PROBABILITIES.items() for item in (name, f"{value:.0%}")]
    assert texts == [*rows, "reliability", "62%", "happiness 81%"]


def test_bars_are_as_long_as_the_probabilities() -> None:
    values = dict.fromkeys(LABELS, 0.0) | {"anger": 0.25, "disgust": 0.75, "sadness": 1.0}
    face = Annotation((100, 150, 120, 140), "fear", 1.0, 0.5, False, values)
    result = draw_faces(grey(640, 480), [face])
    left, _, right, _ = extent(result, label_colour("sadness"))
    assert right - left > 40
    # All of the width there is: an empty bar (white on the plate on the picture) is as wide as a full one.
    empty = round((0.16 * 128 + 0.84 * 20) * 0.82 + 0.18 * 255)
    light = (np.abs(result.astype(int) - empty) <= 2).all(axis=2)
    row = light[light[:, left:right].all(axis=1)][0]
    assert not row[left - 4 : left].any() and not row[right : right + 4].any()
    for name, value in (("anger", 0.25), ("disgust", 0.75)):
        bar = extent(result, label_colour(name))
        assert bar[0] == left
        assert bar[2] - bar[0] == pytest.approx(value * (right - left), abs=0.51)
    # The reliability is white, as the letters are: a run of white in the row of its bar, and then none.
    middle = [row for row in range(290, 480) if (result[row, left : left + (right - left) // 2] == 255).all()]
    assert len(middle) >= 5
    assert (result[middle[2], left + (right - left) // 2 + 1 : right] < 255).all()
    assert not (result == label_colour("surprise")).all(axis=2).any()


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1920, 1080), (3840, 2160)])
@pytest.mark.parametrize("corner", ["top left", "top right", "bottom left", "bottom right"])
def test_plates_of_faces_at_the_edges_are_whole(
    width: int, height: int, corner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[draw.Rectangle] = []
    real = draw._draw_label
    monkeypatch.setattr(draw, "_draw_label", lambda *a: (places.append(a[3].rectangle), real(*a)))
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


def test_tracks_are_numbered_in_a_colour_of_their_own(texts: list[str]) -> None:
    faces = [
        Annotation((60 + 200 * i, 150, 90, 90), "fear", 1.0, 0.5, False, {}, track=i + 3) for i in range(3)
    ]
    first = draw_faces(grey(640, 480), faces)
    assert {"#3", "#4", "#5"} <= set(texts)
    chips = [extent(first, draw.track_colour(track)) for track in (3, 4, 5)]
    for (left, top, right, bottom), face in zip(chips, faces, strict=True):
        assert face.box is not None
        assert left == face.box[0]
        assert bottom == face.box[1]
        assert right - left > 15 and bottom - top > 15
        assert (first[top:bottom, left:right].max(axis=2) < 90).any()  # dark digits on it
    # The colour belongs to the track, not to the place in the list.
    again = draw_faces(grey(640, 480), faces[::-1])
    assert [extent(again, draw.track_colour(track)) for track in (3, 4, 5)] == chips


def test_colours_of_neighbouring_tracks_differ() -> None:
    colours = np.array([draw.track_colour(track) for track in range(1, 9)], float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2)[~np.eye(8, dtype=bool)]
    assert distances.min() > 25


def test_landmarks_are_dots_on_large_faces_and_left_out_on_tiny_ones() -> None:
    landmarks = np.array([[230, 200], [290, 200], [260, 230], [240, 260], [280, 260]], np.float32)
    plain = Annotation((200, 150, 120, 140), "fear", 1.0, 0.5, False, {})
    dotted = Annotation((200, 150, 120, 140), "fear", 1.0, 0.5, False, {}, landmarks=landmarks)
    before, after = draw_faces(grey(640, 480), [plain]), draw_faces(grey(640, 480), [dotted])
    rows, columns = np.nonzero((before != after).any(axis=2))
    nearest = np.hypot(columns[:, None] - landmarks[:, 0], rows[:, None] - landmarks[:, 1])
    assert nearest.min(axis=1).max() < 5
    assert (after[200, 230] > 240).all()
    assert (nearest.min(axis=0) < 1).all()
    small = Annotation((200, 150, 30, 35), "fear", 1.0, 0.5, False, {}, landmarks=landmarks)
    assert (draw_faces(grey(640, 480), [small])[255:, :] == 128).all()


def place_of_panel(result: np.ndarray, box: tuple[float, float, float, float]) -> str:
    """Tell on which side of the box the translucent panel lies, from the pixels."""
    middle = round(box[1] + box[3] / 2)
    x = round(box[0])
    left, right = result[middle, max(x - 40, 0), 0], result[middle, min(x + round(box[2]) + 40, 639), 0]
    return "left" if left != 128 else "right" if right != 128 else "none"


def test_the_panel_stays_on_its_side_while_the_face_trembles_at_the_limit() -> None:
    def side(x: float, placement: Placement | None = None) -> str:
        box = (x, 150.0, 120.0, 140.0)
        face = Annotation(box, "fear", 1.0, 0.5, False, PROBABILITIES, track=7)
        return place_of_panel(draw_faces(grey(640, 480), [face], placement), box)

    limit = max(x for x in range(300, 420) if side(x) == "right")  # further right it fits on the left only
    trembling = (limit + np.random.default_rng(0).uniform(-3, 3, 60)).tolist()
    jumpy = [side(x) for x in trembling]
    placement = Placement()
    steady = [side(x, placement) for x in trembling]
    assert sum(a != b for a, b in pairwise(jumpy)) > 10
    assert sum(a != b for a, b in pairwise(steady)) <= 1
    assert "none" not in steady


def test_a_panel_without_room_does_not_flicker() -> None:
    def there(width: float, placement: Placement | None = None) -> bool:
        face = Annotation((10.0, 20.0, width, 440.0), "fear", 1.0, 0.5, False, PROBABILITIES, track=7)
        result = draw_faces(grey(640, 480), [face], placement)
        return bool((result[:, round(10 + width) + 12 :] != 128).any())

    limit = max(width for width in range(300, 520) if there(width))
    trembling = (limit + np.random.default_rng(0).uniform(-3, 3, 60)).tolist()
    placement = Placement()
    assert sum(a != b for a, b in pairwise([there(width) for width in trembling])) > 10
    assert sum(a != b for a, b in pairwise([there(width, placement) for width in trembling])) <= 1
    assert there(limit - 40, placement)  # with room to spare it comes back


def test_two_crossing_faces_change_sides_rarely_and_no_panel_covers_a_face() -> None:
    placement = Placement()
    sides: dict[int, list[str | None]] = {1: [], 2: []}
    rng = np.random.default_rng(1)
    for step in range(120):
        shift = 3.2 * step
        boxes = [(60 + shift, 150.0, 90.0, 100.0), (480 - shift, 190.0, 96.0, 110.0)]
        boxes = [(x + float(rng.normal(0, 1.5)), y, w, h) for x, y, w, h in boxes]
        order = [0, 1] if step % 2 else [1, 0]  # the largest first: near equal faces swap all the time
        faces = [Annotation(boxes[i], "fear", 1.0, 0.5, False, PROBABILITIES, track=i + 1) for i in order]
        subjects = [draw._subject(face, (640, 480)) for face in faces]
        spots = placement.arrange((640, 480), subjects)
        plates = [spot.rectangle for pair in spots for spot in pair if spot is not None]
        for i, (left, top, right, bottom) in enumerate(plates):
            assert left >= 0 and top >= 0 and right <= 640 and bottom <= 480
            for other in plates[i + 1 :]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
        for subject, (_, panel) in zip(subjects, spots, strict=True):
            assert subject.track is not None
            sides[subject.track].append(None if panel is None else panel.side)
    for seen in sides.values():  # they meet, pass and part: sides have to change, one by one
        assert sum(a != b for a, b in pairwise(seen)) <= 6
        assert seen.count(None) < 60


def test_a_placement_forgets_old_tracks() -> None:
    placement = Placement()
    for track in range(2000):
        face = Annotation((200, 150, 120, 140), "fear", 1.0, 0.5, False, PROBABILITIES, track=track)
        placement.arrange((640, 480), [draw._subject(face, (640, 480))])
    assert len(placement._labels) <= 256
    assert len(placement._panels) <= 256


def test_plates_of_a_crowd_cover_no_other_plate() -> None:
    faces = [
        Annotation(
            (40 + 45 * (i % 12), 60 + 50 * (i // 12), 22, 26), "happiness", 0.8, 0.5, False, {}, track=i + 1
        )
        for i in range(60)
    ]
    spots = Placement().arrange((640, 480), [draw._subject(face, (640, 480)) for face in faces])
    covered = np.zeros((480, 640), int)
    for label, _ in spots:
        if label is not None:
            left, top, right, bottom = label.rectangle
            covered[top:bottom, left:right] += 1
    assert covered.max() == 1
    assert sum(label is not None for label, _ in spots) >= 12


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


def test_letters_that_are_kept_take_little_memory() -> None:
    mask, _, _ = canvas._letters("unsure: happiness 100%", 98, "lm")  # the largest text at 4K
    most = canvas._letters.cache_info().maxsize
    assert most is not None and most * mask.nbytes < 32e6


@pytest.mark.parametrize(("box", "side"), [((60, 150, 120, 140), "right"), ((480, 150, 120, 140), "left")])
def test_a_panel_is_joined_to_its_face(box: tuple[float, float, float, float], side: str) -> None:
    drawn = draw_faces(grey(640, 480), [annotation(box)])
    yellow = (drawn == np.array(label_colour("happiness"), np.uint8)).all(axis=2)
    x, y, width, _ = (int(value) for value in box)
    outside = range(x + width + 1, 640) if side == "right" else range(x - 2, -1, -1)
    row = yellow[y + 2]
    length = next(number for number, column in enumerate(outside) if not row[column])
    assert length >= 4  # the bridge from the box, and the panel's edge behind it
    edge = outside[length - 1]
    assert yellow[y + 10 : y + 100, edge].all()
