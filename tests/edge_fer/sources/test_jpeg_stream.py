"""JPEGs through real pipes: every picture, broken ones counted, and a stop that ends a blocked read."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fer.errors import InputError
from edge_fer.sources import Selection, Source, resolve
from edge_fer.sources.jpeg_stream import JpegStream
from tests.edge_fer.sources.painted import jpeg, number_in, paint, read_all

ROOT = Path(__file__).resolve().parents[3]
READER = """
import sys, threading
from edge_fer.errors import EdgeFerError
from edge_fer.sources import Selection, resolve
try:
    source = resolve(["-"])[0].open(Selection(every=2), threading.Event())
    print(source.kind, source.name, [frame.index for frame in iter(source.read, None)], source.dropped)
except EdgeFerError as error:
    print(error)
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):  # a test closed it
            os.close(descriptor)


def fill(descriptor: int, data: bytes) -> threading.Thread:
    """Write all of it and close, from a thread: a pipe holds no more than 64 KiB."""

    def write() -> None:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_every_picture_is_given_however_slow_the_reader(pipe: tuple[int, int]) -> None:
    source: Source = JpegStream(pipe[0], Selection(), threading.Event())
    assert source.kind == "video" and source.name == "-" and source.frames is None
    writer = fill(pipe[1], b"".join(jpeg(number) for number in range(40)))
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
        time.sleep(0.01)
    writer.join()
    assert (
        [number_in(frame.image) for frame in frames] == [frame.index for frame in frames] == list(range(40))
    )
    assert all(frame.image.flags.c_contiguous and frame.source == "-" for frame in frames)
    assert frames[0].time_s == 0.0 and source.dropped == 0
    assert source.read() is None


def test_times_are_seconds_since_the_first_picture(pipe: tuple[int, int]) -> None:
    source = JpegStream(pipe[0], Selection(), threading.Event())
    time.sleep(0.1)
    times = []
    for number in range(3):
        os.write(pipe[1], jpeg(number))
        frame = source.read()
        assert frame is not None and frame.time_s is not None
        times.append(frame.time_s)
        time.sleep(0.1)
    assert times[0] == 0.0
    np.testing.assert_allclose(times, [0, 0.1, 0.2], atol=0.05)


def test_damaged_pictures_and_garbage_are_counted(
    pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = bytearray(jpeg(1))
    size_at = damaged.index(b"\xff\xc0") + 5
    damaged[size_at : size_at + 4] = b"\xff\xff\xff\xff"  # 65535 x 65535: a decompression bomb
    cut_off = jpeg(2)[:-300]
    writer = fill(
        pipe[1], b"junk" + jpeg(0) + bytes(damaged) + b"--boundary\r\n" + cut_off + jpeg(3) + jpeg(4)[:200]
    )
    source = JpegStream(pipe[0], Selection(), threading.Event())
    frames = read_all(source)
    writer.join()
    assert [(frame.index, number_in(frame.image)) for frame in frames] == [(0, 0), (3, 3)]
    assert source.dropped == 3
    assert capfd.readouterr().err == (
        "note: -: 3 damaged pictures were left out, 16 bytes that are no JPEG were passed over\n"
    )


def test_exif_orientation_is_honoured(pipe: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to show it
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(paint(9))).save(buffer, format="JPEG", exif=exif, quality=95)
    writer = fill(pipe[1], buffer.getvalue())
    (frame,) = read_all(JpegStream(pipe[0], Selection(), threading.Event()))
    writer.join()
    assert number_in(frame.image) == 9


def test_the_selection_applies(pipe: tuple[int, int]) -> None:
    writer = fill(pipe[1], b"".join(jpeg(number) for number in range(20)))
    source = JpegStream(pipe[0], Selection(every=3, max_frames=4), threading.Event())
    assert [number_in(frame.image) for frame in read_all(source)] == [0, 3, 6, 9]
    while os.read(pipe[0], 1 << 16):
        pass
    writer.join()


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_blocked_read_ends_within_half_a_second(pipe: tuple[int, int], how: str) -> None:
    os.write(pipe[1], jpeg(0) + jpeg(1)[:500])
    stop = threading.Event()
    source = JpegStream(pipe[0], Selection(), stop)
    assert source.read() is not None
    started = time.monotonic()
    threading.Timer(0.3, stop.set if how == "stop" else source.close).start()
    assert source.read() is None
    assert 0.25 < time.monotonic() - started < 0.8
    source.close()


def read_in_a_process(**streams: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", READER],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        **streams,  # type: ignore[call-overload]
    )
    assert done.stderr == b""
    return str(done.stdout.decode())


def test_standard_input_of_a_process(tmp_path: Path) -> None:
    data = b"".join(jpeg(number) for number in range(5))
    assert read_in_a_process(input=data) == "video - [0, 2, 4] 0\n"
    path = tmp_path / "pictures.bin"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert read_in_a_process(stdin=file) == "video - [0, 2, 4] 0\n"


def test_a_terminal_and_a_closed_input_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = os.openpty()
    try:
        out = read_in_a_process(stdin=terminal)
    finally:
        os.close(master)
        os.close(terminal)
    assert (
        out.startswith("-: expected JPEG pictures on standard input, got a terminal") and out.count("\n") == 1
    )
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="closed"):
        resolve(["-"])[0].open(Selection(), threading.Event())
