"""The official layouts of facial-expression data sets, by the prefix that names them in DATA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_fer.faces import FaceSet
from training.data.layouts import affectnet, affwild2, ckplus, fer2013, ferg, jaffe, rafdb


@dataclass(frozen=True, slots=True)
class Layout:
    """How a data set is read.

    Attributes:
        read: lists the faces of a split under a folder.
        splits: the official ones, the training split first; none: the set is read whole, or by folds.
        held_out: the split that a run is validated on, and that is read when DATA names none.
    """

    read: Callable[[Path, str], FaceSet]
    splits: tuple[str, ...] = ()
    held_out: str = ""


LAYOUTS = {
    "fer2013": Layout(fer2013.read, ("train", "valid", "test"), "valid"),
    "rafdb": Layout(rafdb.read, ("train", "test"), "test"),
    "affectnet7": Layout(affectnet.read_7, ("train", "valid"), "valid"),
    "affectnet8": Layout(affectnet.read_8, ("train", "valid"), "valid"),
    "affwild2": Layout(affwild2.read, ("train", "valid"), "valid"),
    "jaffe": Layout(jaffe.read),
    "ferg": Layout(ferg.read),
    "ckplus": Layout(ckplus.read),
}
