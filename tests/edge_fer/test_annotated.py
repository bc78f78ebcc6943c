"""Where annotated outputs go: names made of addresses fit into a folder."""

from __future__ import annotations

from pathlib import Path

from edge_fer.annotated import AnnotatedOutput
from edge_fer.sources import resolve
from edge_fer.video_writer import VideoWriter

PIPELINE = "gst:nvarguscamerasrc ! " + "video/x-raw(memory:NVMM),width=1280,height=720 ! " * 6 + "appsink"


def test_the_video_of_a_long_pipeline_has_a_name_that_fits(tmp_path: Path) -> None:
    (plan,) = resolve([PIPELINE])
    place = AnnotatedOutput([plan], tmp_path)._places[plan.name]
    assert place.name.startswith("gst-nvarguscamerasrc-video-x-raw") and place.suffix == ".mp4"
    VideoWriter(place, (64, 48), 25).discard()  # its temporary name is longer still
