"""Orders in a PostgreSQL database: each is taken and derived from once, however often everything is killed."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from flyball.client.project import apply, pack
from flyball.define.derive import stem_of
from flyball.storage.lake import DeltaLake
from tests.cli.run_cli import flyball
from tests.postgres import ENCODED, PASSWORD, Postgres, postgres
from tests.scenarios.live import LivePlatform, eventually

__all__ = ["postgres"]
PROJECT = Path(__file__).parent / "orders" / "project.py"
KILLS = 2


@pytest.mark.slow
def test_every_order_is_pulled_and_derived_from_once_across_sigkill_and_the_secret_stays_one(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_DSN", postgres.dsn)
    postgres.run("DROP TABLE IF EXISTS orders")
    postgres.run(
        "CREATE TABLE orders (id serial PRIMARY KEY, customer text, amount numeric(10,2), at timestamptz DEFAULT now(),"
        " changed timestamptz DEFAULT now())"
    )
    draw = random.Random(4)
    wanted: list[tuple[str, Decimal]] = []

    def order(count: int) -> None:
        new = [(draw.choice("abc"), Decimal(draw.randint(100, 9900)) / 100) for _ in range(count)]
        postgres.run("INSERT INTO orders (customer, amount) VALUES (%s, %s)", *new)
        wanted.extend(new)

    with LivePlatform(tmp_path / "state") as live:
        live.start()
        with live.client() as client:
            apply(client, pack(str(PROJECT)))
        for _ in range(KILLS):
            order(7)
            with live.client() as client:
                if draw.random() < 0.5:
                    eventually(lambda client=client: client.pull("Orders"), "a pull on demand")  # type: ignore[misc]
            order(5)
            live.kill()
            live.start()
        order(3)
        with live.client() as client:
            monkeypatch.setenv("FLYBALL_URL", live.url)
            monkeypatch.setenv("FLYBALL_TOKEN", live.layout.token.read_text().strip())
            eventually(lambda: flyball("ingest", "Orders", "--pull").status == 0, "a pull by command")

            def caught_up() -> bool:
                now = {stem_of(s["name"]): s for s in client.sources()}
                return bool(now["Orders"]["rows"] >= len(wanted) and now["LargeOrders"]["derive"]["behind"] == 0)

            eventually(caught_up, "all orders")
            taken = {s["name"]: s["rows"] for s in client.sources()}
            assert taken["Orders"] == len(wanted), "each has one log sequence number"
            horizons = eventually(lambda: client.flush(), "a flush")
            told = eventually(lambda: out if "ORDERS_DSN" in (out := flyball("status").out) else "", "the status")
            plan = flyball("plan", str(PROJECT)).out
            metrics = flyball("status", "--json").out
        assert live.stop() == 0

    lake = DeltaLake(live.layout.lake)
    orders = lake.scan("Orders").collect()
    assert orders.sort("id").select("id", "amount").rows() == [(n, a) for n, (_, a) in enumerate(wanted, 1)]
    (large,) = (name for name in horizons if stem_of(name) == "LargeOrders")
    derived = lake.scan(large).collect().sort("id")
    assert derived["id"].to_list() == [n for n, (_, amount) in enumerate(wanted, 1) if amount > 50]
    for row in derived.iter_rows(named=True):
        before = orders.filter(
            (pl.col("customer") == row["customer"])
            & (pl.col("_event_time") < row["_event_time"])
            & (pl.col("_known_at") <= row["_known_at"])
        ).sort("_event_time", "_lsn")
        assert row["before"] == (before["amount"][-1] if before.height else None)
    shown = [told.encode(), plan.encode(), metrics.encode()]
    shown += [path.read_bytes() for path in live.layout.root.rglob("*") if path.is_file()]
    assert len(shown) > 20
    for text in shown:
        assert PASSWORD.encode() not in text
        assert ENCODED.encode() not in text
