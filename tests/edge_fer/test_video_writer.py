"""Videos that are written: read back, frames stand at the right time, and nothing is left of a failure."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fer import video_writer
from edge_fer.errors import InputError
from edge_fer.video_writer import VideoWriter

ROOT = Path(__file__).resolve().parents[2]


def flat(level: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def read(path: Path) -> tuple[list[np.ndarray], float]:
    """Return a video's frames (RGB) and its frames per second."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames.append(frame[..., ::-1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def levels(path: Path) -> list[int]:
    """Return which of the levels 0, 50, 100 ... each frame of a video shows."""
    return [50 * round(float(frame.mean()) / 50) for frame in read(path)[0]]


@pytest.mark.parametrize("name", ["film.mp4", "film.avi", "FILM.MP4"])
def test_frames_come_back_in_order_colour_and_time(tmp_path: Path, name: str) -> None:
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200)] * 8
    with VideoWriter(tmp_path / name, (64, 48), 12.5) as video:
        for number, colour in enumerate(colours):
            video.write(np.tile(np.uint8(colour), (48, 64, 1)), number / 12.5)
    frames, fps = read(tmp_path / name)
    assert fps == 12.5
    assert len(frames) == len(colours)
    for frame, colour in zip(frames, colours, strict=True):
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), colour, atol=12)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_quality_keeps_a_photo(tmp_path: Path) -> None:
    photo = cv2.resize(cv2.imread(str(ROOT / "examples/astronaut.jpg")), (320, 240))[..., ::-1].copy()
    with VideoWriter(tmp_path / "film.mp4", (320, 240), 25) as video:
        for number in range(20):
            video.write(np.roll(photo, 3 * number, axis=1), number / 25)
    for number, frame in enumerate(read(tmp_path / "film.mp4")[0]):
        error = np.mean((frame.astype(float) - np.roll(photo, 3 * number, axis=1)) ** 2)
        assert 10 * np.log10(255**2 / error) > 27


def test_slow_and_uneven_sources_keep_their_time(tmp_path: Path) -> None:
    # At 10 frames per second: shown at 0, 0.1, 0.2-0.6, 0.7-1.0; the last one for one frame.
    times = {0: 7.0, 50: 7.1, 100: 7.2, 150: 7.74, 200: 8.1}
    with VideoWriter(tmp_path / "film.mp4", (64, 48), 10) as video:
        for level, time_s in times.items():
            video.write(flat(level), time_s)
    assert levels(tmp_path / "film.mp4") == [0, 50] + [100] * 5 + [150] * 4 + [200]


def test_every_output_frame_shows_the_newest_frame_of_its_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.005, 0.12, 120))
    shown = rng.integers(0, 6, 120) * 50
    with VideoWriter(tmp_path / "film.mp4", (64, 48), 25) as video:
        for level, time_s in zip(shown.tolist(), times.tolist(), strict=True):
            video.write(flat(level), time_s)
    # Independently: frame n of the file shows the last picture whose time, rounded to frames, is not after n.
    slots = np.floor((times - times[0]) * 25 + 0.5)
    expected = [int(shown[np.flatnonzero(slots <= n)[-1]]) for n in range(int(slots[-1]) + 1)]
    assert levels(tmp_path / "film.mp4") == expected
    assert video.frames == len(expected)
    assert abs(len(expected) / 25 - (times[-1] - times[0])) < 0.05


def test_fast_sources_lose_frames_and_no_time(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", (64, 48), 20) as video:
        for number in range(100):
            video.write(flat(50 * (number // 20)), number / 100)
    seen = levels(tmp_path / "film.mp4")
    assert len(seen) == 21  # 0.99 s, rounded to the next twentieth, and that frame itself
    assert [seen[n] for n in (1, 5, 9, 13, 17)] == [0, 50, 100, 150, 200]


@pytest.mark.parametrize("wrong", [-3.0, 1e9])
def test_wrong_times_count_as_the_next_frame(tmp_path: Path, wrong: float) -> None:
    with VideoWriter(tmp_path / "film.mp4", (64, 48), 10) as video:
        for level, time_s in ((0, 5.0), (50, 5.1), (100, wrong), (150, wrong + 0.1), (200, wrong + 0.2)):
            video.write(flat(level), time_s)
    seen = levels(tmp_path / "film.mp4")
    assert seen[:3] == [0, 50, 100]
    assert seen[-1] == 200
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (29.97002997, 29.97),
        (None, 30),
        (0, 30),
        (-1, 30),
        (1000, 30),
        (float("nan"), 30),
        (0.1, 1),
        (119.88, 119.88),
    ],
)
def test_rates(tmp_path: Path, given: float | None, expected: float) -> None:
    with VideoWriter(tmp_path / "film.mp4", (64, 48), given) as video:
        video.write(flat(100), 0)
    assert video.fps == expected
    assert read(tmp_path / "film.mp4")[1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(65, 49), (64, 49), (65, 48), (17, 15)])
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_odd_sizes_get_one_more_column_or_row(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    width, height = size
    image = flat(60, width, height)
    image[:, -1] = image[-1] = 220
    with VideoWriter(tmp_path / f"film{suffix}", size, 10) as video:
        for number in range(3):
            video.write(image, number / 10)
    for frame in read(tmp_path / f"film{suffix}")[0]:
        assert frame.shape == (height + height % 2, width + width % 2, 3)
        assert frame[:, -1].mean() == pytest.approx(220, abs=15)
        assert frame[: height - 4, : width - 4].mean() == pytest.approx(60, abs=10)


def test_the_picture_may_be_changed_after_it_was_written(tmp_path: Path) -> None:
    image = flat(200)
    with VideoWriter(tmp_path / "film.mp4", (64, 48), 10) as video:
        for number in range(4):
            image[:] = 50 * number
            video.write(image, number / 10)
            image[:] = 250
    assert levels(tmp_path / "film.mp4") == [0, 50, 100, 150]


def test_frames_of_another_size_are_scaled(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", (64, 48), 10) as video:
        video.write(flat(50), 0)
        video.write(flat(150, 128, 96), 0.1)
    assert levels(tmp_path / "film.mp4") == [50, 150]


def test_closing_in_the_middle_gives_a_whole_film_and_doing_it_again_is_harmless(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "new" / "film.mp4", (64, 48), 10)
    video.write(flat(50), 0)
    video.write(flat(100), 0.1)
    assert not (tmp_path / "new" / "film.mp4").exists()
    video.close()
    video.close()
    video.discard()
    assert levels(tmp_path / "new" / "film.mp4") == [50, 100]


def test_closing_thousands_of_frames_takes_no_time(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "film.mp4", (64, 48), 100)
    for number in range(5000):
        video.write(flat(number % 200), number / 100)
    started = time.perf_counter()
    video.close()
    assert time.perf_counter() - started < 0.5
    assert cv2.VideoCapture(str(tmp_path / "film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5000


def test_nothing_is_left_of_a_failed_block_and_the_old_file_stays(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("old")
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "film.mp4", (64, 48), 10) as video:
        video.write(flat(50), 0)
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert (tmp_path / "film.mp4").read_text() == "old"


def test_no_frame_no_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", (64, 48), 10):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["taken/film.mp4", "film.mkv", "film", "folder.mp4"])
def test_unusable_places_are_refused_in_one_line(
    tmp_path: Path, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder.mp4").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=Path(place).name) as caught:
        VideoWriter(tmp_path / place, (64, 48), 10)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert capfd.readouterr().err == ""


def test_a_missing_codec_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(video_writer.CODECS, ".mp4", "XYZW")  # OpenCV itself refuses it, in words of its own
    with pytest.raises(InputError, match="XYZW"):
        VideoWriter(tmp_path / "film.mp4", (64, 48), 10)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


FULL = """
import resource, sys
import numpy as np
from pathlib import Path
from edge_fer.errors import InputError
from edge_fer.video_writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
noise = np.random.default_rng(0)
try:
    with VideoWriter(Path(sys.argv[1]), (320, 240), 30) as video:
        for number in range(40):
            video.write(noise.integers(0, 255, (240, 320, 3), dtype=np.uint8), number / 30)
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["film.mp4", "film.avi"])
def test_a_file_that_cannot_grow_is_found_out_and_removed(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "expected a video of 40 frames" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_ends_the_film_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_writer, "_SPARE_BYTES", 10**18)  # what is free here is too little
    with (
        pytest.raises(InputError, match="the video ends after 1 s"),
        VideoWriter(tmp_path / "film.mp4", (64, 48), 30) as video,
    ):
        for number in range(100):
            video.write(flat(100), number / 30)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert len(levels(tmp_path / "film.mp4")) == video.frames == 31


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to tell what is resident")
def test_memory_and_descriptors_stay_flat(tmp_path: Path) -> None:
    def held() -> tuple[int, int]:
        # Not ru_maxrss: the highest ever, which an earlier test of this process set.
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize(), len(list(Path("/proc/self/fd").iterdir()))

    with VideoWriter(tmp_path / "film.mp4", (320, 240), 30) as video:
        image = flat(100, 320, 240)
        for number in range(200):
            video.write(image, number / 30)
        memory, files = held()
        for number in range(200, 1500):
            video.write(image, number / 30)
        more, as_many = held()
    assert more - memory < 5_000_000
    assert as_many == files
