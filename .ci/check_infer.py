"""Check the JSON that `infer examples/astronaut.jpg --json` printed; read from standard input."""

from __future__ import annotations

import json
import sys

KEYS = {"source", "frame", "time_s", "faces", "detector", "latency_ms"}
FACE_KEYS = {"box", "landmarks", "label", "probabilities", "primary", "reliability", "abstained", "track"}
TOLERANCE = 1e-5


def faults(text: str) -> list[str]:
    """Say what is wrong with the output, nothing when all is well."""
    lines = text.splitlines()
    if len(lines) != 1:
        return [f"expected one line on standard output, got {len(lines)}"]
    record = json.loads(lines[0])
    if set(record) != KEYS:
        return [f"expected the keys {sorted(KEYS)}, got {sorted(record)}"]
    if len(record["faces"]) != 1:
        return [f"expected one face, got {len(record['faces'])}"]
    face = record["faces"][0]
    if set(face) != FACE_KEYS:
        return [f"expected the face's keys {sorted(FACE_KEYS)}, got {sorted(face)}"]
    probabilities = face["probabilities"]
    top = max(probabilities, key=probabilities.get)
    found = []
    if top != "happiness" or face["label"] != "happiness":
        found.append(f"expected happiness on top, got {top} (label {face['label']})")
    if abs(sum(probabilities.values()) - 1) > TOLERANCE:
        found.append(f"expected probabilities that sum to 1, got {sum(probabilities.values())!r}")
    return found


if __name__ == "__main__":
    output = sys.stdin.read()
    wrong = faults(output)
    print("\n".join(wrong) or "one face, happiness on top, probabilities sum to 1")
    sys.exit(1 if wrong else 0)
