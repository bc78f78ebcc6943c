"""How each data set writes its labels, as names of this project: the one table of codes and their orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_fer.errors import InputError
from edge_fer.labels import LABELS

Codes = Mapping[str, str]


def _numbered(*names: str, first: int = 0) -> Codes:
    return {str(number): name for number, name in enumerate(names, first)}


FER2013 = _numbered("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
RAFDB = _numbered("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral", first=1)
AFFECTNET = _numbered(
    "neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"
)  # then 8 none, 9 uncertain, 10 no face
AFFWILD2 = _numbered("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
CKPLUS = _numbered("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
JAFFE: Codes = {
    "NE": "neutral",
    "HA": "happiness",
    "SA": "sadness",
    "SU": "surprise",
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
}
FERG: Codes = {
    "neutral": "neutral",
    "joy": "happiness",
    "sadness": "sadness",
    "surprise": "surprise",
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
}


def label_of(codes: Codes, code: str, where: str, labels: Sequence[str] = LABELS) -> int:
    """Return the index into `labels` of what a data set writes as `code`.

    Raises:
        InputError: the data set has no such code; the text begins with `where`.
    """
    if code not in codes:
        raise InputError(f"{where}: unknown label {code!r}, expected one of {', '.join(codes)}")
    return labels.index(codes[code])
