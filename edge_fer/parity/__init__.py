"""Parity: does a bundle still answer as the float checkpoint did? numpy only: a device proves itself."""
