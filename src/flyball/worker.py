"""Composition root of a worker: a serving plan in, a wired worker out."""
