"""Grids: many trainings as one table of results (larvseg grid)."""
