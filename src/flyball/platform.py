"""Composition root of control and ingest: settings in, wired cores out."""
