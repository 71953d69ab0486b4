"""Ingest's part of an erasure on real files: what a crash leaves is completed, and no page keeps the bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flyball.define.spec import AggregateSpec, ColumnSpec, KnownSpec, SourceSpec, ViewSpec
from flyball.define.subject import digests_of
from flyball.features.keys import encode_keys, entity_key
from flyball.features.online import OnlineReader
from flyball.features.vector import Vector
from flyball.features.views import CompiledView
from flyball.ingest.service import Ingest
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import UnavailableError
from flyball.kernel.layout import Layout
from flyball.kernel.settings import Settings
from flyball.kernel.times import DAY, HOUR, SECOND, hop
from flyball.platform.wiring import open_ingest
from flyball.serving.privacy import pii_digest, pii_key
from flyball.storage import event_log
from tests.scenarios.test_erasure import holds

NOW = 1_700_000_000 * SECOND
MARKER = "MARKER-9X"
SOURCE = SourceSpec(
    name="Payments",
    columns=(
        ColumnSpec(name="id", type="string"),
        ColumnSpec(name="card", type="string", pii=True, max_length=20),
        ColumnSpec(name="shop", type="string"),
        ColumnSpec(name="amount", type="decimal", scale=2, ge=0.0),
    ),
    event_time="at",
    key=("id",),
    known=KnownSpec(kind="delay", delay=HOUR),
)
TOTAL = AggregateSpec(name="total", op="sum", value=["col", "Payments", "amount"], window=DAY, hop=hop(DAY))
CARD = ViewSpec(name="Card", kind="window", source="Payments", entity=("card",), aggregates=(TOTAL,))
SHOP = ViewSpec(name="Shop", kind="window", source="Payments", entity=("shop",), aggregates=(TOTAL,))
PLAN = {"epoch": 1, "digest": "", "sources": [SOURCE], "views": [CARD, SHOP]}
STEPS = ("online", "log", "lake", "quarantine", "scrub", "done")


class Crash(Exception):
    pass


class Bench:
    """An ingest core on files; `close` is what the end of its process leaves."""

    def __init__(self, folder: Path, at: Callable[[str], None] = lambda step: None, plan: Any = PLAN) -> None:
        self.layout = Layout(folder)
        self.layout.create()
        self.ingest = open_ingest(Settings(state=folder), clock=ManualClock(NOW), at=at)
        self.ingest.load_plan(plan)
        key = pii_key(self.layout.predictions)
        self.digests = digests_of(MARKER, SOURCE.column("card"), lambda value: pii_digest(key, value))

    def fill(self) -> None:
        rows = [payment(i, MARKER if i % 4 == 1 else f"c{i % 4}") for i in range(40)]
        self.ingest.append("Payments", rows[:20], live=False)
        self.ingest.flush()
        self.ingest.append("Payments", [*rows[20:], payment(99, MARKER, amount="-1")], live=False)
        self.ingest.append("Payments", [payment(60, MARKER, ago=0), payment(61, "c2", ago=0)], live=False)  # held back
        self.ingest.apply()

    def erase(self) -> None:
        entity = entity_key([MARKER], [SOURCE.column("card")])
        self.ingest.erase("Payments", "card", self.digests, entity=entity)

    def value(self, view: ViewSpec, text: str) -> float:
        compiled = CompiledView(view, SOURCE)
        keys = encode_keys([Vector(np.array([text], object), np.array([True]))], compiled.entity, 1)
        store = self.ingest._applier._store  # type: ignore[attr-defined]
        return float(OnlineReader(store).read(compiled, keys, NOW).values[0][0])

    def close(self) -> None:
        self.ingest._applier._store.close()  # type: ignore[attr-defined]
        self.ingest._log.close()  # type: ignore[attr-defined]


def payment(number: int, card: str, *, amount: str = "2.00", ago: int = 2 * HOUR) -> dict[str, Any]:
    return {"id": f"p{number}", "card": card, "shop": f"s{number % 3}", "amount": amount, "at": NOW - ago - number}


def check_gone(bench: Bench) -> None:
    assert bench.ingest.count_erased("Payments", "card", bench.digests) == {"rows": 0, "quarantined": 0, "lsns": []}
    assert bench.value(CARD, MARKER) == 0.0
    assert bench.value(CARD, "c2") == 20.0
    assert [bench.value(SHOP, f"s{k}") for k in range(3)] == [22.0, 18.0, 20.0]
    assert bench.ingest.events("Payments")["card"].n_unique() == 3
    assert holds(bench.layout.root, MARKER) == []


@pytest.mark.parametrize("step", STEPS)
def test_an_erasure_that_was_cut_off_is_completed_by_doing_it_again(tmp_path: Path, step: str) -> None:
    def crash(at: str) -> None:
        if at == step:
            raise Crash

    bench = Bench(tmp_path, crash)
    bench.fill()
    assert "online/data.mdb" in holds(tmp_path, MARKER)  # what is held back
    with pytest.raises(Crash):
        bench.erase()
    bench.close()
    again = Bench(tmp_path)
    again.erase()
    check_gone(again)
    again.close()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_source_that_left_the_plan_is_erased_with_what_is_held_back_of_it(tmp_path: Path, restarted: bool) -> None:
    plan = {"epoch": 2, "digest": "", "sources": [], "views": []}
    bench = Bench(tmp_path)
    bench.fill()
    bench.ingest.flush()
    bench.ingest.load_plan(plan)
    if restarted:
        bench.close()
        bench = Bench(tmp_path, plan=plan)
    assert restarted or "online/data.mdb" in holds(tmp_path, MARKER)
    assert bench.ingest.count_erased("Payments", "card", bench.digests)["rows"] == 11
    bench.erase()
    assert holds(tmp_path, MARKER) == []
    assert [spec.name for spec in bench.ingest.sources()] == ["flyball_feedback"]
    bench.ingest.load_plan(PLAN | {"epoch": 3})
    check_gone(bench)
    bench.close()


def test_nothing_is_erased_before_there_is_a_plan(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.fill()
    bench.close()
    early = open_ingest(Settings(state=tmp_path), clock=ManualClock(NOW))
    with pytest.raises(UnavailableError) as caught:
        early.erase("Payments", "card", bench.digests)
    assert caught.value.code == "plan_not_taken"
    early._applier._store.close()  # type: ignore[attr-defined]
    early._log.close()  # type: ignore[attr-defined]


def test_of_what_was_never_taken_there_is_nothing_to_erase(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.fill()
    for source, column in (("Never", "card"), ("Payments", "never")):
        bench.ingest.erase(source, column, bench.digests)
        assert bench.ingest.count_erased(source, column, bench.digests)["rows"] == 0
    bench.close()


def test_large_batches_and_bulk_files_are_cut_around_what_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "BULK_ROWS", 50)
    bench = Bench(tmp_path)
    rows = [payment(i, MARKER if i in (0, 1, 70, 199) else "c") for i in range(200)]
    log = bench.ingest._log
    path = tmp_path / "rows.csv"
    pl.DataFrame(rows).write_csv(path)
    bench.ingest.append_file("Payments", path)
    path.unlink()
    assert len(list((tmp_path / "log" / "bulk").iterdir())) == 1
    from flyball.ingest.erasing import Eraser

    eraser: Eraser = bench.ingest._erasing()
    mask = eraser._matcher(SOURCE, "card", bench.digests)[1]
    eraser.log.erase("Payments", "card", mask, lambda row: False)
    batches = log.read("Payments", after=0, limit=1_000)
    assert [(b.first_lsn, b.last_lsn) for b in batches] == [(3, 70), (72, 199)]
    assert [b.frame["_lsn"].to_list() for b in batches] == [list(range(3, 71)), list(range(72, 200))]
    assert log.last_lsn("Payments") == 200
    assert holds(tmp_path, MARKER) == []
    assert bench.ingest.apply() == 196
    bench.ingest.flush()
    assert log.totals()["Payments"].pending_batches == 0
    bench.close()


def test_answers_to_idempotency_keys_stay_without_their_examples(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    push = [payment(1, "c"), payment(2, "c" * 30)]
    first = bench.ingest.append("Payments", push, idempotency_key="k")
    assert len(first.examples) == 1
    bench.erase()
    again = bench.ingest.append("Payments", push, idempotency_key="k")
    assert (again.replayed, again.accepted, again.examples) == (True, 1, ())
    bench.close()


@pytest.mark.slow
def test_a_killed_erasure_leaves_what_the_next_one_completes(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.ingest.test_erasing import Bench\n"
        "bench = Bench(Path(sys.argv[1]), lambda at: os.kill(os.getpid(), signal.SIGKILL) if at == 'lake' else None)\n"
        "bench.fill()\n"
        "bench.erase()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=dict(os.environ), timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    again = Bench(tmp_path)
    assert isinstance(again.ingest, Ingest)
    again.ingest.apply()
    again.erase()
    check_gone(again)
    again.close()
