"""Bad input, as a user meets it: a clear error with the value, what is right and what to do next; and nothing lost.

Each case goes through the command line to a real platform. What it accepts and what it keeps in quarantine is counted
at the end, against the lake.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball as fb
from flyball.cli.errors import report
from flyball.kernel.errors import ExhaustedError
from flyball.kernel.files import FORMAT_VERSION, write_document
from flyball.kernel.layout import Layout
from flyball.kernel.times import DAY, show_time
from flyball.storage.lake import DeltaLake
from flyball.testing import platform
from tests.cli.run_cli import Ran, flyball
from tests.scenarios.desk import broken
from tests.scenarios.desk.conftest import PII, Desk, now, ticket
from tests.scenarios.market.project import Card, Payments, market
from tests.scenarios.market.stream import NOW, history

pytestmark = pytest.mark.slow
COLUMNS = ["id", "team", "channel", "hours", "email", "escalated", "time"]


def csv(path: Path, rows: Sequence[dict[str, Any]], *, without: str = "") -> Path:
    names = [name for name in COLUMNS if name != without]
    lines = [",".join(names), *(",".join(cell(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def cell(value: Any) -> str:
    return "" if value is None else str(value)


def past(number: int, **fields: Any) -> dict[str, Any]:
    """A ticket of history; the numbers of each case are its own."""
    return ticket(number, now() - 60_000_000, **fields)


def missing_column(desk: Desk, folder: Path) -> Ran:
    return desk.cli("ingest", "Tickets", csv(folder / "tickets.csv", [past(1_000)], without="hours"))


def wrong_type(desk: Desk, folder: Path) -> Ran:
    rows = [past(2_000), past(2_001, hours="many"), past(2_002)]
    return desk.cli("ingest", "Tickets", csv(folder / "tickets.csv", rows))


def unknown_category(desk: Desk, folder: Path) -> Ran:
    rows = [past(3_000, channel="phon"), past(3_001)]
    return desk.cli("ingest", "Tickets", csv(folder / "tickets.csv", rows))


def unknown_category_asked(desk: Desk, folder: Path) -> Ran:
    return desk.cli("predict", "escalation", "team=red", "channel=phon", "hours=1", f"email={PII}@x")


def wrong_type_asked(desk: Desk, folder: Path) -> Ran:
    return desk.cli("predict", "escalation", "team=red", "channel=phone", "hours=many", f"email={PII}@x")


def ahead_of_the_clock(desk: Desk, folder: Path) -> Ran:
    rows = [past(4_000, time=now() + DAY), past(4_001)]
    return desk.cli("ingest", "Tickets", csv(folder / "tickets.csv", rows))


def truncated_parquet(desk: Desk, folder: Path) -> Ran:
    whole = folder / "tickets.parquet"
    pl.DataFrame([past(n) for n in range(5_000, 5_050)]).write_parquet(whole)
    whole.write_bytes(whole.read_bytes()[:-200])
    return desk.cli("ingest", "Tickets", whole)


def duplicate_id(desk: Desk, folder: Path) -> Ran:
    return desk.cli("ingest", "Tickets", csv(folder / "tickets.csv", [past(6_000), past(6_000), past(6_001)]))


def project(text: str, command: str = "check") -> Callable[[Desk, Path], Ran]:
    def run(desk: Desk, folder: Path) -> Ran:
        (folder / "project.py").write_text(text)
        if command == "check":  # needs no platform
            return flyball("check", folder / "project.py")
        return desk.cli(command, folder / "project.py")

    return run


def taken_port(desk: Desk, folder: Path) -> Ran:
    return flyball("up", "--state", folder / "state", "--port", desk.platform.port)


def newer_state(desk: Desk, folder: Path) -> Ran:
    layout = Layout(folder / "state")
    layout.create()
    write_document(layout.format, "flyball.state", {"state_version": FORMAT_VERSION + 1})
    before = sorted((path, path.stat().st_mtime_ns) for path in layout.root.rglob("*"))
    ran = flyball("up", "--state", layout.root, "--port", 0)
    assert sorted((path, path.stat().st_mtime_ns) for path in layout.root.rglob("*")) == before, "it is left alone"
    return ran


def two_platforms(desk: Desk, folder: Path) -> Ran:
    return desk.cli("up", "--port", 0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`says`: what the message has in it: the value, what would be right, the next step."""

    run: Callable[[Desk, Path], Ran]
    status: int
    says: tuple[str, ...]


CASES = {
    "a CSV with a missing column": Case(
        run=missing_column, status=2, says=("'hours'", "Tickets", "nothing was stored", "the columns that came")
    ),
    "a row of the wrong type": Case(
        run=wrong_type, status=0, says=("2 rows accepted, 1 quarantined", "'many'", "a number such as 12.45")
    ),
    "a wrong type in a request": Case(run=wrong_type_asked, status=2, says=("hours", "many", "number")),
    "an unknown category": Case(
        run=unknown_category, status=0, says=("1 rows accepted, 1 quarantined", "'phon'", "did you mean 'phone'?")
    ),
    "an unknown category in a request": Case(
        run=unknown_category_asked, status=2, says=("'phon'", "did you mean 'phone'?")
    ),
    "a timestamp ahead of the clock": Case(
        run=ahead_of_the_clock, status=0, says=("1 rows accepted, 1 quarantined", "ahead of the clock", "skew")
    ),
    "a truncated Parquet file": Case(
        run=truncated_parquet, status=2, says=("tickets.parquet cannot be read", "copy it again")
    ),
    "a duplicate id": Case(run=duplicate_id, status=0, says=("2 rows accepted, 0 quarantined", "1 seen before")),
    "a project that does not import": Case(
        run=project(broken.DOES_NOT_IMPORT), status=2, says=("'nowhere_to_be_found'", "project.py:3", "install")
    ),
    "a project that fails at its import": Case(
        run=project(broken.FAILS, "plan"), status=2, says=("KeyError", "limits['fare']", "project.py")
    ),
    "a transform with an if": Case(
        run=project(broken.TRANSFORM_WITH_IF), status=2, says=("dear", "fb.where", "project.py")
    ),
    "a feature that leaks the label": Case(run=project(broken.LEAKING, "apply"), status=2, says=("tips", "label")),
    "a port that is taken": Case(run=taken_port, status=4, says=("port", "in use", "--port")),
    "a state directory of a newer version": Case(
        run=newer_state, status=4, says=(f"version {FORMAT_VERSION + 1}", f"up to {FORMAT_VERSION}", "--state")
    ),
    "two platforms on one state directory": Case(run=two_platforms, status=4, says=("in use by process", "--state")),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_clearly(name: str, desk: Desk, tmp_path: Path) -> None:
    case = CASES[name]
    ran = case.run(desk, tmp_path)
    told = ran.out + ran.err
    assert ran.status == case.status, told
    missing = [part for part in case.says if part not in told]
    assert not missing, told
    assert "Traceback" not in told
    assert "src/flyball" not in told.replace(str(tmp_path), "")
    if case.status:
        assert ran.err.strip(), "errors go to standard error"
        assert "error: " in ran.err
    else:
        assert ran.err.strip() == "" or "upload" in ran.err


def test_nothing_of_it_is_lost_and_nothing_is_doubled(desk: Desk, tmp_path: Path) -> None:
    """What a receipt calls accepted is in the lake once; what it calls quarantined is kept with its reason."""
    good, bad = [past(n) for n in range(7_000, 7_020)], [past(7_100, hours="much"), past(7_101, channel="fax")]
    file = csv(tmp_path / "tickets.csv", [*good, *bad, good[0]])
    receipts = [desk.cli("ingest", "Tickets", file, "--json").json for _ in range(2)]
    first = receipts[0]
    assert (first["received"], first["accepted"], first["quarantined"], first["duplicates"]) == (23, 20, 2, 1)
    assert desk.http("ingest", "POST", "/v1/events/Tickets", json={"rows": good[:3]}).status_code == 200  # once more
    with desk.platform.client() as client:
        client.flush(["Tickets"])
        kept = client.quarantine("Tickets", limit=1_000)
    ids = DeltaLake(desk.platform.layout.lake).read("Tickets", ["id"])["id"].to_list()
    assert [ids.count(row["id"]) for row in good] == [1] * len(good)
    assert len(ids) == len(set(ids))
    for row, says in zip(bad, ("much", "fax"), strict=True):
        found = [one for one in kept if one["row"]["id"] == row["id"]]
        assert found
        assert all(says in one["message"] for one in found)
    assert desk.sent()["quarantined"] == len(kept)


def test_a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """In process, where a disk can be filled: the event log's database may not grow, the prediction log not at all."""
    payments, _ = history(20)
    with platform(market(), at=NOW) as running:
        running.load("Payments", payments)
        log: Any = running._ingest._log
        pages = log._writer.execute("PRAGMA page_count").fetchone()[0]
        log._writer.execute(f"PRAGMA max_page_count = {pages}")
        more = [{**payments[0], "id": f"more-{n}", "time": show_time(NOW - n)} for n in range(3_000)]
        with pytest.raises(ExhaustedError) as caught:
            running.push("Payments", more)
        assert (caught.value.code, report(caught.value, as_json=False)) == ("disk_full", 6)
        told = capsys.readouterr().err
        assert "nothing was acknowledged and nothing is lost" in told
        assert "free some space" in told
        log._writer.execute("PRAGMA max_page_count = 1000000")
        assert running.push("Payments", more)["accepted"] == 3_000
        running._ingest.flush()
        ids = DeltaLake(Layout(running._folder).lake).read("Payments", ["id"])["id"].to_list()
        assert len(ids) == len(set(ids)) == 3_020


def test_a_full_disk_answers_no_prediction_that_it_cannot_log(monkeypatch: pytest.MonkeyPatch) -> None:
    service = fb.Service("card-now", rows=Payments, features=[Card])
    with platform(fb.Project("features", services=[service]), at=NOW) as running:
        asked: dict[str, Any] = {"card": "c", "shop": "s", "kind": "chip", "amount": "1.00"}
        first = running.predict("card-now", **asked)
        written = os.write

        def full(fd: int, data: Any) -> int:
            if fd == running._log._fd:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return written(fd, data)

        with monkeypatch.context() as patched:
            patched.setattr("os.write", full)
            with pytest.raises(ExhaustedError) as caught:
                running.predict("card-now", **asked)
        assert caught.value.code == "disk_full"
        last = running.predict("card-now", **asked)
        assert running.prediction(last["prediction_id"])["prediction"]["id"] == last["prediction_id"]
        assert running.prediction(first["prediction_id"])
        assert running._control.status()["predictions"]["collected"] == 2
