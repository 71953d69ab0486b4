"""The history as files: what was paid and charged back before the live stream begins, with the dirt that files have."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flyball.demo.simulate import Payments, Scenario

PAYMENT_COLUMNS = ("id", "card", "merchant", "amount", "channel", "country", "time")
CHARGEBACK_COLUMNS = ("payment", "time")

# What is wrong with a row, as a change to an honest one: each must end in quarantine with its reason, and harm nothing.
DIRT: tuple[dict[str, str], ...] = (
    {"amount": ""},
    {"amount": "-4.00"},
    {"amount": "12,50"},
    {"channel": "carrier pigeon"},
    {"country": ""},
    {"time": "yesterday"},
    {"card": ""},
    {"card": "m-001", "merchant": "m-001"},
)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Two CSV files and how many rows of each kind they hold; a doubled row is a correct one with a known id."""

    payments: Path
    chargebacks: Path
    good: int
    dirty: int
    doubled: int
    charged_back: int


def write_history(payments: Payments, scenario: Scenario, folder: Path, *, every: int = 1_500) -> History:
    """Write `payments.csv` and `chargebacks.csv` below `folder`; after each `every` rows a dirty and a doubled one.

    The files are a function of the scenario alone, to the byte.
    """
    good = int(np.searchsorted(payments.time, scenario.live_from))
    dirty: list[dict[str, str]] = []
    doubled = 0
    rows: list[dict[str, str]] = []
    for index in range(good):
        row = payments.row(index)
        rows.append(row)
        if index % every == every - 1:
            wrong = DIRT[len(dirty) % len(DIRT)]
            dirty.append(row | {"id": f"x{len(dirty):06d}"} | wrong)
            rows += [dirty[-1], row]
            doubled += 1
    known = np.flatnonzero(payments.fraud & (payments.charged_back < scenario.live_from))
    known = known[np.argsort(payments.charged_back[known], kind="stable")]
    folder.mkdir(parents=True, exist_ok=True)
    history = History(
        payments=folder / "payments.csv",
        chargebacks=folder / "chargebacks.csv",
        good=good,
        dirty=len(dirty),
        doubled=doubled,
        charged_back=len(known),
    )
    _write(history.payments, PAYMENT_COLUMNS, rows)
    _write(history.chargebacks, CHARGEBACK_COLUMNS, (payments.chargeback(int(index)) for index in known))
    return history


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
