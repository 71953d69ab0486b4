"""An erasure leaves no byte of a value in the state directory, and the others as if it had never been there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball as fb
from flyball.kernel.errors import InvalidError, NotFoundError
from flyball.kernel.times import DAY, HOUR, MINUTE, parse_time, show_time
from flyball.storage.event_log import _open
from flyball.testing import TestPlatform, platform
from tests.scenarios.test_skew import audit_everything

NOW = parse_time("2026-03-01T12:00:00Z")
MARKER = "MARKER-4111-7Q"


class Payments(fb.Source, event_time="time", key="id", known=fb.delay("30m")):
    id = fb.String()
    card = fb.String(pii=True)
    shop = fb.String()
    amount = fb.Decimal(2, ge=0)
    time = fb.Timestamp()


class Card(fb.WindowView, source=Payments, entity=Payments.card):
    seen = fb.count("1d")
    total = fb.sum(Payments.amount, "1d")


class Shop(fb.WindowView, source=Payments, entity=Payments.shop):
    seen = fb.count("1d")
    total = fb.sum(Payments.amount, "1d")
    largest = fb.max(Payments.amount, "1d")


class Everyone(fb.WindowView, source=Payments):
    mean = fb.mean(Payments.amount, "1d")


PROJECT = fb.Project("market", services=[fb.Service("look", rows=Payments, features=[Card, Shop, Everyone])])


def row(number: int, card: str, ago: int, amount: str = "5.00", *, now: int = NOW) -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "card": card,
        "shop": f"s{number % 3}",
        "amount": amount,
        "time": show_time(now - ago),
    }


def fill(p: TestPlatform, cards: tuple[str, ...]) -> None:
    """History, some of it in the lake and some held back; pushes; refused rows. Numbers depend on the card's place."""
    for place, card in enumerate(("a", MARKER, "b")):
        if card not in cards:
            continue
        base = place * 100
        p.load("Payments", [row(base + n, card, (n + 1) * HOUR, f"{n + place}.25") for n in range(6)])
        p._ingest.flush()
        p.load("Payments", [row(base + 10 + n, card, n * MINUTE) for n in range(3)])  # known in half an hour
        p.push("Payments", [row(base + 20, card, 1, "7.00"), row(base + 21, card, 2, "-3.00")])


def ask(p: TestPlatform, card: str, shop: str) -> dict[str, Any]:
    return dict(p.predict("look", id="r", card=card, shop=shop, amount="1.00"))


def holds(folder: Path, marker: str) -> list[str]:
    """The files with the marker in their bytes, or in what their compression hides."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        inside = marker.encode() in data
        if path.suffix == ".parquet":
            inside |= marker in str(pl.read_parquet(io.BytesIO(data)).to_dicts())
        if inside:
            found.append(str(path.relative_to(folder)))
    return found


def in_log(p: TestPlatform, marker: str) -> bool:
    """Whether the log's batches hold it, behind their compression."""
    log = p._ingest._log
    payloads = log._select("SELECT payload, rejected FROM batches", ())  # type: ignore[attr-defined]
    texts = []
    for payload, rejected in payloads:
        kind, _ = _open(payload)
        texts.append(str(log._frame(payload, None).to_dicts()) if kind else "")  # type: ignore[attr-defined]
        if rejected:
            import zlib

            texts.append(zlib.decompress(_open(rejected)[1]).decode())
    return any(marker in text for text in texts)


def test_no_byte_of_an_erased_card_is_left_and_the_others_are_as_if_it_had_never_been() -> None:
    with platform(PROJECT, at=NOW) as p:
        fill(p, ("a", MARKER, "b"))
        reply = ask(p, MARKER, "s1")
        p.tick()
        assert holds(p._folder, MARKER) or in_log(p, MARKER)
        done = p.erase("Payments", card=MARKER)
        assert done["step"] == "done"
        (target,) = done["targets"]
        assert (target["rows"], target["quarantined"], done["predictions"]) == (10, 1, 1)
        assert holds(p._folder, MARKER) == []
        assert not in_log(p, MARKER)
        assert MARKER not in str(p.quarantine("Payments"))
        assert len(p.quarantine("Payments")) == 2
        receipt = p.prediction(reply["prediction_id"])["prediction"]
        assert (receipt["inputs"], receipt["features"], receipt["key"]) == ({}, {}, None)
        assert receipt["version"] == "look/1"
        gone = ask(p, MARKER, "s9")["values"]
        p.advance(HOUR)  # what was held back is known now
        with platform(PROJECT, at=NOW) as other:
            fill(other, ("a", "b"))
            assert gone == ask(other, MARKER, "s9")["values"]
            other.advance(HOUR)
            for card in ("a", "b", MARKER):
                for shop in ("s0", "s1", "s2"):
                    assert ask(p, card, shop)["values"] == ask(other, card, shop)["values"]
        assert MARKER not in str(p.facts(limit=1_000))
        kinds = [fact["kind"] for fact in p.facts(limit=1_000) if fact["kind"].startswith("erasure.")]
        assert kinds == [f"erasure.{step}" for step in ("done", "turned", "erased", "counted", "request")]


def test_a_value_that_is_not_pii_goes_from_the_predictions_and_their_segments_as_well() -> None:
    with platform(PROJECT, at=NOW) as p:
        p.load("Payments", [row(1, "a", HOUR) | {"shop": MARKER}, row(2, "a", 2 * HOUR)])
        for shop in (MARKER, "s2"):
            ask(p, "a", shop)
        assert [path for path in holds(p._folder, MARKER) if path.startswith("predictions")]
        done = p.erase("Payments", shop=MARKER)
        assert (done["predictions"], done["targets"][0]["rows"]) == (1, 1)
        assert holds(p._folder, MARKER) == []
        assert not in_log(p, MARKER)
        assert ask(p, "a", "s2")["values"]["Card.seen"] == 1.0


def test_what_the_skew_audit_sampled_goes_too_where_it_waits_and_where_it_was_looked_at() -> None:
    with platform(PROJECT, at=NOW) as p:
        audit_everything(p)
        p.load("Payments", [row(1, "a", HOUR) | {"shop": MARKER}, row(2, "a", 2 * HOUR)])
        ask(p, "a", MARKER)
        p.advance(2 * MINUTE)
        assert p._control.skew("look")["sampling"]["predictions"] == 1
        ask(p, "b", MARKER)
        ask(p, "c", "s2")
        p.tick()
        assert any(path.startswith("metadata") for path in holds(p._folder, MARKER))
        p.erase("Payments", shop=MARKER)
        assert holds(p._folder, MARKER) == []
        p.advance(2 * MINUTE)
        assert p._control.skew("look")["sampling"]["predictions"] == 2  # the other one


def test_events_that_come_after_an_erasure_are_taken_and_the_log_goes_on() -> None:
    with platform(PROJECT, at=NOW) as p:
        fill(p, ("a", MARKER, "b"))
        p.erase("Payments", card=MARKER)
        receipt = p.push("Payments", [row(900, MARKER, 1), row(901, "a", 1)])
        assert (receipt["accepted"], receipt["first_lsn"]) == (2, 31)
        assert ask(p, MARKER, "s0")["values"]["Card.seen"] == 1.0
        p._ingest.flush()
        assert p._ingest.status()["sources"][0]["lag"] == 0
        again = p.push("Payments", [row(120, MARKER, 1, "7.00")])  # one that was erased may come again
        assert again["accepted"] == 1


def test_counting_changes_nothing_and_a_mistake_is_told_without_the_value() -> None:
    with platform(PROJECT, at=NOW) as p:
        fill(p, ("a", MARKER))
        counts = p._control.erase("Payments", "card", MARKER, actor=fb_actor(), dry_run=True)
        assert (counts["step"], counts["targets"][0]["rows"]) == ("dry_run", 10)
        assert p._control.erasures() == []
        with pytest.raises(NotFoundError) as caught:
            p.erase("Payments", crad=MARKER)
        assert caught.value.code == "column_not_found"
        assert MARKER not in str(caught.value)
        with pytest.raises(InvalidError) as bad:
            p.erase("Payments", amount="much")
        assert (bad.value.code, "much" in str(bad.value)) == ("bad_value", False)


def test_a_number_is_erased_by_its_value_however_it_is_written() -> None:
    with platform(PROJECT, at=NOW) as p:
        p.load("Payments", [row(1, "a", HOUR, "7.50"), row(2, "a", 2 * HOUR, "8.00")])
        assert p.erase("Payments", amount="7.5")["targets"][0]["rows"] == 1
        assert ask(p, "a", "s1")["values"]["Card.total"] == 8.0


def fb_actor() -> Any:
    from flyball.kernel.facts import Actor

    return Actor(name="ann")


def test_an_erased_row_is_not_in_old_versions_of_the_lake() -> None:
    with platform(PROJECT, at=NOW) as p:
        fill(p, ("a", MARKER))
        p._ingest.flush()
        p.erase("Payments", card=MARKER)
        table = pl.scan_delta(str(p._folder / "lake" / "Payments"))
        assert table.filter(pl.col("card") == MARKER).collect().height == 0
        assert table.collect().height == 10
        p.advance(DAY)
        p.push("Payments", [row(500, "a", 1, now=p.clock.now())])
        p._ingest.flush()
        assert table.collect().height == 11 or pl.read_delta(str(p._folder / "lake" / "Payments")).height == 11


@pytest.mark.parametrize("name", ["Jane Markerdoe", "jane+m@markerdoe.org"])
def test_refused_rows_go_wherever_in_them_the_value_stands(tmp_path: Path, name: str) -> None:
    table, lines = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    time = show_time(NOW - HOUR)
    table.write_text(f"id,card,shop,amount,time\n1,{name},s1,5,{time}\n2,oh,{name},s1,5,{time}\n3,b,s1,-5,{time}\n")
    lines.write_text(f'{{"id":"4","card":"{name}","shop":"s1","amount":"5","time":"{time}"\n7\n')
    with platform(PROJECT, at=NOW) as p:
        p.load("Payments", table)
        p.load("Payments", lines)
        p._ingest.flush()
        misnamed = row(5, "x", 1)
        p.push("Payments", [row(6, name, 1), {**{k: v for k, v in misnamed.items() if k != "card"}, "crad": name}])
        (target,) = p.erase("Payments", card=name)["targets"]
        assert (target["rows"], target["quarantined"]) == (2, 3)
        assert holds(p._folder, name) == []
        assert not in_log(p, name)
        left = p._ingest._lake.read("Payments__quarantine")["row"].to_list()
        assert len(left) == 2  # the negative amount, and the number
