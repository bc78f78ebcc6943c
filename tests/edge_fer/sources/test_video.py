"""Video files made here: every frame by its painted number, with the times that were written."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_fer.errors import InputError, UsageError
from edge_fer.sources import Frame, Selection, Source, resolve
from edge_fer.sources import opencv as sources_opencv
from tests.edge_fer.sources.painted import (
    HEIGHT,
    WIDTH,
    number_in,
    paint,
    read_all,
    turned,
    with_durations,
    write_video,
)

# Milliseconds-exact and odd ones: 1/30 s, 1/60 s, 0.1 s, 0.2 s, 1/128 s.
DURATIONS = np.random.default_rng(5).choice([512, 256, 1536, 3072, 120], 60).tolist()


def open_video(path: Path, **selection: object) -> Source:
    (plan,) = resolve([str(path)])
    assert plan.kind == "video" and plan.paths == (path,)
    return plan.open(Selection(**selection), threading.Event())  # type: ignore[arg-type]


def numbers(frames: list[Frame]) -> list[int]:
    return [number_in(frame.image) for frame in frames]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", 60)


@pytest.fixture(scope="module")
def variable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    path = write_video(tmp_path_factory.mktemp("video") / "variable.mp4", 60)
    return path, with_durations(path, DURATIONS)


@pytest.mark.parametrize(
    ("name", "code"),
    [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("b.avi", "XVID"), ("a.mkv", "MJPG"), ("a.mov", "mp4v")],
)
def test_every_frame_is_given_in_order(tmp_path: Path, name: str, code: str) -> None:
    path = write_video(tmp_path / name, 40, code)
    before = time.monotonic()
    with_source = open_video(path)
    frames = read_all(with_source)
    assert numbers(frames) == [frame.index for frame in frames] == list(range(40))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(40) / 30, atol=6e-4)
    assert {frame.source for frame in frames} == {str(path)}
    assert all(before <= frame.captured <= time.monotonic() and frame.decode_ms > 0 for frame in frames)
    assert with_source.frames == 40 and with_source.fps == 30 and with_source.dropped == 0
    assert with_source.read() is None


def test_pixels_are_right_owned_and_contiguous(clip: Path) -> None:
    frames = read_all(open_video(clip, max_frames=3))
    for number, frame in enumerate(frames):
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous and frame.image.flags.writeable
        assert np.abs(frame.image.astype(int) - paint(number)).mean() < 8
    kept = frames[0].image.copy()
    frames[1].image[:] = 0
    np.testing.assert_array_equal(frames[0].image, kept)


def test_variable_frame_rate_is_kept(variable: tuple[Path, list[float]]) -> None:
    path, times = variable
    frames = read_all(open_video(path))
    assert numbers(frames) == list(range(60))
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=1e-6)


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(1.0, 3.0), (0.05, 0.4), (2.9, None), (None, 2.5), (0.0, 99.0)]
)
def test_start_and_end_are_exact_to_the_frame(
    variable: tuple[Path, list[float]], start_s: float | None, end_s: float | None
) -> None:
    path, times = variable
    frames = read_all(open_video(path, start_s=start_s, end_s=end_s))
    wanted = [i for i, t in enumerate(times) if (start_s or 0) <= t < (end_s or 1e9)]
    assert wanted
    assert numbers(frames) == [frame.index for frame in frames] == wanted


def test_a_start_behind_the_end_of_the_file_gives_nothing(clip: Path) -> None:
    source = open_video(clip, start_s=60.0)
    assert read_all(source) == [] and source.frames == 0 and source.dropped == 0


def test_every_counts_from_the_first_frame_wanted(clip: Path) -> None:
    source = open_video(clip, every=7)
    assert numbers(read_all(source)) == list(range(0, 60, 7))
    assert source.frames == 9 and source.fps == pytest.approx(30 / 7)
    assert numbers(read_all(open_video(clip, every=7, start_s=1 / 3))) == list(range(10, 60, 7))


def test_fps_thins_out_by_time(clip: Path, variable: tuple[Path, list[float]]) -> None:
    source = open_video(clip, fps=10)
    assert numbers(read_all(source)) == list(range(0, 60, 3))
    assert source.frames == 20 and source.fps == 10
    path, times = variable
    given = read_all(open_video(path, fps=5))
    periods = [int((times[frame.index or 0] + 1e-3) * 5) for frame in given]
    assert periods == sorted({int((t + 1e-3) * 5) for t in times}), "one frame of each fifth of a second"
    assert numbers(read_all(open_video(clip, fps=100))) == list(range(60)), "none is made up"


def test_rounded_times_do_not_disturb_the_thinning(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 60, "MJPG")  # frame 4 is due at 133.3 ms and says 133
    assert numbers(read_all(open_video(path, fps=15))) == list(range(0, 60, 2))


def test_max_frames_counts_given_frames(clip: Path) -> None:
    source = open_video(clip, every=10, max_frames=3)
    assert source.frames == 3
    assert numbers(read_all(source)) == [0, 10, 20]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_honoured(tmp_path: Path, degrees: int) -> None:
    path = turned(write_video(tmp_path / "phone.mp4", 3), degrees)
    frame = open_video(path).read()
    assert frame is not None
    back = np.rot90(frame.image, degrees // 90)  # np.rot90 turns against the clock
    assert back.shape == (HEIGHT, WIDTH, 3) and number_in(back) == 0
    assert np.abs(back.astype(int) - paint(0)).mean() < 8


def test_damaged_frames_are_left_out_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(write_video(tmp_path / "a.mkv", 40, "MJPG").read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 40
    for number in (11, 12, 30):  # without its tables FFmpeg gives up on a frame
        data[starts[number] + 2 : starts[number] + 300] = bytes(298)
    path = tmp_path / "broken.mkv"
    path.write_bytes(data)
    source = open_video(path)
    frames = read_all(source)
    wanted = [number for number in range(40) if number not in (11, 12, 30)]
    assert numbers(frames) == [frame.index for frame in frames] == wanted
    np.testing.assert_allclose([frame.time_s for frame in frames], np.array(wanted) / 30, atol=6e-4)
    assert source.dropped == 3
    assert capfd.readouterr().err == f"note: {path}: 3 damaged frames were left out\n"


def test_what_is_left_of_a_cut_off_video_is_given(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a.avi", 90, "MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    source = open_video(path)
    given = numbers(read_all(source))
    assert given == list(range(len(given))) and 20 < len(given) < 40
    assert len(given) + source.dropped == 90
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and err.startswith(f"note: {path}: it ends at") and "3.0 s" in err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello " * 500, "expected a video"),
        (bytes(5000), "expected a video"),
        (None, "cut"),
    ],
)
def test_what_is_no_video_is_one_line(
    tmp_path: Path, clip: Path, content: bytes | None, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.mp4"
    cut_off = clip.read_bytes()[:4000]  # the table of contents stands at the end
    path.write_bytes(cut_off if content is None else content)
    with pytest.raises(
        InputError, match=f"^{path}: .*{'expected a video' if content is None else reason}"
    ) as error:
        open_video(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_frames_of_an_absurd_size_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_opencv, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(InputError, match=f"frames of {WIDTH}x{HEIGHT}"):
        open_video(clip)


def test_stop_and_close_end_reading(clip: Path) -> None:
    (plan,) = resolve([str(clip)])
    stop = threading.Event()
    source = plan.open(Selection(), stop)
    assert source.read() is not None
    stop.set()
    assert source.read() is None
    source = open_video(clip)
    closer = threading.Thread(target=source.close)
    assert source.read() is not None
    closer.start()
    closer.join()
    source.close()
    assert source.read() is None


def test_closing_under_a_running_read_is_safe(clip: Path) -> None:
    for _ in range(20):
        source = open_video(clip, every=1000)
        reader = threading.Thread(target=read_all, args=(source,))
        reader.start()
        source.close()
        reader.join(5)
        assert not reader.is_alive()


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"every": 0}, "--every"),
        ({"fps": 0.0}, "--fps"),
        ({"fps": float("nan")}, "--fps"),
        ({"fps": 5.0, "every": 2}, "--every and --fps"),
        ({"start_s": -1.0}, "--start"),
        ({"end_s": float("inf")}, "--end"),
        ({"start_s": 3.0, "end_s": 3.0}, "--end"),
        ({"end_s": 0.0}, "--end"),
        ({"max_frames": 0}, "--max-frames"),
    ],
)
def test_a_senseless_selection_is_wrong_usage(values: dict[str, float], option: str) -> None:
    with pytest.raises(UsageError, match=f"^{option}") as error:
        Selection(**values)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
