"""Print the fenced block of README.md that follows the mark `<!-- ci:NAME -->`."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def marked_block(text: str, name: str) -> str:
    """Return the lines between the fences that follow the mark."""
    found = re.search(rf"<!-- ci:{re.escape(name)} -->\s*```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise SystemExit(f"expected a fenced block after <!-- ci:{name} --> in README.md, found none")
    return found[1]


if __name__ == "__main__":
    readme = Path(__file__).resolve().parent.parent / "README.md"
    sys.stdout.write(marked_block(readme.read_text(encoding="utf-8"), sys.argv[1]))
