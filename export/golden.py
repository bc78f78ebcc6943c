"""Golden samples: encoded pictures, their crops and PyTorch's answers to them, replayed on every device."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fer.detectors import load_detector
from edge_fer.errors import InputError
from edge_fer.faces import FaceSet
from edge_fer.images import decode_image, encode_png, read_image
from edge_fer.preprocess import CropSpec, crop_face, crop_whole
from edge_fer.samples import MAX_SOURCE_BYTES, Golden
from export.reference import TorchOutputs

COUNT = 16
COLOURED = 4
DEMO_PHOTO = Path(__file__).parent.parent / "examples" / "astronaut.jpg"
NO_LANDMARKS = np.full((5, 2), np.nan, np.float32)


@dataclass(frozen=True, slots=True)
class Sample:
    """One golden source: encoded bytes, and the box (and landmarks) of its face, or None for a ready crop."""

    source: bytes
    box: tuple[float, float, float, float] | None = None
    landmarks: NDArray[np.float32] | None = None

    def crop(self, spec: CropSpec) -> NDArray[np.uint8]:
        """Decode and cut the source as a device does: (S, S, 3) uint8."""
        image = decode_image(self.source, "golden sample")
        if self.box is None:
            return crop_whole(image, spec)
        # The bundle keeps boxes as float32; a device must start from the same numbers.
        x, y, w, h = (float(np.float32(side)) for side in self.box)
        return crop_face(image, (x, y, w, h), self.landmarks, spec)


def make_golden(samples: list[Sample], spec: CropSpec, answer: TorchOutputs) -> Golden:
    """Cut every sample and let the float network answer it."""
    crops = np.stack([sample.crop(spec) for sample in samples])
    outputs = answer(crops)
    return Golden(
        sources=tuple(sample.source for sample in samples),
        boxes=np.array([sample.box or (0, 0, 0, 0) for sample in samples], np.float32),
        landmarks=np.stack([NO_LANDMARKS if s.landmarks is None else s.landmarks for s in samples]),
        whole=np.array([sample.box is None for sample in samples]),
        crops=crops,
        probabilities=outputs.probabilities,
        primary=outputs.primary,
        reliability=outputs.reliability,
    )


def parity_samples(faces: FaceSet) -> list[Sample]:
    """Return up to 16 faces spread evenly over the parity set, as they lie on the disk."""
    chosen = np.unique(np.linspace(0, len(faces.faces) - 1, COUNT).astype(int))
    samples = []
    for index in chosen:
        path = faces.faces[int(index)].path
        source = path.read_bytes()
        if len(source) > MAX_SOURCE_BYTES:
            raise InputError(
                f"{path}: expected golden sources of at most {MAX_SOURCE_BYTES} bytes, got {len(source)}; "
                "use --golden synthetic"
            )
        samples.append(Sample(source))
    return samples


def with_colour(samples: list[Sample], spec: CropSpec) -> list[Sample]:
    """Return the samples, some in colour: gray ones alone, as of FER+, could not show swapped channels."""
    if any(np.ptp(sample.crop(spec), axis=2).any() for sample in samples):
        return samples
    return [*samples[: COUNT - COLOURED], *synthetic_samples()[:COLOURED]]


def synthetic_samples(photo: Path = DEMO_PHOTO) -> list[Sample]:
    """Return 16 samples that may be shipped: the public-domain demo photo's face in variants, and patterns.

    Variants exercise the detector-box crop (inside and beyond the picture), the five-point alignment, JPEG
    with chroma subsampling, gray, and enlarging as well as reducing.
    """
    image = read_image(photo)
    face, (x, y, w, h) = cut_face(image)
    half, tenth = np.ascontiguousarray(face[::2, ::2]), np.ascontiguousarray(face[::5, ::5])
    landmarks = np.array([(0.33, 0.4), (0.67, 0.38), (0.5, 0.6), (0.36, 0.77), (0.65, 0.76)])
    placed = (landmarks * w + (x, y)).astype(np.float32)
    turned = np.ascontiguousarray(np.rot90(half))
    gray = np.repeat(half.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    dark = (half // 4).astype(np.uint8)
    return [
        Sample(jpeg(face), (x, y, w, h)),
        Sample(jpeg(face), (x, y, w, h), placed),
        Sample(encode_png(half), (x / 2, y / 2, w / 2, h / 2)),
        Sample(encode_png(half), (x / 2, y / 2, w / 2, h / 2), placed / np.float32(2)),
        Sample(encode_png(half)),
        Sample(encode_png(tenth)),
        Sample(encode_png(half[:, ::-1].copy())),
        Sample(encode_png(turned), (-10.0, 5.0, 60.0, 75.0)),
        Sample(encode_png(gray), (x / 2 - 7.3, y / 2 + 2.1, w / 2, h / 2)),
        Sample(encode_png(dark)),
        *(Sample(encode_png(pattern)) for pattern in patterns()),
    ]


def cut_face(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Return the region around the largest face, and the face's box in it."""
    found = load_detector("cascade").detect(image)
    if not found:
        raise InputError("expected a face in the demo photo, the detector found none")
    x, y, w, h = found[0].box
    border = w / 4
    left, top = max(0, round(x - border)), max(0, round(y - border))
    right, bottom = round(x + w + border), round(y + h + border)
    region = np.ascontiguousarray(image[top:bottom, left:right])
    return region, (x - left, y - top, w, h)


def patterns() -> list[NDArray[np.uint8]]:
    """Return six drawn pictures: black, white, two gradients, a checkerboard and seeded noise (48, 48, 3)."""
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (64, 64))
    squares = np.indices((64, 64)).sum(axis=0) // 8 % 2 * 255
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    grays = [np.zeros((64, 64)), np.full((64, 64), 255), ramp, ramp.T, squares, noise]
    return [np.repeat(np.asarray(gray, np.uint8)[..., None], 3, axis=2) for gray in grays]


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode as a JPEG with the usual chroma subsampling."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
