"""Grids of training runs that print the papers' tables: the published numbers beside ours."""
