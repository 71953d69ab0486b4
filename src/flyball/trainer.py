"""Composition root of one run: a run directory in, a result file out."""
