"""Sources that are pulled and derived, in the platform for tests."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flyball.kernel.errors import InvalidError
from flyball.kernel.times import parse_time
from flyball.testing import platform

PROJECT = Path(__file__).parents[1] / "scenarios" / "orders" / "project.py"
NOW = parse_time("2026-02-01T00:00:00Z")


def test_a_test_pulls_when_it_likes_and_what_is_derived_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with platform(PROJECT, at=NOW) as running:
        monkeypatch.delenv("ORDERS_DSN", raising=False)
        with pytest.raises(InvalidError, match="the secret 'ORDERS_DSN' is not set"):
            running.pull("Orders")
        monkeypatch.setenv("ORDERS_DSN", f"sqlite:///{tmp_path / 'orders.db'}")
        connection = sqlite3.connect(tmp_path / "orders.db")
        connection.execute("CREATE TABLE orders (id, customer, amount, at, changed)")
        for number, (hour, amount) in enumerate([(1, "20.00"), (2, "80.00"), (3, "60.00"), (4, "10.00")]):
            at = f"2026-01-31 {hour:02}:00:00"
            connection.execute("INSERT INTO orders VALUES (?, 'a', ?, ?, ?)", (number, amount, at, at))
        connection.commit()
        connection.close()
        assert running.pull("Orders")["accepted"] == 4
        assert running.pull("Orders")["received"] == 0
        reply = running._ingest.events(next(s["name"] for s in running.status()["sources"] if s["derive"]))
        assert reply.select("id", "before").rows() == [(1, 2000), (2, 8000)]
