"""Where each face's label and distribution go in a picture. Knows rectangles and texts, no pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edge_fer.canvas import Rectangle, text_width

Side = Literal["above", "below", "inside", "right", "left"]

SMALLEST_FONT = 7
_SMALLEST_PANEL_FONT = 10
_PANELS = 8  # faces with a distribution, the first ones; a crowd of panels is read by nobody
_STEP = 0.9  # from one font size that is tried to the next
_KEPT = 1.25  # a size that was chosen is kept while the face grows or shrinks by less than this
_REMEMBERED = 256  # tracks; more than ever stand in one picture
_LABEL_SIDES: tuple[Side, ...] = ("above", "below", "inside")
_PANEL_SIDES: tuple[Side, ...] = ("right", "left", "below")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What wants room in the picture.

    Attributes:
        box: the face.
        texts: what its plate may say, the fullest first.
        chip: what stands before the text in a field of its own; "" for nothing.
        names: the rows of its distribution, without the reliability.
        track: its track; None: nothing is remembered of it.
    """

    box: Rectangle
    texts: tuple[str, ...]
    chip: str
    names: tuple[str, ...]
    track: int | None


@dataclass(frozen=True, slots=True)
class Spot:
    """A place that was found: rectangle, side of the face, font size and, on a plate, its text."""

    rectangle: Rectangle
    side: Side
    size: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Choice:
    side: Side
    size: int
    wanted: int
    form: int = 0  # which of the texts

    def holds(self, wanted: int) -> bool:
        return self.wanted / _KEPT <= wanted <= self.wanted * _KEPT


class Placement:
    """Finds the places; for a video, one object for all its frames.

    It remembers each track's sides and sizes: a face that moves keeps its distribution on one side until
    there is no room for it any more, and what comes back or changes sides must find some room to spare, so
    that nothing flickers to and fro at the limit.
    """

    def __init__(self) -> None:
        self._labels: dict[int, _Choice | None] = {}  # None: the last time there was no room
        self._panels: dict[int, _Choice | None] = {}

    def arrange(
        self, picture: tuple[int, int], subjects: Sequence[Subject]
    ) -> list[tuple[Spot | None, Spot | None]]:
        """Return the plate and the panel of each face; None where there is no room.

        Args:
            picture: width, height.
            subjects: the faces, the most important first.
        """
        room = _Room(picture, [subject.box for subject in subjects])
        everyone = range(len(subjects))
        # Who has a place already keeps it: the newcomer goes elsewhere.
        labels = {
            i: self._label(room, i, subjects[i])
            for i in sorted(everyone, key=lambda i: self._labels.get(subjects[i].track or 0) is None)
        }
        panels = {
            i: self._panel(room, i, subjects[i], labels[i])
            for i in sorted(
                everyone[:_PANELS], key=lambda i: self._panels.get(subjects[i].track or 0) is None
            )
        }
        return [(labels[i], panels.get(i)) for i in everyone]

    def _label(self, room: _Room, owner: int, subject: Subject) -> Spot | None:
        wanted = font_size(subject.box, room.picture)
        known = self._labels.get(subject.track or 0)
        size = known.size if known and known.holds(wanted) else wanted
        while size > SMALLEST_FONT and not room.fits(plate_size(subject, subject.texts[0], size)):
            size -= 1
        for form, side, faces_too, spare in _label_tries(known, len(subject.texts)):
            text = subject.texts[min(form, len(subject.texts) - 1)]
            place = _plate(room.picture, subject, side, plate_size(subject, text, size))
            if room.free(place, owner, side, faces=faces_too, spare=spare * size):
                room.plates.append((owner, place))
                _remember(self._labels, subject.track, _Choice(side, size, wanted, form))
                return Spot(place, side, size, text)
        return None  # and its old place is the first that is tried next time

    def _panel(self, room: _Room, owner: int, subject: Subject, plate: Spot | None) -> Spot | None:
        smallest = max(_SMALLEST_PANEL_FONT, round(min(room.picture) / 50))
        wanted = max(round(0.8 * font_size(subject.box, room.picture)), smallest)
        known = self._panels.get(subject.track or 0)
        tries = [(known.size, known.side, 0)] if known and known.holds(wanted) else []
        # In the first frame, and in a picture that stands alone, nothing can flicker.
        spare = int(subject.track in self._panels)
        tries += [(size, side, spare * size) for size in _sizes(wanted, smallest) for side in _PANEL_SIDES]
        for size, side, margin in tries:
            place = _beside(room.picture, subject.box, side, size, panel_size(subject.names, size))
            if plate is not None and _overlap(place, plate.rectangle):  # then beside both, box and plate
                around = _around(subject.box, plate.rectangle)
                place = _beside(room.picture, around, side, size, panel_size(subject.names, size))
            if room.free(place, owner, side, faces=True, spare=margin):
                room.plates.append((owner, place))
                _remember(self._panels, subject.track, _Choice(side, size, wanted))
                return Spot(place, side, size)
        _remember(self._panels, subject.track, None)
        return None


def font_size(box: Rectangle, picture: tuple[int, int]) -> int:
    """Return the letters' height: it follows the face, within what can be read at the picture's size."""
    short = min(picture)
    return round(min(max(0.13 * (box[2] - box[0]), short / 36, 12), max(short / 22, 12)))


def plate_size(subject: Subject, text: str, size: int) -> tuple[int, int]:
    """Return width and height of a label's plate."""
    chip = chip_width(subject.chip, size)
    return chip + text_width(text, size) + size, round(1.6 * size)


def chip_width(chip: str, size: int) -> int:
    """Return the width of the field before a label's text."""
    return text_width(chip, size) + size // 2 if chip else 0


def names_width(names: Sequence[str], size: int) -> int:
    """Return the width of the names of a distribution, of its reliability too."""
    return max(text_width(name, size) for name in (*names, "reliability"))


def panel_size(names: Sequence[str], size: int) -> tuple[int, int]:
    """Return width and height of a distribution."""
    return round(names_width(names, size) + 9.6 * size), round((len(names) + 1) * 1.4 * size + 1.5 * size)


@dataclass(slots=True)
class _Room:
    picture: tuple[int, int]
    boxes: list[Rectangle]
    plates: list[tuple[int, Rectangle]] = field(default_factory=list)  # labels and panels, and whose they are

    def fits(self, size: tuple[int, int]) -> bool:
        return size[0] <= self.picture[0] and size[1] <= self.picture[1]

    def free(self, place: Rectangle, owner: int, side: Side, *, faces: bool, spare: int) -> bool:
        """Tell whether a place is in the picture and on no plate, with `spare` pixels around it."""
        left, top, right, bottom = place
        if left < spare * (side == "left") or top < 0:
            return False
        if right + spare * (side == "right") > self.picture[0]:
            return False
        if bottom + spare * (side == "below") > self.picture[1]:
            return False
        wide = (left - spare, top - spare, right + spare, bottom + spare)
        if any(_overlap(place if whose == owner else wide, taken) for whose, taken in self.plates):
            return False
        return not faces or not any(
            _overlap(wide, box) for number, box in enumerate(self.boxes) if number != owner
        )


def _label_tries(known: _Choice | None, forms: int) -> Iterator[tuple[int, Side, bool, int]]:
    """Give (form of the text, side, whether other faces must stay free, spare room), the best first."""
    if known:
        if known.form:
            yield 0, known.side, True, 1
        yield known.form, known.side, False, 0
    for faces_too in (True, False):
        for form in range(forms):
            for side in _LABEL_SIDES:
                yield form, side, faces_too, 0


def _plate(picture: tuple[int, int], subject: Subject, side: Side, size: tuple[int, int]) -> Rectangle:
    width, height = size
    left = max(min(subject.box[0], picture[0] - width), 0)
    top = {"above": subject.box[1] - height, "below": subject.box[3]}.get(
        side, max(min(subject.box[1], picture[1] - height), 0)
    )
    return left, top, left + width, top + height


def _beside(
    picture: tuple[int, int], box: Rectangle, side: Side, size: int, panel: tuple[int, int]
) -> Rectangle:
    width, height = panel
    gap = size // 2
    left, top = box[2] + gap, min(box[1], picture[1] - height)
    if side == "left":
        left = box[0] - gap - width
    elif side == "below":
        left, top = min(box[0], picture[0] - width), box[3] + gap
    return left, top, left + width, top + height


def _around(first: Rectangle, second: Rectangle) -> Rectangle:
    return (
        min(first[0], second[0]),
        min(first[1], second[1]),
        max(first[2], second[2]),
        max(first[3], second[3]),
    )


def _sizes(wanted: int, smallest: int) -> Iterator[int]:
    size = wanted
    while size > smallest:
        yield size
        size = min(size - 1, round(_STEP * size))
    yield smallest


def _remember(memory: dict[int, _Choice | None], track: int | None, choice: _Choice | None) -> None:
    if track is None:
        return
    memory.pop(track, None)  # the oldest stand first
    memory[track] = choice
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]


def _overlap(first: Rectangle, second: Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
