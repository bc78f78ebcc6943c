"""The entry of `edge-fer` and `python -m edge_fer`: Ctrl-C is told as one line even while modules load."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the device commands."""
    try:
        from edge_fer.commands import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
