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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
from brute_force import Seen, Trip, equal, features  # type: ignore[import-not-found]  # the file beside this one

import flyball as fb
from flyball.cli.explain import told as explain_told
from flyball.cli.skew import told as skew_told
from flyball.client import Client
from flyball.client.project import apply, pack
from flyball.define.metrics import metrics_of
from flyball.kernel.errors import ExhaustedError, LateError
from flyball.kernel.settings import Settings
from flyball.platform.supervisor import Supervisor

HERE = Path(__file__).parent
LIVE = 0.2  # the share of the trips, by time, that is replayed
SECOND = 1_000_000
LABELS = 50  # that are sent together
ATTEMPTS = 6
REQUEST = ("company", "pickup_community_area", "dropoff_community_area", "payment_type", "fare")
TEXTS = ("company", "payment_type", "fare", "tips")  # money as text: it is exact
WHOLE = ("trip_start_timestamp", "pickup_community_area", "dropoff_community_area", "trip_seconds")

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """The answer to a request."""

    prediction: str
    version: str
    score: float


@dataclass(slots=True)
class Outcome:
    """What a replay came to, by row of the live part: the answers, and the LSNs of the events that were accepted."""

    asked: dict[int, Asked] = field(default_factory=dict)
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
    settings = Settings(state=state, port=0, replay_from=start * SECOND, audit_share=1.0)
    with Supervisor(settings) as platform, Client(platform.client_settings) as client:
        platform.watch()
        packed = pack(HERE / "project.py")
        apply(client, packed)
        until(lambda: any(one["name"] == "Trips" for one in client.sources()))
        receipt = client.upload("Trips", write(scratch / "history.csv", history))
        print(
            f"history: {receipt['accepted']:,} rows ingested, {receipt['quarantined']} quarantined "
            f"{receipt['reasons']}, warned of {receipt['warnings']}"
        )
        run = trained(client)
        until(lambda: bool(client.service("tip")["version"]))
        print(f"trained on {run['result']['rows']:,} rows: held-out AUC {run['result']['metrics']['auc']:.4f}")
        outcome = replay(client, live)
        logged = predictions(state, {one.prediction for one in outcome.asked.values()})
        sources = {one["name"]: one for one in client.sources()}
        skew = audited(client)
        click.echo(f"\nflyball skew tip\n{skew_told(skew)}")  # which leaves styles out where there is no terminal
        click.echo(f"\n{explained(client, live, outcome)}")
    summary(history, live, receipt, sources["Trips"], run, outcome, skew, check(history, live, outcome, logged))


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


def until(done: Callable[[], bool]) -> None:
    while not done():
        time.sleep(0.2)


def replay(client: Client, live: Sequence[Row]) -> Outcome:
    """At each time at which trips start: push the trips that have ended by then, then ask about those that start."""
    outcome, began = Outcome(), time.monotonic()
    by_start: dict[int, list[int]] = {}
    for index, row in enumerate(live):
        by_start.setdefault(int(row["trip_start_timestamp"]), []).append(index)
    running: list[tuple[int, int]] = []  # (end, row)
    labels: list[dict[str, Any]] = []
    for now, starting in by_start.items():
        client.advance_clock(now * SECOND)
        labels += end_trips(client, live, running, now, outcome)
        if len(labels) >= LABELS:
            client.feedback(labels)
            labels = []
        replies = ask(client, [request(live[index]) for index in starting], now)
        for index, reply in zip(starting, replies, strict=True):
            outcome.asked[index] = Asked(reply["prediction_id"], reply["version"], reply["score"])
            heapq.heappush(running, (now + int(live[index]["trip_seconds"] or 0), index))
    last = max(end for end, _ in running)
    client.advance_clock(last * SECOND)
    client.feedback(labels + end_trips(client, live, running, last, outcome))
    outcome.seconds = time.monotonic() - began
    return outcome


def ask(client: Client, rows: list[dict[str, str | None]], now: int) -> list[dict[str, Any]]:
    """The replies; on a machine that is busy with other things a request may be late, and is asked again."""
    for attempt in range(ATTEMPTS):
        try:
            return client.predict("tip", rows, at=now * SECOND)
        except (LateError, ExhaustedError):
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable")


def end_trips(
    client: Client, live: Sequence[Row], running: list[tuple[int, int]], now: int, outcome: Outcome
) -> list[dict[str, Any]]:
    """Push the events of the trips that ended by `now`; gives their labels, by prediction."""
    ended = []
    while running and running[0][0] <= now:
        ended.append(heapq.heappop(running)[1])
    if not ended:
        return []
    receipt = client.push("Trips", [event(live[index]) for index in ended], idempotency_key=f"trips-{ended[0]}")
    taken = [index for index in ended if fits(live[index])]  # the others are quarantined, and have no LSN
    if receipt["accepted"] != len(taken):
        raise SystemExit(f"{len(taken)} trips fit the contract and {receipt['accepted']} were accepted: {receipt}")
    outcome.lsn |= {index: receipt["first_lsn"] + place for place, index in enumerate(taken)}
    return [{"prediction_id": outcome.asked[index].prediction, "label": big_tip(live[index])} for index in ended]


def request(row: Row) -> dict[str, str | None]:
    return {name: row[name] or None for name in REQUEST}


def event(row: Row) -> dict[str, Any]:
    """A trip as an application would send it: numbers as numbers, and what is empty left out."""
    event: dict[str, Any] = {name: row[name] for name in TEXTS if row[name]}
    event |= {name: int(row[name]) for name in WHOLE if row[name]}
    return event | {"trip_miles": float(row["trip_miles"])}


def big_tip(row: Row) -> bool:
    return float(row["tips"]) > 0.2 * float(row["fare"])


def predictions(state: Path, asked: set[str]) -> dict[str, dict[str, Any]]:
    """The prediction log as it lies in the lake, by id, once all that were asked for have been collected."""
    while True:
        folder = state / "lake" / "predictions"
        frame = pl.read_delta(str(folder)) if folder.exists() else pl.DataFrame({"id": []})
        if asked <= set(frame["id"]):
            return {row["id"]: row for row in frame.iter_rows(named=True)}
        time.sleep(0.5)


def audited(client: Client) -> dict[str, Any]:
    """The platform's own report, once each prediction that it sampled is recomputed: when it is a minute old."""
    while True:
        client.advance_clock(int(client.status()["at"]) + 60 * SECOND)
        report = client.skew("tip")
        if not report["sampling"]["waiting"]:
            return report
        time.sleep(0.2)


def explained(client: Client, live: Sequence[Row], outcome: Outcome) -> str:
    """What was behind one served value: the mean fare of a pickup area of which not too much is known."""
    for index, one in reversed(outcome.asked.items()):
        if not live[index]["pickup_community_area"]:
            continue
        found = client.explain("PickupArea", "fare_mean_30d", prediction=one.prediction)
        if 2 <= len(found["head"]["rows"]) + len(found["tiles"]) <= 6 and found["late"]:
            break
    return f"flyball explain PickupArea.fare_mean_30d --prediction {one.prediction}\n{explain_told(found)}"


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
    for index, one in outcome.asked.items():
        record = logged[one.prediction]
        row, values = live[index], json.loads(record["features"])
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
    area, dropoff = row["pickup_community_area"], row["dropoff_community_area"]
    return Trip(start, row["company"], area, row["fare"], row["tips"], dropoff, lsn)


def fits(row: Row) -> bool:
    """The contract in the words of this file: what `project.py` declares, and no more."""
    miles, fare = float(row["trip_miles"]), float(row["fare"])
    columns = miles <= 100 and fare <= 1_000 and int(row["trip_seconds"] or 0) <= 86_400
    return columns and (fare == 0 or miles <= 2 * fare)


def auc(label: Sequence[bool], score: Sequence[float]) -> float:
    return metrics_of(fb.Binary(), np.array(label, dtype=np.float64), np.array(score))["auc"] or float("nan")


def summary(
    history: Sequence[Row],
    live: Sequence[Row],
    receipt: dict[str, Any],
    source: dict[str, Any],
    run: dict[str, Any],
    outcome: Outcome,
    skew: dict[str, Any],
    checked: Check,
) -> None:
    label = [big_tip(live[index]) for index in outcome.asked]
    score = [one.score for one in outcome.asked.values()]
    cards = [i for i, index in enumerate(outcome.asked) if live[index]["payment_type"] == "Credit Card"]
    total = auc(label, score)
    rows = [
        ("rows in the file", f"{len(history) + len(live):,}"),
        ("rows ingested, quarantined", f"{source['rows']:,}, {source['quarantined']}"),
        ("training set", f"{run['result']['rows']:,} rows (of {receipt['accepted']:,} of history)"),
        ("held-out AUC at training", f"{run['result']['metrics']['auc']:.4f}"),
        ("live requests", f"{len(outcome.asked):,} in {outcome.seconds:.1f} s, with clock, pushes and labels"),
        ("versions that served", ", ".join(sorted({one.version for one in outcome.asked.values()}))),
        ("AUC on the last 20 % by time", f"{total:.4f}"),
        ("AUC on its credit-card rows alone", f"{auc([label[i] for i in cards], [score[i] for i in cards]):.4f}"),
        (
            "served window values equal to brute force",
            f"{checked.compared - len(checked.different):,} of {checked.compared:,}",
        ),
        ("predictions that the platform audited", f"{skew['sampling']['predictions']:,}"),
        ("values of the last 7 days, mismatches", f"{skew['compared']:,}, {skew['mismatched']}: {skew['told']}"),
    ]
    width = max(len(what) for what, _ in rows)
    print()
    for what, figure in rows:
        print(f"{what:<{width}}  {figure}")
    for line in checked.different[:10]:
        print(f"  {line}")
    equal_share = 1 - len(checked.different) / checked.compared if checked.compared else 0.0
    print(f"bar taxi_auc {total:.4f} >=0.93 {'met' if total >= 0.93 else 'missed'}")
    sound = skew["compared"] and not skew["mismatched"]  # where nothing was compared, nothing is shown
    print(f"bar taxi_audited_mismatches {skew['mismatched']} <=0 {'met' if sound else 'missed'}")
    print(f"bar taxi_values_equal {equal_share:.6g} >=1 {'met' if equal_share == 1 else 'missed'}")


if __name__ == "__main__":
    main()
