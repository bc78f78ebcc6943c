"""The eight labels, in the one order used everywhere, and the table of other data sets' names for them."""

from __future__ import annotations

from edge_fer.errors import InputError

LABELS: tuple[str, ...] = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)
LABELS_7: tuple[str, ...] = LABELS[:7]
OTHER = "other"
# The eighth class of Aff-Wild2 is everything else, not contempt; no set has both.
LABELS_WITH_OTHER: tuple[str, ...] = (*LABELS_7, OTHER)

# Names seen in FER2013, RAF-DB, AffectNet, ExpW, CK+, JAFFE, MMI and KDEF, each as written there in lower
# case.
_ALIASES: dict[str, str] = {
    "natural": "neutral",
    "neutrality": "neutral",
    "happy": "happiness",
    "joy": "happiness",
    "smile": "happiness",
    "smiling": "happiness",
    "surprised": "surprise",
    "suprise": "surprise",  # misspelt so in several copies of AffectNet
    "sad": "sadness",
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "contemptuous": "contempt",
}


def canonical(name: str) -> str:
    """Return this project's name of a label given any data set's name for it, in any case.

    Raises:
        InputError: the name is not an emotion known here.
    """
    key = name.strip().lower()
    if key in LABELS or key == OTHER:
        return key
    if key in _ALIASES:
        return _ALIASES[key]
    raise InputError(
        f"unknown emotion {name!r}: expected one of {', '.join(LABELS)}, {OTHER} (or an alias such as happy)"
    )
