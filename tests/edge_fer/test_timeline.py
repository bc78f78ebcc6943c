"""Who showed what when: figures against plain counting, colours at computed places of the picture."""

from __future__ import annotations

import io
import sys
import tracemalloc

import numpy as np
import pytest

from edge_fer import tables
from edge_fer.draw import label_colour
from edge_fer.labels import LABELS
from edge_fer.timeline import STEPS, TRACKS, UNSURE, Timeline, TimelineFace, clock
from edge_fer.timeline_plot import GROUND, HATCHING, ROWS, Layout

FPS = 25.0


def face(track: int, label: str | None, reliability: float = 0.5) -> TimelineFace:
    probabilities = dict.fromkeys(LABELS, 0.0) | {label or "neutral": 1.0}
    return TimelineFace(track, label, probabilities, reliability)


def two_people(start_s: float = 0.0) -> Timeline:
    """Return 20 s: #1 neutral, from 10 s happy; #2 from 4 s angry, from 8 s unsure, 12 s gone, 16 s sad."""
    timeline = Timeline("meeting.mp4", LABELS)
    for number in range(500):
        time_s = number / FPS
        faces = [face(1, "neutral" if time_s < 10 else "happiness", 0.25 if time_s < 10 else 0.75)]
        if 4 <= time_s < 12:
            faces.append(face(2, "anger" if time_s < 8 else None))
        elif time_s >= 16:
            faces.append(face(2, "sadness"))
        timeline.add(start_s + time_s, faces)
    return timeline


def test_people_of_a_film() -> None:
    first, second = two_people().people()
    assert (first.track, first.first_s, first.last_s, first.frames) == (1, 0, 19.96, 500)
    assert first.shares == pytest.approx({"neutral": 0.5, "happiness": 0.5}, abs=1e-5)
    assert first.reliability == pytest.approx(0.5)
    assert first.abstained == 0
    assert (second.track, second.first_s, second.last_s, second.frames) == (2, 4, 19.96, 300)
    assert second.shares == pytest.approx({"anger": 1 / 3, "sadness": 1 / 3}, abs=1e-5)
    assert second.abstained == pytest.approx(1 / 3, abs=1e-5)
    assert second.probabilities == pytest.approx(
        dict.fromkeys(LABELS, 0.0) | {"anger": 1 / 3, "neutral": 1 / 3, "sadness": 1 / 3}
    )


def test_the_strip_of_a_person_is_in_equal_parts_of_the_whole_time() -> None:
    timeline = two_people(start_s=60)
    assert timeline.span == pytest.approx((60, 80))
    assert timeline.strip(1, 4) == ["neutral", "neutral", "happiness", "happiness"]
    assert timeline.strip(2, 5) == [None, "anger", UNSURE, None, "sadness"]


def test_bands_hold_label_and_reliability() -> None:
    shown, reliability = two_people().bands(1, 100)
    assert shown.tolist() == [0] * 50 + [1] * 50
    np.testing.assert_allclose(reliability, [0.25] * 50 + [0.75] * 50, atol=1e-5)
    shown, reliability = two_people().bands(2, 20)
    assert shown.tolist() == [-1] * 4 + [4] * 4 + [8] * 4 + [-1] * 4 + [3] * 4
    assert np.isnan(reliability).tolist() == [value < 0 for value in shown]


@pytest.mark.parametrize("hours", [0.01, 2.0, 400.0])
def test_shares_of_any_length_agree_with_counting(hours: float) -> None:
    rng = np.random.default_rng(int(hours))
    steps = rng.uniform(0.2, 1.8, 4000)
    times = np.cumsum(steps) * hours * 3600 / steps.sum()
    held = np.minimum(np.append(np.diff(times), times[-1] - times[-2]), 2.0)
    labels = np.repeat(rng.integers(0, 9, 40), 100)
    present = np.repeat(rng.random(40) < 0.7, 100)
    timeline = Timeline("long", LABELS)
    for time_s, label, there in zip(times.tolist(), labels.tolist(), present.tolist(), strict=True):
        timeline.add(time_s, [face(7, LABELS[label] if label < 8 else None)] if there else [])
    (person,) = timeline.people()
    assert person.frames == present.sum()
    whole = held[present].sum()
    for index, name in enumerate(LABELS):
        expected = held[present & (labels == index)].sum() / whole
        assert person.shares.get(name, 0.0) == pytest.approx(expected, abs=1e-4)
    assert person.abstained == pytest.approx(held[present & (labels == 8)].sum() / whole, abs=1e-4)
    assert list(person.shares.values()) == sorted(person.shares.values(), reverse=True)
    # Long stretches stand where they were.
    strip = timeline.strip(7, 40)
    middles = times[0] + (np.arange(40) + 0.5) / 40 * (times[-1] + held[-1] - times[0])
    for cell, middle in zip(strip, middles, strict=True):
        near = np.searchsorted(times, middle)
        window = slice(max(near - 45, 0), near + 45)
        if len(set(labels[window])) == 1 and present[window].all():
            label = labels[window][0]
            assert cell == (LABELS[label] if label < 8 else UNSURE)


def test_a_lost_source_leaves_a_gap() -> None:
    timeline = Timeline("camera:0", LABELS)
    for time_s in (0.0, 0.5, 1.0, 61.0, 61.5):
        timeline.add(time_s, [face(1, "fear")])
    strip = timeline.strip(1, 62)
    assert strip[:3] == ["fear"] * 3
    assert strip[4:60] == [None] * 56
    assert strip[-1] == "fear"


def test_time_that_goes_back_is_harmless() -> None:
    timeline = Timeline("camera:0", LABELS)
    for time_s in (10.0, 10.5, 0.0, 11.0):
        timeline.add(time_s, [face(1, "fear")])
    (person,) = timeline.people()
    assert (person.first_s, person.last_s, person.frames) == (10.0, 11.0, 4)
    assert person.shares == {"fear": 1.0}


def test_one_frame_and_none() -> None:
    timeline = Timeline("photo.mp4", LABELS)
    assert timeline.people() == []
    assert timeline.draw().shape[1] == 1280
    timeline.add(3.0, [face(1, "fear")])
    (person,) = timeline.people()
    assert person.shares == {"fear": 1.0}
    assert timeline.strip(1, 4) == ["fear"] * 4
    timeline.draw()


def test_asking_changes_nothing() -> None:
    timeline = two_people()
    before = timeline.people()
    timeline.draw()
    timeline.strip(2, 9)
    assert timeline.people() == before


def test_memory_is_bounded_over_weeks() -> None:
    timeline = Timeline("camera:0", LABELS)

    def run(begin: int, end: int) -> None:
        for number in range(begin, end):
            faces = [face(number // 10 + i, LABELS[number % 8]) for i in range(3)]
            timeline.add(number * 240.0, faces)  # a frame in four minutes, somebody new every ten

    run(0, 3000)
    tracemalloc.start()
    run(3000, 5000)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # Every record is replaced meanwhile, traced or not: what is held now is at most what 200 take.
    assert grown < TRACKS * STEPS * (len(LABELS) + 2) * 4 * 1.1
    assert len(timeline.people()) == TRACKS
    assert len(timeline.people()) + timeline.more == 5000 // 10 + 2


def test_those_seen_longest_are_kept_and_newcomers_too() -> None:
    timeline = Timeline("camera:0", LABELS)
    for number in range(600):
        long = [face(1, "fear")] if number < 300 else []
        timeline.add(number * 0.1, [*long, face(number + 2, "anger")])
    tracks = {person.track for person in timeline.people()}
    assert len(tracks) == TRACKS
    assert {1, 601} <= tracks


def test_the_picture_shows_the_labels_colours_at_their_times() -> None:
    timeline = two_people(start_s=60)
    picture = timeline.draw(1280)
    layout = Layout.of(1280, 2)
    assert picture.shape[1:] == (1280, 3)

    def at(time_s: float, row: int, share: float = 0.9) -> tuple[int, ...]:
        y = layout.top + row * layout.pitch + round(share * layout.band)
        return tuple(picture[y, round(layout.x(60 + time_s, (60, 80)))].tolist())

    for time_s, label in (
        (0.1, "neutral"),
        (5, "neutral"),
        (9.95, "neutral"),
        (10.05, "happiness"),
        (19.9, "happiness"),
    ):
        assert at(time_s, 0) == label_colour(label)
    for time_s, label in ((4.05, "anger"), (7.95, "anger"), (16.05, "sadness"), (19.9, "sadness")):
        assert at(time_s, 1) == label_colour(label)
    assert {at(8.1 + 0.02 * i, 1) for i in range(180)} == set(HATCHING)
    for time_s in (0.1, 3.95, 12.1, 14, 15.9):
        assert at(time_s, 1) not in {label_colour(label) for label in (*LABELS, None)}


def test_the_reliability_line_stands_at_its_height() -> None:
    picture = two_people().draw(1280)
    layout = Layout.of(1280, 2)
    top = layout.top + layout.band + 2
    for time_s, value in ((5.0, 0.25), (15.0, 0.75)):
        column = picture[top : top + layout.line, round(layout.x(time_s, (0, 20)))].max(axis=1).astype(int)
        expected = (1 - value) * (layout.line - 1)
        assert int(column.argmax()) == pytest.approx(expected, abs=1.5)
        assert column.max() > 150


def test_the_legend_names_what_occurs_and_nothing_else() -> None:
    picture = two_people().draw(1280)
    layout = Layout.of(1280, 2)
    below = picture[layout.top + 2 * layout.pitch :]
    for label in LABELS:
        occurs = label in {"neutral", "happiness", "anger", "sadness"}
        assert (below == label_colour(label)).all(axis=2).any() == occurs
    assert (below == HATCHING[0]).all(axis=2).any()


@pytest.mark.parametrize("people", [1, 2, 8, 40])
@pytest.mark.parametrize("width", [640, 1280, 2560])
def test_pictures_of_many_people_stay_low(people: int, width: int) -> None:
    timeline = Timeline("/a/very/long/path/" * 12 + "film.mp4", LABELS)
    for number in range(200):
        timeline.add(number * 0.5, [face(i + 1, LABELS[(number // 9 + i) % 8]) for i in range(people)])
    picture = timeline.draw(width)
    assert picture.shape[1] == width
    assert picture.shape[0] < 0.9 * width
    rows = min(people, ROWS)
    layout = Layout.of(width, rows)
    # The rows are drawn, nothing is drawn right of them, and the title leaves its line's end free.
    for row in range(rows):
        assert tuple(picture[layout.top + row * layout.pitch + 2, layout.right - 3].tolist()) != GROUND
    assert (picture[: layout.top, -6:] == GROUND).all()


def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_fer import canvas

    texts: list[str] = []
    real = canvas.write
    monkeypatch.setattr(
        canvas,
        "write",
        lambda pixels, at, text, *a, **k: (texts.append(text), real(pixels, at, text, *a, **k)),
    )
    timeline = Timeline("street.mp4", LABELS)
    for number in range(100):
        timeline.add(number / 25, [face(i + 1, "fear") for i in range(20) if number >= i])
    timeline.draw()
    assert "and 4 more, seen more briefly" in texts
    assert [f"#{i + 1}" for i in range(16)] == [text for text in texts if text.startswith("#")]
    assert "street.mp4" in texts
    assert {"0:00.0", "0:04.0"} <= set(texts)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.99, "0:59"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"), (360_061, "100:01:01")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_table_of_people_has_letters_when_piped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_STRIP_CELLS", 20)
    tables.print_people(two_people())
    text = capsys.readouterr().err
    assert "\x1b" not in text
    first, second = (line for line in text.splitlines() if "#" in line)
    for cell in ("#1", "0:00", "0:19", "500", "neutral (50%)", "0.50", "0%", "n" * 10 + "h" * 10):
        assert f" {cell} " in first
    for cell in ("#2", "0:04", "300", "33%", "." * 4 + "a" * 4 + "?" * 4 + "." * 4 + "s" * 4):
        assert f" {cell} " in second
    assert "n neutral, h happiness, s sadness, a anger" in text


def test_the_table_of_people_has_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("NO_COLOR", raising=False)
    tables.print_people(two_people())
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    for label in ("neutral", "happiness", "anger", "sadness", None):
        red, green, blue = label_colour(label)
        assert f"48;2;{red};{green};{blue}m" in text
    red, green, blue = label_colour("disgust")
    assert f"48;2;{red};{green};{blue}m" not in text
