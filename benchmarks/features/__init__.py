"""Ingestion and features against DuckDB, Feast and hand-written Polars."""
