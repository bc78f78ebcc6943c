"""Faces over time: who is who from frame to frame, when to detect, and distributions smoothed per person."""

from __future__ import annotations

from edge_fer.tracking.cadence import Cadence
from edge_fer.tracking.smoothing import Smoother
from edge_fer.tracking.tracker import FaceTracker, Tracked, TrackedFrame

__all__ = ["Cadence", "FaceTracker", "Smoother", "Tracked", "TrackedFrame"]
