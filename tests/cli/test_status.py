"""`flyball status`."""

from __future__ import annotations

from flyball.cli.status import told


def test_what_waits_at_ingest_and_how_much_may_are_told() -> None:
    backlog = {"unapplied": 12_345, "unapplied_limit": 1_000_000, "unflushed": 7, "unflushed_limit": 10_000_000}
    text = told({"sources": [{"name": "S", "backlog": backlog}]}, "http://platform:1")
    assert "12.3 k pushed events wait to be applied, 7 for the lake; beyond 1 M and 10 M pushes are refused" in text
    assert "wait to be applied" not in told({"sources": [{"name": "S"}]}, "http://platform:1")
