"""Draw what goes wrong on changed copies of the demo photo, as `infer` draws it: docs/failures.jpg.

    python -m tests.benchmarks.failures docs/failures.jpg [--bundle BUNDLE]

The expression stays the same broad smile in every picture; the detector is that of every installation. Where
it finds nothing, the face is cut out by hand, so that the two kinds of failure can be told apart. Prints a
Markdown table.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer import Recognizer
from edge_fer.annotated import annotation
from edge_fer.draw import draw_faces
from edge_fer.images import read_image, write_image
from edge_fer.recognizer import Place

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
VIEW = (124, 14, 324, 214)  # left, top, right, bottom of the picture around the face
SCALE = 2
FACE = (106.0, 106.0, 186.0, 186.0)  # x, y, width, height of the cascade's box within the view, scaled
COLUMNS = 4
Picture = NDArray[np.uint8]


def turned(view: Picture, degrees: float) -> Picture:
    """Turn the picture around its middle."""
    height, width = view.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(view, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8)


def covered(view: Picture, top: float, bottom: float) -> Picture:
    """Lay a gray bar over a part of the face, in shares of its height."""
    x, y, width, height = FACE
    rows = slice(int(y + top * height), int(y + bottom * height))
    changed = view.copy()
    changed[rows, int(x) : int(x + width)] = 128
    return changed


def lit(view: Picture, gain: float, side: float = 0.0) -> Picture:
    """Darken the picture; `side` 1 takes all the light from its right half."""
    fall = gain * (1.0 - side * np.linspace(-2.0, 2.0, view.shape[1]).clip(0, 1))
    return np.asarray((view * fall[None, :, None]).clip(0, 255), np.uint8)


def small(view: Picture, pixels: int) -> Picture:
    """Leave the face so many pixels wide, then show it at the old size."""
    height, width = view.shape[:2]
    share = pixels / FACE[2]
    less = cv2.resize(view, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(less, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def pictures() -> Mapping[str, Picture]:
    """Return the demo photo's face and what was done to it."""
    left, top, right, bottom = VIEW
    view = np.asarray(
        cv2.resize(read_image(PHOTO)[top:bottom, left:right], None, fx=SCALE, fy=SCALE), np.uint8
    )
    return {
        "as it is": view,
        "turned by 30 degrees": turned(view, 30),
        "turned by 60 degrees": turned(view, 60),
        "mouth covered": covered(view, 0.66, 1.05),
        "eyes covered": covered(view, 0.2, 0.5),
        "light from one side": lit(view, 0.9, 1.0),
        "very dark": lit(view, 0.08),
        "16 pixels wide": small(view, 16),
    }


def main() -> None:
    """Let the bundle look at every picture; print and draw what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--bundle", type=Path, help="default: the embedded one")
    given = parser.parse_args()
    recognizer = Recognizer.load(given.bundle, threads=1)
    drawn = []
    print("| picture | detector | label | probability | reliability |\n|---|---|---|---|---|")
    for name, picture in pictures().items():
        faces = recognizer.analyze(picture).faces
        found = "found" if faces else "**no face**, cut out by hand"
        faces = faces or recognizer.recognise(picture, [Place(FACE)]).faces
        told = faces[0].prediction
        probability = float(told.probabilities[told.top])
        print(f"| {name} | {found} | {told.label} | {probability:.0%} | {told.reliability:.2f} |")
        tile = draw_faces(picture, [annotation(face) for face in faces])
        drawn.append(titled(tile, name if found == "found" else f"{name}: no face found"))
    rows = [np.hstack(drawn[index : index + COLUMNS]) for index in range(0, len(drawn), COLUMNS)]
    write_image(given.output, np.vstack(rows))


def titled(tile: Picture, text: str) -> Picture:
    """Write a line under a picture."""
    strip = np.full((34, tile.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.62, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([tile, strip])


if __name__ == "__main__":
    main()
