"""Payments of a market as they come: some late, some at the same moment, some without a card or a shop."""

from __future__ import annotations

import random
from typing import Any

from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND, parse_time, show_time

NOW = parse_time("2026-02-01T00:00:00Z")
CARDS = [f"card-{n}" for n in range(6)]
SHOPS = [f"shop-{n}" for n in range(3)]
KINDS = ["chip", "online", "swipe"]
LAGS = [0, 0, 0, SECOND, 7 * MINUTE, 90 * MINUTE, 11 * HOUR]  # how late an event arrives


def payment(number: int, seed: random.Random, at: int) -> dict[str, Any]:
    return {
        "id": f"payment-{number}",
        "card": seed.choice([*CARDS, None]),
        "shop": seed.choice([*SHOPS, None]),
        "kind": seed.choice(KINDS),
        "amount": f"{seed.uniform(0.5, 300):.2f}",
        "holder": None,
        "time": show_time(at),
    }


def history(count: int = 300, *, before: int = NOW, seed: int = 3) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Payments of the ten days before, and the chargebacks of the large ones."""
    draw = random.Random(seed)
    times = [before - 10 * DAY + n * (10 * DAY - MINUTE) // count for n in range(count)]
    payments = [payment(-n - 1, draw, at) for n, at in enumerate(times)]
    chargebacks = [
        {"payment": row["id"], "time": show_time(at + HOUR)}
        for row, at in zip(payments, times, strict=True)
        if float(row["amount"]) > 200 and at + HOUR < before
    ]
    return payments, chargebacks
