"""A stream with late, duplicate and corrected requests, what was served from it, and faults of each cause.

What is served is computed by brute force, so that the audit is judged by another program than itself.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import polars as pl

from flyball.define.spec import FeatureSpec, LatestSpec, SourceSpec, ViewSpec
from flyball.features.causes import Cause, Known
from flyball.features.recompute import Definition, Served
from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND, hop
from tests.features.brute import Event, answer
from tests.features.cases import SOURCE, aggregate, col, frame_of
from tests.features.slices import FrameSlices

PAYMENTS = msgspec.structs.replace(SOURCE, key=("shop",))  # `shop` is the payment's number here
CARD = ViewSpec(
    name="Card",
    kind="window",
    source="Payments",
    entity=("card",),
    aggregates=(
        aggregate("n_1h", "count", "1h"),
        aggregate("sum_1d", "sum", "1d", col("amount")),
        aggregate("mean_3h", "mean", "3h", col("score")),
        aggregate("std_6h", "std", "6h", col("score")),
        aggregate("max_12h", "max", "12h", col("amount")),
        aggregate("last_6h", "last", "6h", col("amount")),
    ),
)
NEWEST = ViewSpec(
    name="Newest",
    kind="latest",
    source="Payments",
    entity=("card",),
    latest=(
        LatestSpec(name="amount", column="amount", type="decimal"),
        LatestSpec(name="score", column="score", type="float"),
    ),
    ttl=HOUR,
)
LEAVES = [["view", v.name, name, ["card"]] for v in (CARD, NEWEST) for name in v.features]
FEATURES = (
    *(FeatureSpec(name=f"{leaf[1]}.{leaf[2]}", expr=leaf) for leaf in LEAVES),
    FeatureSpec(name="amount", expr=col("amount")),
    FeatureSpec(name="ratio", expr=["div", col("amount"), ["view", "Card", "mean_3h", ["card"]]]),
)
DEFINITION = Definition(
    features=FEATURES,
    views=(CARD, NEWEST),
    sources=(PAYMENTS,),
    rows="Payments",
    columns=(PAYMENTS.column("card"), PAYMENTS.column("amount")),
)
CARDS = [f"c{n}" for n in range(6)]


def widened(draw: random.Random) -> ViewSpec:
    """The view as it may have been defined before: windows twice as long, or a filter."""
    if draw.random() < 0.5:
        longer = [msgspec.structs.replace(a, window=2 * a.window, hop=hop(2 * a.window)) for a in CARD.aggregates]
        return msgspec.structs.replace(CARD, aggregates=tuple(longer))
    return msgspec.structs.replace(CARD, where=["gt", col("amount"), ["lit", draw.choice([1.0, 3.0])]])


@dataclass
class World:
    """A history, its duplicates, predictions with what they saw, and what is gone by now."""

    draw: random.Random
    events: list[Event] = field(default_factory=list)
    copies: list[tuple[Event, int]] = field(default_factory=list)  # duplicates, and the number of the event each copies
    other: ViewSpec = CARD
    kept: int | None = None

    @property
    def source(self) -> SourceSpec:
        return PAYMENTS


def world(seed: int) -> World:
    draw = random.Random(seed)
    made = World(draw=draw, other=widened(draw))
    start = 1_700_000_000 * SECOND + draw.randrange(DAY)
    rows: list[tuple[int, int, dict[str, Any], int | None]] = []
    for number in range(draw.choice([150, 300])):
        t = start + draw.randrange(2 * DAY)
        lag = draw.choice([0, SECOND, SECOND, 2 * SECOND, MINUTE, 40 * MINUTE])
        values = {
            "card": draw.choice(CARDS),
            "shop": number,
            "amount": draw.randrange(1, 900),
            "count": None,
            "score": draw.uniform(0.5, 9.0),
            "online": None,
            "kind": None,
        }
        rows.append((t + lag, t, values, None))
        if draw.random() < 0.15:
            rows.append((t + lag + draw.randrange(1, HOUR), t, values, number))
    rows.sort(key=lambda row: row[0])
    for lsn, (known, t, values, copied) in enumerate(rows):
        event = Event(lsn=lsn, t=t, known=known, values=values)
        if copied is None:
            made.events.append(event)
        else:
            made.copies.append((event, copied))
    return made


def history(made: World, *, arrived: dict[int, dict[str, Any]] | None = None) -> FrameSlices:
    """The lake: every event and copy, without what is gone, and with the rows that arrived for requests."""
    frame = frame_of([*made.events, *(event for event, _ in made.copies)])
    keys = [str(event.values["shop"]).encode() for event in made.events]
    keys += [str(number).encode() for _, number in made.copies]
    frame = frame.with_columns(pl.Series("_key", keys, dtype=pl.Binary))
    if made.kept is not None:
        frame = frame.filter(pl.col("_event_time") >= made.kept)
    if arrived:
        later = int(frame["_lsn"].to_numpy().max()) if len(frame) else 0
        rows = [
            Event(lsn=later + 1 + i, t=10**17, known=10**17, values=values) for i, values in enumerate(arrived.values())
        ]
        more = frame_of(rows).with_columns(
            pl.Series("_key", [str(values["shop"]).encode() for values in arrived.values()], dtype=pl.Binary)
        )
        frame = pl.concat([frame, more])
    return FrameSlices({"Payments": frame.sort("_lsn")}, kept=made.kept)


def features(
    events: list[Event], card: str, amount: int, t: int, views: tuple[ViewSpec, ...] = (CARD, NEWEST)
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for view in views:
        for name, (value, _) in zip(view.features, answer(view, PAYMENTS, events, (card,), t), strict=True):
            found[f"{view.name}.{name}"] = None if value is None else float(value)
    mean = found["Card.mean_3h"]
    found["amount"] = amount / 100
    found["ratio"] = None if not mean else amount / 100 / mean
    return found


@dataclass(frozen=True)
class Case:
    """A prediction as it should have been logged, and what it was served by a fault."""

    record: Served
    seen: list[Event]


def cases(made: World, count: int) -> list[Case]:
    """Predictions without fault, at random times; what each saw is all that was known."""
    draw, found = made.draw, []
    moments = sorted(event.t for event in made.events)[len(made.events) // 3 :]
    for n in range(count):
        t = draw.choice(moments) + draw.choice([0, 1, SECOND, MINUTE, 20 * MINUTE])
        card, amount = draw.choice(CARDS), draw.randrange(1, 900)
        seen = [event for event in made.events if event.known <= t]
        last = max([event.lsn for event in seen] + [e.lsn for e, _ in made.copies if e.known <= t], default=-1)
        record = Served(
            id=f"p{n}",
            at=t,
            inputs={"card": card, "amount": f"{amount / 100:.2f}"},
            key={"shop": 100_000 + n},
            features=features(seen, card, amount, t),
            lsn={"Payments": last},
            known_through={"Payments": t},
        )
        found.append(Case(record=record, seen=seen))
    return found


def inject(cause: Cause | None, made: World, case: Case, arrived: dict[int, dict[str, Any]]) -> Served:
    """The prediction as served under a fault of this cause; None: as it should be."""
    draw, record = made.draw, case.record
    card, t = str(record.inputs["card"]), record.at
    amount = round(float(record.inputs["amount"]) * 100)
    right = dict(record.features)
    if cause is Cause.LATE_DATA:
        right = features(made.events, card, amount, t)
    elif cause is Cause.DUPLICATE:
        copies = [event for event, _ in made.copies if event.known <= t]
        right = features([*case.seen, *copies], card, amount, t)
    elif cause is Cause.TTL:
        immortal = msgspec.structs.replace(NEWEST, ttl=None)
        right = features(case.seen, card, amount, t, (CARD, immortal))
        if draw.random() < 0.3:  # or too early: a value that is there is taken for too old
            right |= {name: None for name in right if name.startswith("Newest.")}
    elif cause is Cause.DEFINITION_CHANGED:
        right = features(case.seen, card, amount, t, (made.other, NEWEST))
    elif cause is Cause.REQUEST_FIELD:
        later = {"card": draw.choice(CARDS) if draw.random() < 0.5 else card, "amount": draw.randrange(1, 900)}
        row: dict[str, Any] = dict.fromkeys(made.events[0].values) | later | {"shop": int((record.key or {})["shop"])}
        arrived[row["shop"]] = row
    elif cause is Cause.NUMERIC:
        names = [n for n, v in right.items() if v and n not in ("Card.n_1h",)]
        for name in draw.sample(names, min(3, len(names))):
            right[name] = (right[name] or 0.0) * (1 + draw.choice([-1, 1]) * 10 ** draw.uniform(-8.5, -4.5))
    elif cause is Cause.UNKNOWN:
        for name in draw.sample(sorted(right), 2):
            value = right[name]
            right[name] = draw.uniform(1e3, 1e6) if value is None else value * draw.uniform(1.5, 9) + 0.37
    return replace(record, features=right)


def known(made: World) -> Known:
    return Known(others={"Card": [(made.other, PAYMENTS)]}, kept_from=lambda source: made.kept)


def differs(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is not b
    return not math.isclose(a, b, rel_tol=1e-9)
