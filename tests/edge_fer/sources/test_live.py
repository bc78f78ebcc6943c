"""Live sources against a camera on loopback that sends at the pace of one, and drops, hangs and stutters."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fer.errors import InputError
from edge_fer.sources import Frame, Selection, Source, live, network, resolve
from tests.edge_fer.sources.mjpeg_camera import MjpegCamera
from tests.edge_fer.sources.painted import number_in, paint, read_all, write_video

Opener = Callable[..., Source]


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    with MjpegCamera() as switched_on:
        yield switched_on


@pytest.fixture
def open_live() -> Iterator[Opener]:
    """Open an address with a selection; closed after the test."""
    opened: list[Source] = []

    def open_address(address: str, stop: threading.Event | None = None, **selection: object) -> Source:
        (plan,) = resolve([address])
        opened.append(plan.open(Selection(**selection), stop or threading.Event()))  # type: ignore[arg-type]
        return opened[-1]

    yield open_address
    for source in opened:
        source.close()


def read(source: Source) -> Frame:
    frame = source.read()
    assert frame is not None
    return frame


def read_past(source: Source, number: int, *, within_s: float) -> Frame:
    """Read until the camera's frames are past this number."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        frame = read(source)
        if number_in(frame.image) > number:
            return frame
    raise AssertionError(f"no frame past {number} within {within_s} s")


def test_a_fast_reader_gets_every_frame(camera: MjpegCamera, open_live: Opener) -> None:
    source = open_live(camera.url)
    assert source.kind == "live" and source.name == camera.url and source.frames is None
    frames = [read(source) for _ in range(25)]
    numbers = [number_in(frame.image) for frame in frames]
    indices = [frame.index or 0 for frame in frames]
    assert np.ptp(np.subtract(numbers, indices)) == 0, "the index counts the camera's frames"
    assert np.mean(np.diff(numbers) == 1) > 0.7, "a busy machine may skip a few"
    # A busy machine hands over what came while it was away at once.
    assert frames[0].time_s is not None and 0 <= frames[0].time_s < 0.5
    steps = np.diff([frame.time_s for frame in frames if frame.time_s is not None])
    assert np.median(steps) == pytest.approx(1 / 30, abs=0.01)
    assert np.abs(frames[3].image.astype(int) - paint(numbers[3])).mean() < 8
    assert frames[0].image is not frames[1].image and frames[0].image.flags.c_contiguous
    assert source.dropped == 0 and source.reopened == 0


@pytest.mark.parametrize("work_s", [0.1, 0.25])
def test_a_slow_reader_gets_the_newest_frame(camera: MjpegCamera, open_live: Opener, work_s: float) -> None:
    source = open_live(camera.url)
    read(source)
    ages, behind, indices = [], [], []
    for _ in range(int(1.8 / work_s)):
        time.sleep(work_s)
        newest = max(camera.sent_at)  # the camera may send another one from here on
        frame = read(source)
        number = number_in(frame.image)
        ages.append(time.monotonic() - camera.sent_at[number])
        behind.append(newest - number)
        indices.append(frame.index)
        assert abs(frame.captured - camera.sent_at[number]) < 0.1
    assert np.median(behind) <= 0, "frames that were sent by then, but not given"
    assert np.median(ages) < 1.5 / 30
    skipped = np.diff(indices)
    assert np.median(skipped) == pytest.approx(work_s * 30, abs=2), "left out frames are counted in the index"
    assert source.dropped == 0, "a frame that the reader was too slow for is not broken"


def test_no_frame_is_given_twice(camera: MjpegCamera, open_live: Opener) -> None:
    camera.fps = 10
    source = open_live(camera.url)
    indices = [read(source).index or 0 for _ in range(10)]
    assert all(later > earlier for earlier, later in itertools.pairwise(indices))


def test_broken_frames_are_counted_and_skipped(camera: MjpegCamera, open_live: Opener) -> None:
    camera.broken = {number for number in range(1000) if number % 5 in (2, 3)}
    source = open_live(camera.url)
    frames = [read(source) for _ in range(12)]
    numbers = np.array([number_in(frame.image) for frame in frames])
    assert not set(numbers.tolist()) & camera.broken
    offsets = numbers - np.array([frame.index for frame in frames])
    assert len(set(offsets.tolist())) == 1, "the index counts broken frames, too"
    broken = sum(numbers[0] < number < numbers[-1] for number in camera.broken)
    assert broken <= source.dropped <= broken + 4, "the thread is a few frames further on"
    assert source.reopened == 0


def test_a_stream_that_drops_is_opened_again(
    camera: MjpegCamera, open_live: Opener, capfd: pytest.CaptureFixture[str]
) -> None:
    camera.login = "admin:secret"
    source = open_live(camera.url.replace("//", "//admin:secret@"))
    assert source.name == camera.url
    before = read(source)
    camera.drops_at = number_in(before.image) + 5
    after = read_past(source, camera.drops_at, within_s=3)
    assert source.reopened == 1 and camera.connections == 2 and source.dropped == 0
    assert after.time_s is not None and before.time_s is not None and after.index is not None
    assert after.time_s > 1.0, "one second of pause, and the clock goes on"
    assert number_in(after.image) - after.index > 25, "frames of the pause are nobody's"
    err = capfd.readouterr().err
    assert err == f"note: {camera.url}: lost; trying to open it again\nnote: {camera.url}: back\n"


def test_the_pauses_grow_until_it_is_back(
    camera: MjpegCamera, open_live: Opener, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(live.LiveSource, "_pause", lambda self, seconds: pauses.append(seconds))
    source = open_live(camera.url)
    read(source)
    camera.refuses, camera.drops_at = True, 0
    while len(pauses) < 8:
        time.sleep(0.01)
    camera.refuses = False
    read_past(source, max(camera.sent_at), within_s=3)
    assert pauses[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    seen = len(pauses)
    camera.drops_at = 0
    read_past(source, max(camera.sent_at) + 2, within_s=3)
    assert pauses[seen:] == [1], "a good frame makes it patient again"
    assert capfd.readouterr().err.count("lost") == 2
    assert source.reopened == 2


def test_a_stream_that_hangs_is_noticed(
    camera: MjpegCamera, open_live: Opener, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert network.TIMEOUT_MS == 5000
    monkeypatch.setattr(network, "TIMEOUT_MS", 700)
    source = open_live(camera.url)
    camera.hangs_at = number_in(read(source).image) + 3
    hung = time.monotonic()
    while "lost" not in capfd.readouterr().err:
        assert time.monotonic() < hung + 3
        time.sleep(0.02)
    assert 0.5 < time.monotonic() - hung < 2.5
    hung_at, camera.hangs_at = camera.hangs_at, None
    read_past(source, hung_at + 10, within_s=4)
    assert source.reopened == 1


@pytest.mark.parametrize("how", ["stop", "close"])
@pytest.mark.parametrize("state", ["hanging", "pausing"])
def test_a_blocked_read_ends_within_half_a_second(
    camera: MjpegCamera, open_live: Opener, how: str, state: str
) -> None:
    stop = threading.Event()
    source = open_live(camera.url, stop)
    read(source)
    if state == "hanging":
        camera.hangs_at = 0
    else:
        camera.refuses, camera.drops_at = True, 0
    set_at: list[float] = []

    def end() -> None:
        set_at.append(time.monotonic())
        if how == "stop":
            stop.set()
        else:
            source.close()

    threading.Timer(0.4, end).start()
    frames = read_all(source)
    assert set_at and time.monotonic() - set_at[0] < 0.5
    assert len(frames) < 5, "it hung before"
    source.close()
    source.close()
    assert source.read() is None


def test_live_video_is_decoded_in_one_thread(camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    # FFmpeg's frame threads hold one frame back each; with 8 of them H.264 came 0.23 s later.
    asked: list[int] = []
    real = cv2.VideoCapture

    def spy(address: str, backend: int, options: list[int]) -> cv2.VideoCapture:
        asked.extend(options)
        return real(address, backend, options)

    monkeypatch.setattr(cv2, "VideoCapture", spy)
    network.connect_stream(camera.url, "x").close()
    assert dict(zip(asked[::2], asked[1::2], strict=True))[cv2.CAP_PROP_N_THREADS] == 1


def test_the_thread_ends_with_its_source(camera: MjpegCamera, open_live: Opener) -> None:
    before = threading.active_count()
    stop = threading.Event()
    source = open_live(camera.url, stop)
    read(source)
    time.sleep(0.1)  # a frame lies ready, but stopped is stopped
    stop.set()
    assert source.read() is None
    names = {f"edge-fer live {camera.url}"}
    until = time.monotonic() + 2
    while names & {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert threading.active_count() <= before + 1  # the camera's


@pytest.mark.parametrize("ending", ["", "sys.exit(3)"])
def test_a_process_ends_in_order_while_a_live_source_is_open(camera: MjpegCamera, ending: str) -> None:
    code = (
        "import sys, threading; from edge_fer.sources import Selection, resolve\n"
        "source = resolve(sys.argv[1:])[0].open(Selection(), threading.Event()); source.read()\n"
    )
    command = [sys.executable, "-c", code + ending, camera.url]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (3 if "3" in ending else 0, b"")


def test_the_selection_applies(camera: MjpegCamera, open_live: Opener) -> None:
    source = open_live(camera.url, every=3, max_frames=5)
    indices = [frame.index for frame in iter(source.read, None)]
    assert len(indices) == 5
    groups = [(index - indices[0]) // 3 for index in indices if index is not None and indices[0] is not None]
    assert groups == sorted(set(groups)), "one of each three"
    source = open_live(camera.url, fps=10, start_s=0.3, end_s=1.2)
    times = [frame.time_s or 0 for frame in iter(source.read, None)]
    assert times[0] >= 0.3 and times[-1] < 1.2
    assert 5 <= len(times) <= 10 and source.fps == 10


def test_a_server_that_never_answers_is_given_up_and_can_be_stopped(
    camera: MjpegCamera, open_live: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "TIMEOUT_MS", 600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://u:secret@127.0.0.1:{silent.getsockname()[1]}/"
        started = time.monotonic()
        with pytest.raises(InputError, match="expected a live stream") as error:
            open_live(address)
        assert time.monotonic() - started < 2
        assert "secret" not in str(error.value)
        stop = threading.Event()
        threading.Timer(0.1, stop.set).start()
        started = time.monotonic()
        assert open_live(address, stop).read() is None
        assert time.monotonic() - started < 0.5
    camera.login = "u:p"
    with pytest.raises(InputError, match="check the address, the password"):
        open_live(camera.url)


def test_a_video_file_on_a_server_is_no_live_stream(tmp_path: Path, open_live: Opener) -> None:
    write_video(tmp_path / "clip.mkv", 30, "MJPG")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with pytest.raises(InputError, match="got a file; download it"):
            open_live(f"http://127.0.0.1:{server.server_port}/clip.mkv")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
