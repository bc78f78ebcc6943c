"""The tables of the papers, and the comparison of all methods, as TOML files."""

from __future__ import annotations

from pathlib import Path

GRIDS = Path(__file__).parent


def grid_names() -> list[str]:
    """Return the names of the grids that are shipped."""
    return sorted(path.stem for path in GRIDS.glob("*.toml"))
