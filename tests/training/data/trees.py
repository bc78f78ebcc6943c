"""Tiny data sets in the official layouts, made of noise."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edge_fer.images import write_image

# Code, name and class of RAF-DB's labels, as its own read-me has them.
RAFDB_ROWS = (
    ("train_00001.jpg", "5", "sadness"),
    ("train_00002.jpg", "4", "happiness"),
    ("test_0001.jpg", "1", "surprise"),
    ("train_00003.jpg", "7", "neutral"),
    ("test_0002.jpg", "2", "fear"),
    ("train_00004.jpg", "3", "disgust"),
    ("train_00005.jpg", "6", "anger"),
)
AFFWILD2_HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


def picture(path: Path, seed: int = 0, side: int = 12) -> Path:
    """Write a picture of noise in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    if path.suffix == ".tiff":
        Image.fromarray(pixels[:, :, 0]).save(path)
    else:
        write_image(path, pixels)
    return path


def text(path: Path, content: str) -> Path:
    """Write a text file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def rafdb(root: Path) -> Path:
    """Write RAF-DB, basic set, under root/basic."""
    lines = [f"{name} {code}" for name, code, _ in RAFDB_ROWS]
    text(root / "basic/EmoLabel/list_patition_label.txt", "\n".join(lines) + "\n")
    for seed, (name, _, _) in enumerate(RAFDB_ROWS):
        picture(root / f"basic/Image/aligned/{Path(name).stem}_aligned.jpg", seed)
    return root


def fer2013(root: Path, rows: Sequence[tuple[int, str]]) -> Path:
    """Write fer2013.csv with one gray face of noise per (emotion, usage)."""
    lines = ["emotion,pixels,Usage"]
    for seed, (emotion, usage) in enumerate(rows):
        pixels = np.random.default_rng(seed).integers(0, 256, 48 * 48)
        lines.append(f"{emotion},{' '.join(map(str, pixels))},{usage}")
    return text(root / "fer2013.csv", "\n".join(lines) + "\n")


def affectnet(root: Path, rows: Sequence[tuple[int, float, float]], folder: str = "train_set") -> Path:
    """Write AffectNet's cropped release with one face per (code, valence, arousal), numbers as text."""
    for number, (code, valence, arousal) in enumerate(rows):
        picture(root / folder / f"images/{number}.jpg", number)
        for suffix, value in (("exp", str(code)), ("val", str(valence)), ("aro", str(arousal))):
            path = root / folder / f"annotations/{number}_{suffix}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.array(value))
        np.save(root / folder / f"annotations/{number}_lnd.npy", np.zeros((68, 2)))
    return root


def affwild2(
    root: Path, video: str, codes: Sequence[int], absent: Sequence[int] = (), folder: str = "Train_Set"
) -> Path:
    """Write one video of Aff-Wild2; `absent` are the numbers of frames without a face."""
    notes = root / "6th_ABAW_Annotations/EXPR_Classification_Challenge" / folder
    text(notes / f"{video}.txt", "\n".join([AFFWILD2_HEADER, *map(str, codes)]) + "\n")
    (root / "cropped_aligned" / video).mkdir(parents=True)
    for number in range(1, len(codes) + 1):
        if number not in absent:
            seed = zlib.crc32(f"{video} {number}".encode())  # no frame is one of another video
            picture(root / f"cropped_aligned/{video}/{number:05d}.jpg", seed)
    return root


def jaffe(root: Path, subjects: Sequence[str]) -> Path:
    """Write JAFFE: one face per subject and expression."""
    for subject in subjects:
        for number, code in enumerate(("NE", "HA", "SA", "SU", "AN", "DI", "FE")):
            picture(root / f"{subject}.{code}1.{number}.tiff", number)
    return root


def ferg(root: Path) -> Path:
    """Write FERG-DB of two characters."""
    for character in ("aia", "bonnie"):
        for number, emotion in enumerate(("anger", "joy", "neutral")):
            for take in range(2):
                name = f"{character}_{emotion}_{take + 1}.png"
                picture(root / f"FERG_DB_256/{character}/{character}_{emotion}/{name}", 10 * number + take)
    return root


def ckplus(root: Path, sequences: Sequence[tuple[str, str, int, int | None]]) -> Path:
    """Write CK+ of sequences (subject, sequence, frames, code or None)."""
    for subject, sequence, frames, code in sequences:
        place = f"{subject}/{sequence}/{subject}_{sequence}_"
        for frame in range(1, frames + 1):
            picture(root / f"cohn-kanade-images/{place}{frame:08d}.png", frame)
        (root / "Emotion" / subject / sequence).mkdir(parents=True)
        if code is not None:
            text(root / f"Emotion/{place}{frames:08d}_emotion.txt", f"   {code:.7e}\n")
    return root
