"""Builds HTML and SVG as text in which everything that was not built here is escaped. Knows no report."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Elements without content; every other one gets an end tag. The outcome reads as HTML and as XML.
_VOID = frozenset(
    {"br", "circle", "hr", "image", "img", "line", "link", "meta", "path", "polyline", "rect", "use"}
)
# What no document may hold (controls, half surrogates, non-characters), and what turns the direction of the
# text around it, with which a label could spell a verdict.
_UNSAFE = re.compile(
    ""
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def clean(text: str) -> str:
    """Replace the characters that no document may hold, or that reorder what stands around them."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def escape(text: str) -> Markup:
    """Return text as HTML that shows just this text; `Markup` comes back as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(clean(text)))


def join(parts: Iterable[str], separator: str = "") -> Markup:
    """Return the parts one after another, escaping those that are not HTML yet."""
    return Markup(separator.join(escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element.

    Args:
        name: of the element.
        children: its content; what is not `Markup` is escaped.
        attributes: numbers are written with at most two decimals, None leaves the attribute out; an
            underscore stands for a hyphen, and `class_` for `class`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{''.join(escape(child) for child in children)}</{name}>")


def _attribute(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else coordinate(value)


def coordinate(value: float) -> str:
    """Write a coordinate with at most two decimals and no needless zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
