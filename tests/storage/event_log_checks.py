"""What every `EventLog` must do. A new adapter runs these with its own `Open`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from flyball.define.spec import ColumnType
from flyball.ingest.ports import Entry, EventLog, NewBatch, QuarantineChange, RefusedBatch
from flyball.kernel.errors import ConflictError

Open = Callable[[], EventLog]  # opens the same log again
COLUMNS: dict[str, tuple[ColumnType, int]] = {"name": ("string", 0), "fare": ("decimal", 2)}


def batch(
    start: int,
    count: int,
    *,
    source: str = "S",
    live: bool = True,
    key: str = "",
    rejected: int = 0,
    bulk: bool = False,
) -> NewBatch:
    frame = pl.DataFrame(
        {
            "name": pl.Series([f"n{i}" if i % 3 else None for i in range(start, start + count)], dtype=pl.String),
            "fare": pl.Series(range(start, start + count), dtype=pl.Int64),
            "_event_time": pl.Series(range(start, start + count), dtype=pl.Int64),
            "_key": pl.Series([b"%016d" % i for i in range(start, start + count)], dtype=pl.Binary),
        }
    )
    if not live:
        frame = frame.with_columns(_known_at=pl.col("_event_time") + 5)
    entry = Entry(key=key, fingerprint="f", offset=0, count=count, answer={"received": count})
    return NewBatch(
        source=source,
        frame=frame,
        live=live,
        columns=COLUMNS,
        entries=(entry,) if key else (),
        rejected=tuple({"row": {"a": i}, "rule": "null", "message": "m"} for i in range(rejected)),
        bulk=bulk,
    )


def read_all(log: EventLog, source: str = "S", *, after: int = 0, limit: int = 10) -> pl.DataFrame:
    frames = []
    while batches := log.read(source, after=after, limit=limit):
        frames += [b.frame for b in batches]
        after = batches[-1].last_lsn
    return pl.concat(frames)


def lsns_of_a_source_start_at_one_and_have_no_holes(open_log: Open) -> None:
    log = open_log()
    got = log.append([batch(0, 3), batch(0, 2, source="T"), batch(3, 0, rejected=1), batch(3, 4)], now=7)
    assert [(a.first_lsn, a.count, a.known_at) for a in got] == [(1, 3, 7), (1, 2, 7), (4, 0, 7), (4, 4, 7)]
    assert log.last_lsn("S") == 7
    assert log.last_lsn("T") == 2
    assert log.last_lsn("nobody") == 0
    assert read_all(log)["_lsn"].to_list() == list(range(1, 8))


def what_is_read_back_is_what_was_appended(open_log: Open) -> None:
    log = open_log()
    live, history, large = batch(0, 5), batch(5, 5, live=False), batch(10, 30_000, live=False, bulk=True)
    log.append([live, history, large], now=1000)
    frame = read_all(open_log())
    assert frame.columns == ["name", "fare", "_event_time", "_known_at", "_lsn", "_key"]
    assert frame["_known_at"].to_list() == [1000] * 5 + [t + 5 for t in range(5, 30_010)]
    for name in ("name", "fare", "_event_time", "_key"):
        assert frame[name].equals(pl.concat([live.frame[name], history.frame[name], large.frame[name]]))


def some_columns_are_the_same_right_after_the_append_and_later(open_log: Open) -> None:
    log, system = open_log(), ["_event_time", "_known_at", "_lsn", "_key"]
    for number, names in enumerate([(), ("fare",), ("later",), ("name", "later")]):
        source = f"S{number}"
        sent = [
            batch(0, 5, source=source),
            batch(5, 30_000, source=source, live=False, bulk=True),
            batch(30_005, 25_000, source=source, bulk=True),
        ]
        log.append(sent, now=9)
        wanted = [name for name in names if name != "later"] + system
        for reader in (log, log, open_log()):
            for appended, found in zip(sent, reader.read(source, after=0, limit=100_000), strict=True):
                there = found.columns(names)
                assert there.select(wanted).equals(found.frame.select(wanted))
                assert there["_key"].equals(appended.frame["_key"])


def reading_goes_on_within_a_batch_and_respects_its_limit(open_log: Open) -> None:
    log = open_log()
    log.append([batch(0, 3), batch(3, 3), batch(6, 3)], now=1)
    assert [(b.first_lsn, b.last_lsn) for b in log.read("S", after=0, limit=6)] == [(1, 3), (4, 6)]
    assert [(b.first_lsn, b.last_lsn) for b in log.read("S", after=4, limit=1)] == [(4, 6)]
    assert log.read("S", after=9, limit=5) == []


def a_used_key_gives_its_first_answer_and_cannot_be_stored_again(open_log: Open) -> None:
    log = open_log()
    log.append([batch(0, 3, key="k")], now=1)
    stored = open_log().answer("S", "k")
    assert stored is not None
    assert (stored.first_lsn, stored.count, stored.known_at) == (1, 3, 1)
    assert stored.answer == {"received": 3}
    assert log.answer("T", "k") is None
    with pytest.raises(ConflictError):
        log.append([batch(3, 2), batch(5, 3, key="k")], now=2)
    assert log.last_lsn("S") == 3, "a transaction that fails stores nothing of any batch"


def known_at_never_goes_back(open_log: Open) -> None:
    log = open_log()
    log.append([batch(0, 1)], now=100)
    assert log.append([batch(1, 1)], now=50)[0].known_at == 100
    assert log.append([batch(0, 1, source="T")], now=60)[0].known_at == 100, "of any source"


def a_position_is_stored_with_its_batch_or_not_at_all(open_log: Open) -> None:
    log = open_log()
    assert log.position("S") == ""
    log.append([replace(batch(0, 2), position="a"), replace(batch(0, 0, source="T"), position="t")], now=1)
    log.append([batch(2, 1)], now=2)
    assert (open_log().position("S"), log.position("T")) == ("a", "t")
    log.append([batch(3, 1, key="k")], now=3)
    with pytest.raises(ConflictError):
        log.append([replace(batch(4, 1, key="k"), position="b")], now=4)
    assert (log.position("S"), log.last_lsn("S")) == ("a", 4)
    log.append([replace(batch(4, 0), position="c")], now=5)
    assert (log.trim("S", through_lsn=9, through_batch=9) > 0, log.position("S")) == (True, "c")


def rejected_rows_are_kept_with_their_batch(open_log: Open) -> None:
    log = open_log()
    log.append([batch(0, 1, rejected=2), batch(1, 1), batch(2, 0, rejected=1)], now=9)
    found = open_log().read_rejected("S", after=0, limit=10)
    assert [len(b.rows) for b in found] == [2, 1]
    assert found[0].rows[1] == {"row": {"a": 1}, "rule": "null", "message": "m"}
    assert log.read_rejected("S", after=found[0].batch, limit=10) == found[1:]
    assert log.totals()["S"].rules == {"null": 3}


def trimming_keeps_what_either_table_still_needs(open_log: Open) -> None:
    log = open_log()
    got = log.append([batch(0, 3, key="k"), batch(3, 3, rejected=1), batch(6, 30_000, bulk=True)], now=1)
    assert log.trim("S", through_lsn=2, through_batch=0) == 0
    assert log.trim("S", through_lsn=6, through_batch=0) == 1, "the second batch's rejected rows are not committed"
    assert log.trim("S", through_lsn=6, through_batch=got[1].batch) == 1
    assert read_all(log)["_lsn"].to_list()[0] == 7
    assert log.trim("S", through_lsn=30_006, through_batch=got[2].batch) == 1
    assert log.trim("S", through_lsn=30_006, through_batch=got[2].batch) == 0
    again = open_log()
    assert again.last_lsn("S") == 30_006
    assert again.append([batch(0, 1)], now=2)[0].first_lsn == 30_007
    assert again.answer("S", "k") is not None, "answers outlive their rows"


def totals_say_what_was_ever_taken(open_log: Open) -> None:
    log = open_log()
    assert log.totals() == {}
    log.append([batch(0, 3, rejected=1), batch(3, 2)], now=5)
    total = open_log().totals()["S"]
    facts: dict[str, Any] = {"last_lsn": 5, "last_known_at": 5, "oldest_lsn": 1, "rejected": 1, "pending_batches": 2}
    assert {name: getattr(total, name) for name in facts} == facts
    assert total.last_event_time == 4
    assert total.columns == COLUMNS


def change(place: int, state: Any = "retried", **more: Any) -> QuarantineChange:
    return QuarantineChange(batch=1, place=place, state=state, **more)


def a_quarantined_row_changes_with_the_events_that_it_becomes_or_not_at_all(open_log: Open) -> None:
    log = open_log()
    log.append([batch(0, 2, rejected=3)], now=5)
    taken = replace(batch(2, 2), changes=(change(1, lsn=2), change(3, "open", rule="null", message="again")))
    log.append([taken], now=6)
    log.resolve("S", [change(2, "dropped")], now=7)
    again = open_log()
    found = [(c.place, c.state, c.rule, c.lsn, c.at) for c in again.quarantine_states("S")]
    assert found == [(1, "retried", "", 4, 6), (2, "dropped", "", 0, 7), (3, "open", "null", 0, 6)]
    with pytest.raises(ConflictError) as caught:
        again.append([replace(batch(9, 1), changes=(change(3), change(1)))], now=8)
    assert caught.value.code == "quarantine_changed"
    assert again.last_lsn("S") == 4, "nothing of it is stored"
    assert again.quarantine_states("S")[2].state == "open"
    again.resolve("S", [change(3)], now=9)
    assert again.totals()["S"].resolved == 3


def changes_of_the_quarantine_are_numbered_and_each_row_shows_its_newest(open_log: Open) -> None:
    log = open_log()
    log.append([batch(0, 0, rejected=3)], now=5)
    log.resolve("S", [change(1, "open"), change(2, "open")], now=6)
    log.resolve("S", [change(1), change(3, "dropped")], now=7)
    changes = log.quarantine_changes("S", after=0, limit=10)
    assert [(c.number, c.place, c.state) for c in changes] == [(2, 2, "open"), (3, 1, "retried"), (4, 3, "dropped")]
    assert log.quarantine_changes("S", after=2, limit=1) == changes[1:2]
    assert log.quarantine_changes("T", after=0, limit=1) == []


def refusals_and_warnings_are_counted_and_the_newest_refusals_are_kept(open_log: Open) -> None:
    log = open_log()
    refused = [
        RefusedBatch(source="S", rule=rule, received=n, broken=1, message=f"m{n}", examples=({"row": {"a": n}},))
        for n, rule in enumerate(("small", "null", "small"))
    ]
    log.append([replace(batch(0, 1, source="T"), warnings={"w": 2}, rows_of_last=7)], now=4, refused=refused)
    log.append([replace(batch(0, 1, source="T"), warnings={"w": 1, "v": 1})], now=5)
    again = open_log()
    assert again.refusals("S", limit=2) == [replace(item, at=4) for item in refused[:0:-1]]
    totals = again.totals()
    assert (totals["S"].refused, totals["S"].last_lsn) == ({"small": 2, "null": 1}, 0)
    assert (totals["T"].warnings, totals["T"].last_rows) == ({"w": 3, "v": 1}, 7)
    log.append([], now=6, refused=refused * 100)
    assert len(log.refusals("S", limit=1_000)) <= 500, "bounded"


CHECKS = (
    a_quarantined_row_changes_with_the_events_that_it_becomes_or_not_at_all,
    changes_of_the_quarantine_are_numbered_and_each_row_shows_its_newest,
    refusals_and_warnings_are_counted_and_the_newest_refusals_are_kept,
    lsns_of_a_source_start_at_one_and_have_no_holes,
    what_is_read_back_is_what_was_appended,
    some_columns_are_the_same_right_after_the_append_and_later,
    reading_goes_on_within_a_batch_and_respects_its_limit,
    a_used_key_gives_its_first_answer_and_cannot_be_stored_again,
    known_at_never_goes_back,
    a_position_is_stored_with_its_batch_or_not_at_all,
    rejected_rows_are_kept_with_their_batch,
    trimming_keeps_what_either_table_still_needs,
    totals_say_what_was_ever_taken,
)
