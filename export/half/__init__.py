"""Float constants in half precision: what a graph computes stays float32, or what its engine is told."""

from __future__ import annotations

# Values of a constant below which it is left alone: biases and scales save nothing and matter most.
SMALLEST = 4096
