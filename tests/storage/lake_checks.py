"""What every `LakeTables` must do. A new adapter runs these with its own `Open`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from flyball.ingest.ports import LakeFile, LakeTables
from flyball.kernel.errors import ConflictError, NotFoundError
from flyball.storage.lake import DeltaLake
from flyball.storage.statistics import statistics

Open = Callable[[], LakeTables]  # opens the same lake again


def rows(*lsns: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "name": pl.Series([f"n{n}" if n % 2 else None for n in lsns], dtype=pl.String),
            "fare": pl.Series([f"-{n}.25" for n in lsns]).cast(pl.Decimal(18, 2)),
            "_event_time": pl.Series([n * 1_000_001 for n in lsns]).cast(pl.Datetime("us", "UTC")),
            "_lsn": pl.Series(lsns, dtype=pl.Int64),
            "_key": pl.Series([b"%016d" % n for n in lsns], dtype=pl.Binary),
        }
    )


def an_append_is_made_once(open_lake: Open) -> None:
    lake = open_lake()
    assert lake.append("S", rows(1, 2), app_id="S", version=2)
    assert not lake.append("S", rows(1, 2), app_id="S", version=2)
    assert not open_lake().append("S", rows(1), app_id="S", version=1)
    assert lake.append("S", rows(3), app_id="S", version=3)
    assert lake.append("S", rows(9), app_id="another", version=1)
    assert (lake.count("S"), lake.version("S", "S"), lake.version("S", "another")) == (4, 3, 1)
    assert lake.version("S", "nobody") == 0


def what_was_committed_is_synced_on_demand(open_lake: Open) -> None:
    lake = open_lake()
    lake.sync("T")
    assert lake.table_version("T") == -1, "nothing is made"
    lake.append("S", rows(1), app_id="S", version=1)
    for again in (lake, open_lake()):
        again.sync("S")
        again.sync("S")
    assert (lake.count("S"), lake.version("S", "S")) == (1, 1)


def a_table_that_is_not_there_is_empty_but_cannot_be_read(open_lake: Open) -> None:
    lake = open_lake()
    assert (lake.count("T"), lake.version("T", "T"), lake.table_version("T"), lake.types("T")) == (0, 0, -1, {})
    with pytest.raises(NotFoundError) as caught:
        lake.read("T")
    assert caught.value.code == "table_not_found"


def reading_gives_physical_values_in_lsn_order(open_lake: Open) -> None:
    lake = open_lake()
    lake.append("S", rows(3, 4), app_id="S", version=4)
    lake.append("S", rows(1, 2), app_id="T", version=1)
    frame = open_lake().read("S")
    assert frame["_lsn"].to_list() == [1, 2, 3, 4]
    assert frame["fare"].to_list() == [-125, -225, -325, -425]
    assert frame["_event_time"].to_list() == [n * 1_000_001 for n in (1, 2, 3, 4)]
    assert frame["name"].to_list() == ["n1", None, "n3", None]
    assert lake.read("S", ["fare"], after_lsn=1, through_lsn=3).to_dict(as_series=False) == {"fare": [-225, -325]}
    with pytest.raises(NotFoundError, match="has no column 'nope'"):
        lake.read("S", ["nope"])


def nothing_to_add_still_counts_as_a_version(open_lake: Open) -> None:
    lake = open_lake()
    lake.append("S", rows(), app_id="S", version=5)
    assert (lake.version("S", "S"), lake.count("S")) == (5, 0)
    assert lake.read("S").height == 0
    lake.append("S", rows(6), app_id="S", version=6)
    lake.append("S", rows(), app_id="S", version=7)
    assert (lake.version("S", "S"), lake.count("S")) == (7, 1)


def a_table_grows_columns_and_keeps_its_types(open_lake: Open) -> None:
    lake = open_lake()
    lake.append("S", rows(1), app_id="S", version=1)
    lake.append("S", rows(2).drop("name").with_columns(more=pl.lit(1.5)), app_id="S", version=2)
    lake.append("S", rows(3).with_columns(more=pl.lit(None)), app_id="S", version=3)
    assert lake.read("S", ["more", "name"]).rows() == [(None, "n1"), (1.5, None), (None, "n3")]
    with pytest.raises(ConflictError) as caught:
        lake.append("S", rows(4).with_columns(pl.lit(1).alias("name")), app_id="S", version=4)
    assert caught.value.code == "table_type_changed"
    assert lake.version("S", "S") == 3


def any_frame_can_be_a_table(open_lake: Open) -> None:
    lake = open_lake()
    frame = pl.DataFrame({"id": ["a"], "inputs": [{"x": 1.5}], "scores": [[0.5, 0.25]], "none": [None], "at": [1]})
    lake.append("predictions", frame, app_id="collector", version=1)
    lake.append("predictions", frame.with_columns(none=pl.lit("now")), app_id="collector", version=2)
    back = lake.read("predictions").sort("none", nulls_last=False)
    assert back["inputs"].to_list() == [{"x": 1.5}] * 2
    assert back["scores"].to_list() == [[0.5, 0.25]] * 2
    assert back["none"].to_list() == [None, "now"]


def a_file_is_taken_as_it_is_once_with_right_statistics(open_lake: Open) -> None:
    lake = open_lake()
    assert isinstance(lake, DeltaLake)
    lake.append("S", rows(1, 2), app_id="S", version=2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bulk.parquet"
        frame = rows(*range(3, 10))
        frame.write_parquet(path)
        file = LakeFile(path=path, stats=statistics(frame))
        assert lake.append_files("S", [file], app_id="S", version=9)
        assert not open_lake().append_files("S", [file], app_id="S", version=9)
        assert lake.append_files("New", [file], app_id="New", version=9), "the first of a table"
        odd = LakeFile(path=Path(folder) / "odd.parquet", stats="{}")
        rows(10).with_columns(more=pl.lit(1.5)).write_parquet(odd.path)
        lake.append_files("S", [odd], app_id="S", version=10)
        pair = [LakeFile(path=Path(folder) / f"{n}.parquet", stats=statistics(rows(n))) for n in (20, 21)]
        for n, one in zip((20, 21), pair, strict=True):
            rows(n).write_parquet(one.path)
        before = lake.table_version("Pair")
        assert lake.append_files("Pair", pair, app_id="S", version=21)
        assert lake.table_version("Pair") - before <= 2, "one commit, and the first of the table"
        assert lake.append_files("Pair", [pair[0], odd], app_id="S", version=22), "one of which does not fit"
    assert lake.read("Pair", ["_lsn"])["_lsn"].to_list() == [10, 20, 20, 21]
    assert lake.read("S")["_lsn"].to_list() == list(range(1, 11)), "the file may go"
    assert lake.read("S", ["more"])["more"].to_list() == [None] * 9 + [1.5]
    assert lake.read("New")["fare"].to_list() == [-100 * n - 25 for n in range(3, 10)]
    lake.append("Same", rows(0), app_id="S", version=1)
    lake.append("Same", frame, app_id="S", version=2)
    assert bounds(lake, "S") == bounds(lake, "Same")
    assert json.loads(statistics(frame))["maxValues"]["_event_time"] == "1970-01-01T00:00:09.000009Z"
    assert lake.read("S", ["_lsn"], after_lsn=4, through_lsn=6)["_lsn"].to_list() == [5, 6]
    lake.compact("S")
    assert lake.read("S")["_lsn"].to_list() == list(range(1, 11))


def bounds(lake: DeltaLake, table: str) -> dict[str, Any]:
    """What Delta knows of the file with seven rows."""
    actions = pl.DataFrame(DeltaTable(str(lake.table_path(table))).get_add_actions(flatten=True))
    (found,) = actions.filter(pl.col("num_records") == 7).to_dicts()
    assert found["null_count._event_time"] == 0
    names = ("name", "fare", "_lsn")
    return {f"{kind}.{n}": found[f"{kind}.{n}"] for n in names for kind in ("min", "max", "null_count")}


CHECKS = (
    a_file_is_taken_as_it_is_once_with_right_statistics,
    an_append_is_made_once,
    what_was_committed_is_synced_on_demand,
    a_table_that_is_not_there_is_empty_but_cannot_be_read,
    reading_gives_physical_values_in_lsn_order,
    nothing_to_add_still_counts_as_a_version,
    a_table_grows_columns_and_keeps_its_types,
    any_frame_can_be_a_table,
)
