"""Training sets over sources that take corrections, as they were served, and pinned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from flyball.define.spec import ColumnSpec, FeatureSpec, ModelSpec, ViewSpec
from flyball.features.training_set import build, rebuild
from flyball.ingest.frames import meanings, to_lake
from flyball.kernel.errors import ConflictError, InvalidError
from flyball.kernel.times import DAY, HOUR, MINUTE
from flyball.storage.events import LakeEvents
from flyball.storage.lake import DeltaLake
from flyball.storage.predictions import LakeServed
from tests.features.test_training_set import (
    ANY,
    CHARGEBACKS,
    FEATURES,
    OUT,
    PAYMENTS,
    PROJECT,
    Lake,
    chargeback,
    frame,
    model,
    payment,
)

CORRECTED = msgspec.structs.replace(PAYMENTS, corrections=True, key=("id",))
FIXED = msgspec.structs.replace(CHARGEBACKS, corrections=True, key=("payment",))
CORRECTING = msgspec.structs.replace(PROJECT, sources=(CORRECTED, FIXED))


def versions(
    source: Any, rows: list[tuple[Any, ...]], keys: list[int], deleted: list[int] | None = None
) -> pl.DataFrame:
    gone = deleted or []
    return frame(source, rows).with_columns(
        pl.Series("_key", [key.to_bytes(16, "big") for key in keys], pl.Binary),
        pl.Series("_deleted", [i in gone for i in range(len(rows))]),
    )


def test_a_row_has_its_first_columns_and_its_newest_label() -> None:
    rows = [payment(1, 0, 300), payment(2, HOUR, 300), payment(1, 0, 900, known=2 * HOUR), payment(3, 3 * HOUR, 100)]
    lake = Lake(Payments=versions(PAYMENTS, rows, [1, 2, 1, 3]))
    made = build(model(), CORRECTING, lake, horizon={}, at=DAY)
    assert made.frame["amount"].to_list() == [3.0, 3.0, 1.0]
    assert made.y.tolist() == [1.0, 0.0, 0.0]
    assert made.frame["total_7d"].to_list() == [0.0, 3.0, 12.0]  # the correction is seen from when it was known
    earlier = build(model(), CORRECTING, lake, horizon={}, at=2 * HOUR - 1)
    assert earlier.y.tolist() == [0.0]  # the second is not mature
    final = build(model(), CORRECTING, lake, horizon={}, at=DAY, asof="event")
    assert final.frame["total_7d"].to_list() == [0.0, 9.0, 12.0]


def test_a_deleted_row_is_left_out_and_seen_until_it_was_deleted() -> None:
    rows = [payment(1, 0, 300), payment(2, HOUR, 300), payment(1, 0, 300, known=2 * HOUR), payment(3, 3 * HOUR, 100)]
    lake = Lake(Payments=versions(PAYMENTS, rows, [1, 2, 1, 3], [2]))
    made = build(model(), CORRECTING, lake, horizon={}, at=DAY)
    assert made.frame["id"].to_list() == [2, 3]
    assert made.frame["n_1h"].to_list() == [1.0, 0.0]
    assert made.frame["total_7d"].to_list() == [3.0, 3.0]
    assert made.left_out == {"immature": 0, "null_label": 0, "deleted": 1}


def test_a_label_of_another_source_sees_its_versions() -> None:
    payments = versions(PAYMENTS, [payment(i, i * MINUTE) for i in (1, 2)], [1, 2])
    rows = [chargeback(1, DAY), chargeback(2, DAY), chargeback(2, DAY, known=2 * DAY)]
    lake = Lake(Payments=payments, Chargebacks=versions(CHARGEBACKS, rows, [1, 2, 2], [2]))
    assert build(model(ANY), CORRECTING, lake, horizon={}, at=40 * DAY).y.tolist() == [1.0, 0.0]
    assert build(model(ANY), CORRECTING, lake, horizon={}, at=2 * DAY - 1).y.tolist() == [1.0, 1.0]


# --- as served


def record(at: int, features: dict[str, Any], **fields: Any) -> dict[str, Any]:
    known = {f.name: features.get(f.name) for f in FEATURES}
    return {"id": f"p{at}", "at": at, "version": "m/1", "rung": "model", "features": known} | fields


class Log(LakeServed):
    """The log in a lake, and manifests by version; every other version defines its features as `m` does."""

    def __init__(self, lake: DeltaLake, manifests: dict[str, Any]) -> None:
        super().__init__(lake, Path(), {})
        self._manifests = manifests

    def manifest(self, version: str) -> Any:
        return self._manifests.get(version, manifest(model()))


def manifest(m: ModelSpec, views: tuple[ViewSpec, ...] = PROJECT.views) -> dict[str, Any]:
    features = [feature.to_data() for feature in m.features]
    return {"rows": m.rows, "features": features, "views": [view.to_data() for view in views]}


def predictions(folder: Path, records: list[dict[str, Any]], **manifests: Any) -> Log:
    from flyball.loop.records import TABLE, frame

    lake = DeltaLake(folder)
    lake.append(TABLE, frame(records), app_id="test", version=1)
    return Log(lake, {version.replace("_", "/"): found for version, found in manifests.items()})


def test_features_are_those_that_were_served_by_key_or_by_values(tmp_path: Path) -> None:
    lake = Lake(
        Payments=frame(PAYMENTS, [payment(1, 0), payment(2, HOUR, 250), payment(3, 2 * HOUR), payment(4, 3 * HOUR)])
    )
    values = {"id": 2, "payer": "x", "payee": None, "amount": 2.5, "kind": "a"}
    log = predictions(
        tmp_path,
        [
            record(MINUTE, {"n_1h": 7.0, "last_kind": 1.0}, key={"id": 1}, inputs={"amount": 6.0}),
            record(2 * MINUTE, {"n_1h": 8.0}, key={"id": 1}, inputs={}),  # asked again: the first answer counts
            record(HOUR, {"n_1h": 5.0}, inputs=values),
            record(2 * HOUR, {"n_1h": 5.0}, key={"id": 3}, inputs={}, rung="default"),
            record(3 * HOUR, {"n_1h": 5.0}, key={"id": 4}, inputs={}, version="other/1"),
        ],
    )
    made = build(model(), PROJECT, lake, horizon={}, at=DAY, asof="served", served=log)
    assert made.frame["id"].to_list() == [1, 2]
    assert made.frame["n_1h"].to_list() == [7.0, 5.0]
    assert made.frame["last_kind"].to_list() == ["b", None]
    assert made.left_out == {"immature": 0, "null_label": 0, "not_served": 2}


def test_codes_are_read_with_the_categories_of_the_version_that_answered(tmp_path: Path) -> None:
    columns = (*PAYMENTS.columns[:-1], ColumnSpec(name="kind", type="category", categories=("0", "a", "b")))
    project = replace(PROJECT, sources=(replace(PAYMENTS, columns=columns), CHARGEBACKS))
    feature = FeatureSpec(name="kind", expr=["col", "Payments", "kind"], type="category", categories=("a", "b", "gone"))
    was = replace(model(), features=(feature,))
    now = replace(model(), features=(replace(feature, categories=("0", "a", "b")),))
    records = [record(i, {"kind": float(i)}, key={"id": i}, inputs={}) for i in range(3)]
    log = predictions(tmp_path, records, m_1=manifest(was))
    lake = Lake(Payments=frame(PAYMENTS, [payment(i, i * MINUTE) for i in range(3)]))
    made = build(now, project, lake, horizon={}, at=DAY, asof="served", served=log)
    assert made.frame["kind"].to_list() == ["a", "b", None]
    assert made.X[:2, 0].tolist() == [1.0, 2.0]


def test_answers_of_other_definitions_are_left_out(tmp_path: Path) -> None:
    one_hour = FeatureSpec(name="n", expr=["view", "Out", "n_1h", ["payer"]])
    now = replace(model(), features=(one_hour,))
    other_view = replace(OUT, where=["eq", ["col", "Payments", "kind"], ["lit", "a"]])
    records = [record(i, {}, key={"id": i}, version=f"m/{i}", inputs={}) | {"features": {"n": i}} for i in range(1, 6)]
    records.append(record(6, {}, key={"id": 4}, version="m/1", inputs={}) | {"features": {"n": 9}})
    log = predictions(
        tmp_path,
        records,
        m_1=manifest(now),
        m_2=manifest(replace(now, features=(replace(one_hour, expr=["view", "Out", "n_1h", ["payee"]]),))),
        m_3=manifest(now, (other_view,)),
        m_4=manifest(replace(now, rows="Chargebacks")),
        m_5=None,
    )
    lake = Lake(Payments=frame(PAYMENTS, [payment(i, i * MINUTE) for i in range(1, 7)]))
    made = build(now, PROJECT, lake, horizon={}, at=DAY, asof="served", served=log)
    assert dict(zip(made.frame["id"].to_list(), made.frame["n"].to_list(), strict=True)) == {1: 1.0, 4: 9.0}
    assert made.left_out == {"immature": 0, "null_label": 0, "not_served": 1, "redefined": 3}


def test_what_was_served_cannot_be_read_from_digests_or_without_a_log(tmp_path: Path) -> None:
    lake = Lake(Payments=frame(PAYMENTS, [payment(1, 0)]))
    hidden = predictions(tmp_path, [record(MINUTE, {"n_1h": "pii:abc"}, key={"id": 1}, inputs={})])
    for log, code in ((hidden, "served_private"), (None, "no_served")):
        with pytest.raises(InvalidError) as error:
            build(model(), PROJECT, lake, horizon={}, at=DAY, asof="served", served=log)
        assert error.value.code == code


# --- pinned


def filled(folder: Path, rows: pl.DataFrame, source: Any = PAYMENTS, *, cuts: int = 5) -> DeltaLake:
    lake = DeltaLake(folder, compact_at=1000)
    for start in range(0, len(rows), cuts):
        part = rows[start : start + cuts]
        friendly = to_lake(part.select(c for c in part.columns if c != "_deleted"), meanings(source))
        if "_deleted" in part.columns:
            friendly = friendly.with_columns(part["_deleted"])
        lake.append("Payments", friendly, app_id="Payments", version=int(part["_lsn"][-1]))
    return lake


def some_payments(n: int) -> list[tuple[Any, ...]]:
    return [payment(i, i * MINUTE, 100 * i, kind="ab"[i % 2], known=i * MINUTE + (i % 7) * MINUTE) for i in range(n)]


def test_a_training_set_is_rebuilt_from_its_pins_after_more_events_and_compaction(tmp_path: Path) -> None:
    rows = frame(PAYMENTS, some_payments(60))
    lake = filled(tmp_path, rows[:40])
    reader = LakeEvents(lake, PROJECT, {}, batch=7)
    made = build(model(), PROJECT, reader, horizon={}, at=DAY)
    assert (made.pins["Payments"].lsn, made.pins["Payments"].rows) == (40, 40)
    part = rows[40:]
    lake.append("Payments", to_lake(part, meanings(PAYMENTS)), app_id="Payments", version=60)
    assert lake.compact("Payments") > 0
    again = rebuild(model(), PROJECT, LakeEvents(lake, PROJECT, {}), pins=made.pins, at=DAY, digest=made.digest)
    np.testing.assert_array_equal(again.X, made.X)
    assert again.frame.equals(made.frame)
    assert again.pins == made.pins
    small = build(model(), PROJECT, reader, horizon={"Payments": 40}, at=DAY, budget=1)
    assert (small.digest, small.pins) == (made.digest, made.pins)


def test_events_that_do_not_fit_are_written_where_the_caller_says_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(LakeEvents):
        """Says what lies in the spool while more is read."""

        def batches(self, *args: Any, **options: Any) -> Any:
            for batch in super().batches(*args, **options):
                seen.extend(path.suffix for path in spool.rglob("*"))
                yield batch

    seen: list[str] = []
    spool = tmp_path / "run" / "spool"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such place"))
    reader = Watched(filled(tmp_path / "lake", frame(PAYMENTS, some_payments(30))), PROJECT, {}, batch=7)
    made = build(model(), PROJECT, reader, horizon={}, at=DAY, budget=1, folder=spool)
    assert len(made.frame) == 30
    assert ".arrow" in seen
    assert list(spool.iterdir()) == []


def test_a_pin_whose_events_were_erased_or_changed_is_refused(tmp_path: Path) -> None:
    rows = frame(PAYMENTS, some_payments(20))
    made = build(model(), PROJECT, LakeEvents(filled(tmp_path / "a", rows), PROJECT, {}), horizon={}, at=DAY)
    erased = rows.filter(pl.col("id") != 7)
    changed = rows.with_columns(amount=pl.when(pl.col("id") == 7).then(1).otherwise("amount"))
    for name, other, said in (("b", erased, "there are 19"), ("c", changed, "with other values")):
        reader = LakeEvents(filled(tmp_path / name, other), PROJECT, {})
        with pytest.raises(ConflictError, match=said) as error:
            rebuild(model(), PROJECT, reader, pins=made.pins, at=DAY, digest=made.digest)
        assert error.value.code == "pin_changed"
    with pytest.raises(ConflictError) as error:
        rebuild(
            model(), PROJECT, LakeEvents(filled(tmp_path / "d", rows), PROJECT, {}), pins=made.pins, at=DAY, digest="0"
        )
    assert error.value.code == "training_set_changed"


def test_corrections_come_back_from_the_lake(tmp_path: Path) -> None:
    rows = [payment(1, 0, 300), payment(2, HOUR, 300), payment(1, 0, 300, known=2 * HOUR), payment(3, 3 * HOUR, 100)]
    lake = filled(tmp_path, versions(PAYMENTS, rows, [1, 2, 1, 3], [2]))
    made = build(model(), CORRECTING, LakeEvents(lake, CORRECTING, {}), horizon={}, at=DAY)
    assert made.frame["id"].to_list() == [2, 3]
