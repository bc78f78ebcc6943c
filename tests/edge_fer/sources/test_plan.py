"""What the user types, and the sources that it stands for."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from edge_fer.errors import InputError, UsageError
from edge_fer.images import write_image
from edge_fer.sources import Selection, SourcePlan, resolve
from tests.edge_fer.sources.painted import number_in, paint, read_all, write_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["a.png", "b.PNG", "d.png"]):
        write_image(tmp_path / name, paint(number))
    write_video(tmp_path / "c.AVI", 3, "MJPG")
    for name in (".hidden.png", "note.txt"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def kinds(plans: list[SourcePlan], folder: Path) -> list[tuple[str, list[str]]]:
    return [(plan.kind, [str(path.relative_to(folder)) for path in plan.paths]) for plan in plans]


def test_a_folder_gives_its_pictures_and_videos_by_name(folder: Path) -> None:
    plans = resolve([str(folder)])
    expected = [("pictures", ["a.png", "b.PNG"]), ("video", ["c.AVI"]), ("pictures", ["d.png"])]
    assert kinds(plans, folder) == expected
    assert [plan.name for plan in plans] == [str(folder / name) for name in ("a.png", "c.AVI", "d.png")]


def test_globs_files_and_their_order(folder: Path) -> None:
    texts = [str(folder / "d.png"), str(folder / "[ac].*"), str(folder / "note.txt")]
    assert kinds(resolve(texts), folder) == [
        ("pictures", ["d.png"]),
        ("pictures", ["a.png"]),
        ("video", ["c.AVI"]),
        ("pictures", ["note.txt"]),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("missing.png", "no such file"),
        ("*.tiff", "no file matches"),
        ("camera:", "expected camera:0"),
        ("/dev/null", "camera:/dev/null"),
        ("ftp://u:secret@h/x", "expected rtsp"),
        ("empty", "no pictures and no videos"),
    ],
)
def test_what_stands_for_nothing_is_one_line(
    tmp_path: Path, text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(InputError, match=reason) as error:
        resolve([text])
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://10.0.0.7:8080/video", "http://10.0.0.7:8080/video"),
        ("rtsp://admin:secret@cam/1", "rtsp://cam/1"),
        ("RTSP://admin:secret@cam:554", "RTSP://cam:554"),
        ("rtsp://admin@cam/1", "rtsp://cam/1"),
        ("rtsp://a:p@secret@cam/1", "rtsp://cam/1"),
        ("rtsp://admin:se/cret@cam/1", "rtsp://cam/1"),
        ("rtsp://admin:se?cr#et@cam/1", "rtsp://cam/1"),
        ("http://cam/@home/v", "http://cam/@home/v"),
        ("http://cam:80/@home/v", "http://cam:80/@home/v"),
        ("http://[fe80::1]:80/v", "http://[fe80::1]:80/v"),
        ("http://u:secret@[fe80::1]:80/v", "http://[fe80::1]:80/v"),
        ("http://cam/v?user=u&pwd=secret&w=640", "http://cam/v?user=***&pwd=***&w=640"),
        ("https://cam/v?access_token=secret", "https://cam/v?access_token=***"),
        ("https://cam/v#token=secret", "https://cam/v#token=***"),
        ("rtsp://cam:554/user=admin_password=secret_channel=1.sdp", "rtsp://cam:554/user=***"),
        ("rtsp://cam/user=u&password=secret&channel=1", "rtsp://cam/user=***&password=***&channel=1"),
        (
            'gst:rtspsrc location="rtsp://u:se cret@cam/1" ! appsink',
            'gst:rtspsrc location="rtsp://cam/1" ! appsink',
        ),
        (
            "gst:rtspsrc location=rtsp://u:secret@cam/1 user-pw='se cret' latency=0 ! appsink",
            "gst:rtspsrc location=rtsp://cam/1 user-pw=*** latency=0 ! appsink",
        ),
    ],
)
def test_credentials_are_never_shown(address: str, name: str) -> None:
    (plan,) = resolve([address])
    assert plan.kind == "live" and plan.name == name and plan.paths == ()
    assert "secret" not in repr(plan)


def test_cameras_and_standard_input() -> None:
    plans = resolve(["camera:0", "-", "camera:/dev/video2"])
    assert [(plan.kind, plan.name) for plan in plans] == [
        ("live", "camera:0"),
        ("video", "-"),
        ("live", "camera:/dev/video2"),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("camera:57", "/dev/video57"),
        ("camera:/dev/none", "/dev/none"),
        ("camera:picamera2", "picamera2 is not installed"),
        ("gst:videotestsrc user-pw=secret ! appsink", "without GSTREAMER"),
        ("http://u:secret@127.0.0.1:9/video", "expected a live stream"),
    ],
)
def test_what_cannot_be_opened_is_one_line(text: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    (plan,) = resolve([text])
    with pytest.raises(InputError, match=reason) as error:
        plan.open(Selection(), threading.Event())
    assert str(error.value).startswith(f"{plan.name}: ") and "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_pictures_are_read_as_they_are(folder: Path) -> None:
    plan = resolve([str(folder)])[0]
    source = plan.open(Selection(), threading.Event())
    assert source.frames == 2 and source.kind == "pictures" and source.fps is None
    frames = read_all(source)
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, paint(number))
        assert frame.index is None and frame.time_s is None and frame.decode_ms > 0
    assert [frame.source for frame in frames] == [str(path) for path in plan.paths]


def test_every_and_max_frames_count_pictures(tmp_path: Path) -> None:
    for number in range(10):
        write_image(tmp_path / f"{number}.png", paint(number))
    (plan,) = resolve([str(tmp_path)])
    source = plan.open(Selection(every=3, max_frames=3), threading.Event())
    assert source.frames == 3
    assert [number_in(frame.image) for frame in read_all(source)] == [0, 3, 6]


def test_a_broken_picture_stops_no_other_and_stop_does(folder: Path) -> None:
    (folder / "b.PNG").write_bytes(b"broken")
    stop = threading.Event()
    plan = resolve([str(folder / "*.[pP]*")])[0]
    source = plan.open(Selection(), stop)
    assert source.read() is not None
    with pytest.raises(InputError, match=r"b\.PNG"):
        source.read()
    last = source.read()
    assert last is not None and last.source.endswith("d.png")
    again = plan.open(Selection(), stop)
    stop.set()
    assert again.read() is None
    closed = plan.open(Selection(), threading.Event())
    closed.close()
    closed.close()
    assert closed.read() is None


@pytest.mark.parametrize("values", [{"fps": 5.0}, {"start_s": 1.0}, {"end_s": 1.0}])
def test_pictures_have_no_time(folder: Path, values: dict[str, float]) -> None:
    plan = resolve([str(folder)])[0]
    with pytest.raises(UsageError, match="a picture has no time"):
        plan.open(Selection(**values), threading.Event())  # type: ignore[arg-type]
