"""Check what a built wheel holds: edge_fer, its metadata, one embedded bundle, and nothing else."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

WHEEL_LIMIT_BYTES = 6_000_000
GRAPH_LIMIT_BYTES = 3_000_000


def faults(wheel: Path) -> list[str]:
    """Say what is wrong with the wheel, nothing when all is well."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
    found = []
    for top in sorted({name.split("/")[0] for name in sizes}):
        if top != "edge_fer" and not (top.startswith("edge_fer-") and top.endswith(".dist-info")):
            found.append(f"expected only edge_fer at top level, got {top}")
    if "edge_fer/py.typed" not in sizes:
        found.append("expected edge_fer/py.typed, it is missing")
    graphs = {name: size for name, size in sizes.items() if name.endswith(".fer/model.onnx")}
    if len(graphs) != 1:
        found.append(f"expected one embedded bundle, got {sorted(graphs)}")
    for name, size in graphs.items():
        if size > GRAPH_LIMIT_BYTES:
            found.append(f"expected a graph of at most {GRAPH_LIMIT_BYTES} bytes, got {size} in {name}")
    if wheel.stat().st_size > WHEEL_LIMIT_BYTES:
        found.append(f"expected a wheel of at most {WHEEL_LIMIT_BYTES} bytes, got {wheel.stat().st_size}")
    print(f"{wheel.name}: {len(sizes)} files, {wheel.stat().st_size} bytes, graphs {graphs}")
    return found


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]))
    print("\n".join(wrong) or "the wheel holds edge_fer and nothing else")
    sys.exit(1 if wrong else 0)
