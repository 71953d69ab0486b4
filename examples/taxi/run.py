"""The whole loop on the taxi file: `python examples/taxi/run.py PATH/chicago_taxi.csv`.

The first four fifths of the file (by time) are loaded as history and trained on. The rest is replayed as live traffic
on a replay clock: a request when a trip starts, the trip's event and its label when it ends.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from brute_force import Seen, Trip, equal, features  # type: ignore[import-not-found]  # the file beside this one

import flyball as fb
from flyball.client import Client
from flyball.client.project import apply, pack
from flyball.define.metrics import metrics_of
from flyball.kernel.settings import Settings
from flyball.platform.supervisor import Supervisor

HERE = Path(__file__).parent
LIVE = 0.2  # the share of the trips, by time, that is replayed
SECOND = 1_000_000
REQUEST = ("company", "pickup_community_area", "dropoff_community_area", "payment_type", "fare")

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was answered: which row of the live part, the prediction, and its score."""

    row: int
    prediction: str
    version: str
    score: float


@dataclass(slots=True)
class Outcome:
    """What a replay came to. `lsn` of each live row whose event was accepted."""

    asked: list[Asked] = field(default_factory=list)
    lsn: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0


def main() -> None:
    arguments = argparse.ArgumentParser(description="The whole loop on the taxi file.")
    arguments.add_argument("file", type=Path, help="chicago_taxi.csv")
    arguments.add_argument("--state", type=Path, help="a state directory to keep; without it a temporary one")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        go(given.file, given.state or Path(temporary) / "state", Path(temporary))


def go(file: Path, state: Path, scratch: Path) -> None:
    """Play the loop and print the summary."""
    history, live = split(read(file))
    start = int(live[0]["trip_start_timestamp"])
    settings = Settings(state=state, port=0, replay_from=start * SECOND)
    with Supervisor(settings) as platform, Client(platform.client_settings) as client:
        platform.watch()
        packed = pack(HERE / "project.py")
        apply(client, packed)
        receipt = client.upload("Trips", write(scratch / "history.csv", history))
        print(
            f"history: {receipt['accepted']:,} rows ingested, {receipt['quarantined']} quarantined {receipt['reasons']}"
        )
        run = trained(client)
        served(client)
        print(f"trained on {run['result']['rows']:,} rows: held-out AUC {run['result']['metrics']['auc']:.4f}")
        outcome = replay(client, live)
        logged = predictions(client, state, len(outcome.asked))
        sources = {one["name"]: one for one in client.sources()}
    summary(history, live, receipt, sources["Trips"], run, outcome, check(history, live, outcome, logged))


# the file


def read(file: Path) -> list[Row]:
    """The rows in time order; rows of one time in the order of the file."""
    with file.open(newline="") as opened:
        return sorted(csv.DictReader(opened), key=lambda row: int(row["trip_start_timestamp"]))


def split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """History and the live part: the last fifth, beginning where a new time does."""
    cut = round(len(rows) * (1 - LIVE))
    while rows[cut]["trip_start_timestamp"] == rows[cut - 1]["trip_start_timestamp"]:
        cut += 1
    return rows[:cut], rows[cut:]


def write(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# the loop


def trained(client: Client) -> dict[str, Any]:
    """The first run, that `apply` asked for; it started when there were rows."""
    while True:
        run = client.run(client.runs(model="tip")[-1]["run"])
        if run["state"] == "succeeded":
            return run
        if run["state"] == "failed":
            raise SystemExit(f"the training failed: {run['error']}")
        time.sleep(0.2)


def served(client: Client) -> None:
    while not client.service("tip")["version"]:
        time.sleep(0.2)


def replay(client: Client, live: Sequence[Row]) -> Outcome:
    """Trips that have ended are pushed before trips that start then are asked about."""
    outcome, began = Outcome(), time.monotonic()
    running: list[tuple[int, int]] = []  # (end, row)
    waiting = sorted({int(row["trip_start_timestamp"]) for row in live})
    by_start: dict[int, list[int]] = {}
    for index, row in enumerate(live):
        by_start.setdefault(int(row["trip_start_timestamp"]), []).append(index)
    for now in waiting:
        end_trips(client, live, running, now, outcome)
        client.advance_clock(now * SECOND)
        asked = by_start[now]
        replies = client.predict("tip", [request(live[index]) for index in asked], at=now * SECOND)
        for index, reply in zip(asked, replies, strict=True):
            if "error" not in reply:  # a request that breaks the contract is refused by name
                outcome.asked.append(Asked(index, reply["prediction_id"], reply["version"], reply["score"]))
            heapq.heappush(running, (now + int(live[index]["trip_seconds"] or 0), index))
    end_trips(client, live, running, max(end for end, _ in running), outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


def end_trips(client: Client, live: Sequence[Row], running: list[tuple[int, int]], now: int, outcome: Outcome) -> None:
    """Push the events of the trips that ended by `now`, each at its own end."""
    while running and running[0][0] <= now:
        end = running[0][0]
        ended = []
        while running and running[0][0] == end:
            ended.append(heapq.heappop(running)[1])
        client.advance_clock(end * SECOND)
        for index in ended:
            receipt = client.push("Trips", [event(live[index])], idempotency_key=f"trip-{index}")
            if receipt["accepted"]:
                outcome.lsn[index] = receipt["first_lsn"]
        labels = {one.row: one.prediction for one in outcome.asked if one.row in ended}
        items = [{"prediction_id": p, "label": big_tip(live[index])} for index, p in labels.items()]
        if items:
            client.feedback(items)


def request(row: Row) -> dict[str, str | None]:
    return {name: row[name] or None for name in REQUEST}


def event(row: Row) -> dict[str, str | None]:
    return {name: value or None for name, value in row.items()}


def big_tip(row: Row) -> bool:
    return float(row["tips"]) > 0.2 * float(row["fare"])


def predictions(client: Client, state: Path, count: int) -> dict[str, dict[str, Any]]:
    """The prediction log as it lies in the lake, by id, once all of it has been collected."""
    while True:
        folder = state / "lake" / "predictions"
        frame = pl.read_delta(str(folder)) if folder.exists() else pl.DataFrame()
        if frame.height >= count:
            return {row["id"]: row for row in frame.iter_rows(named=True)}
        time.sleep(0.5)


# the figures


@dataclass(frozen=True, slots=True)
class Check:
    compared: int
    different: list[str]


def check(history: Sequence[Row], live: Sequence[Row], outcome: Outcome, logged: dict[str, dict[str, Any]]) -> Check:
    """Each served window value against brute force over the raw file."""
    trips = [trip(row) for row in history if fits(row)]
    trips += [trip(live[index], lsn) for index, lsn in outcome.lsn.items()]
    compared, different = 0, []
    for one in outcome.asked:
        record = logged[one.prediction]
        row, values = live[one.row], json.loads(record["features"])
        seen = Seen(
            at=int(row["trip_start_timestamp"]),
            lsn=json.loads(record["lsn"])["Trips"],
            known_through=json.loads(record["known_through"])["Trips"] // SECOND,
        )
        for name, expected in features(row["company"], row["pickup_community_area"], seen, trips).items():
            compared += 1
            if not equal(expected, values[name]):
                different.append(f"{one.prediction} {name}: served {values[name]}, brute force {expected}")
    return Check(compared, different)


def trip(row: Row, lsn: int | None = None) -> Trip:
    start = int(row["trip_start_timestamp"])
    return Trip(start, row["company"], row["pickup_community_area"], row["fare"], row["tips"], lsn)


def fits(row: Row) -> bool:
    """The contract in the words of this file: what `project.py` declares, and no more."""
    return float(row["trip_miles"]) <= 100 and float(row["fare"]) <= 1_000 and int(row["trip_seconds"] or 0) <= 86_400


def auc(label: Sequence[bool], score: Sequence[float]) -> float:
    return metrics_of(fb.Binary(), np.array(label, dtype=np.float64), np.array(score))["auc"] or float("nan")


def summary(
    history: Sequence[Row],
    live: Sequence[Row],
    receipt: dict[str, Any],
    source: dict[str, Any],
    run: dict[str, Any],
    outcome: Outcome,
    checked: Check,
) -> None:
    label = [big_tip(live[one.row]) for one in outcome.asked]
    score = [one.score for one in outcome.asked]
    cards = [i for i, one in enumerate(outcome.asked) if live[one.row]["payment_type"] == "Credit Card"]
    total = auc(label, score)
    rows = [
        ("rows in the file", f"{len(history) + len(live):,}"),
        ("rows ingested, quarantined", f"{source['rows']:,}, {source['quarantined']}"),
        ("training set", f"{run['result']['rows']:,} rows (of {receipt['accepted']:,} of history)"),
        ("held-out AUC at training", f"{run['result']['metrics']['auc']:.4f}"),
        ("live requests", f"{len(outcome.asked):,} in {outcome.seconds:.1f} s, with clock, pushes and labels"),
        ("versions that served", ", ".join(sorted({one.version for one in outcome.asked}))),
        ("AUC on the last 20 % by time", f"{total:.4f}"),
        ("AUC on its credit-card rows alone", f"{auc([label[i] for i in cards], [score[i] for i in cards]):.4f}"),
        (
            "served window values equal to brute force",
            f"{checked.compared - len(checked.different):,} of {checked.compared:,}",
        ),
    ]
    width = max(len(what) for what, _ in rows)
    print()
    for what, figure in rows:
        print(f"{what:<{width}}  {figure}")
    for line in checked.different[:10]:
        print(f"  {line}")
    equal_share = 1 - len(checked.different) / checked.compared if checked.compared else 0.0
    print(f"bar taxi_auc {total:.4f} >=0.93 {'met' if total >= 0.93 else 'missed'}")
    print(f"bar taxi_values_equal {equal_share:.6g} >=1 {'met' if equal_share == 1 else 'missed'}")


if __name__ == "__main__":
    main()
