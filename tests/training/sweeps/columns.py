"""Two figures under two conditions: the columns of grids that tests make up, each with rows of its own."""

from __future__ import annotations

COLUMNS = """
title = "Losses"
data = "faces"
recipe = "base.toml"
[[figures]]
name = "Accuracy"
figure = "accuracy"
[[figures]]
name = "F1"
figure = "macro_f1"
[[conditions]]
name = "clean"
[[conditions]]
name = "noisy"
data = "others"
set.data.noise = 0.1
"""
