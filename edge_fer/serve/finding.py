"""From an encoded picture to the places of its faces and their crops; the pixels of a picture are let go."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from edge_fer.images import decode_image
from edge_fer.pipeline.stages import Located
from edge_fer.preprocess import CropSpec
from edge_fer.serve.handover import Found
from edge_fer.serve.jobs import Job
from edge_fer.sources import Frame

_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


def find_faces(job: Job, spec: CropSpec, max_pixels: int) -> Found:
    """Decode a job's picture and find its faces; its encoded bytes are let go.

    Args:
        job: the job.
        spec: the bundle's crop rule.
        max_pixels: larger pictures are refused, by their header.

    Raises:
        InputError: no picture, or a larger one.
        DetectorError: the detector failed.
    """
    started = time.perf_counter()
    image = decode_image(job.data, job.moment.source, max_pixels)
    decode_ms = 1000 * (time.perf_counter() - started)
    job.data = b""
    frame = Frame(
        image=image,
        source=job.moment.source,
        index=job.moment.frame,
        time_s=job.moment.time_s,
        captured=job.received,
        decode_ms=decode_ms,
    )
    located = job.finder(frame)
    assert isinstance(located, Located)  # a finder turns frames into nothing else
    if job.judge is not None:
        return Found(job, located, [], 0.0, time.monotonic())
    started = time.perf_counter()
    crops = [place.crop(image, spec) for place in located.places]
    preprocess_ms = 1000 * (time.perf_counter() - started)
    located = replace(located, frame=replace(frame, image=_NO_PIXELS))
    return Found(job, located, crops, preprocess_ms, time.monotonic())
