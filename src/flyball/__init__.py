"""Flyball: the whole loop of a production model."""

__version__ = "0.1.0"
