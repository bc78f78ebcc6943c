"""The model card that travels in a bundle: a text for people, as it was written."""

from __future__ import annotations

from pathlib import Path

from edge_fer.errors import InputError

MAX_BYTES = 1 << 18


def read_card(path: Path) -> bytes:
    """Return the UTF-8 text of a model card.

    Raises:
        InputError: the file is missing, empty, too large or no text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{path}: expected a model card of at most {MAX_BYTES:,} bytes, got more")
        if not content.decode("utf-8").strip():
            raise InputError(f"{path}: expected the text of a model card, got an empty file")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a model card in UTF-8, got something else: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: expected a readable model card: {error.strerror}") from error
    return content
