"""Files are read in chunks, and refused before anything is stored where they are of no use."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from flyball.ingest.files import open_file
from flyball.ingest.service import Ingest, IngestConfig
from flyball.kernel.errors import ConflictError, FlyballError, InvalidError, NotFoundError
from tests.ingest.sources import NOW, SECOND, TRIPS, make_ingest

HEADER = "company,pickup_community_area,payment_type,fare,tips,trip_miles,trip_seconds,trip_start_timestamp,other"
LINE = "A,8,Cash,12.45,0,1.5,300,1400269500,x"
AT = NOW // SECOND


def csv(folder: Path, *lines: str, header: str = HEADER, name: str = "trips.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def trip(number: int) -> str:
    return f"C{number},8,Cash,12.45,0,1.5,300,{1_400_269_500 + number},x"


@pytest.fixture
def ingest(tmp_path: Path) -> Ingest:
    return make_ingest(tmp_path / "state", config=IngestConfig(chunk_rows=3))


def test_a_csv_is_loaded_in_chunks_with_progress(ingest: Ingest, tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []
    path = csv(tmp_path, *[trip(i) for i in range(7)])
    receipt = ingest.append_file("Trips", path, progress=lambda rows, part: seen.append((rows, part)))
    assert (receipt.received, receipt.accepted, receipt.first_lsn, receipt.last_lsn) == (7, 7, 1, 7)
    assert receipt.ignored == ("other",)
    assert [rows for rows, _ in seen] == [3, 6, 7]
    assert seen[-1][1] == 1.0
    assert ingest.events("Trips").height == 0, "nothing is seen before it is applied"
    ingest.apply()
    assert ingest.events("Trips")["company"].to_list() == [f"C{i}" for i in range(7)]


def test_an_empty_cell_is_null_and_a_bad_line_is_quarantined_by_its_number(ingest: Ingest, tmp_path: Path) -> None:
    path = csv(
        tmp_path, ",,Cash,1.5,0,1,,1400269500,", "A,8,Cash,1", "", '"A, B",8,Cash,1,0,1,,1400269501,x',
        "A,8,,1,0,1,,1400269502,", "A,8,Bitcoin,1,0,1,,1400269502,", "A,8,Cash,1,0,1,,1400269503,x,extra",
    )  # fmt: skip
    receipt = ingest.append_file("Trips", path)
    assert (receipt.accepted, receipt.quarantined) == (2, 4)
    ingest.apply()
    assert ingest.events("Trips", ["company", "trip_seconds"]).select("company", "trip_seconds").rows() == [
        (None, None),
        ("A, B", None),
    ]
    rows = {row["position"]: row for row in ingest.quarantine("Trips")["rows"]}
    assert {position: row["rule"] for position, row in rows.items()} == {
        3: "field_count",
        6: "null",
        7: "unknown_category",
        8: "field_count",
    }
    assert "4 fields and the header has 9" in rows[3]["message"]
    assert rows[8]["row"][""] == "['extra']"


def test_a_csv_that_lacks_a_column_is_refused_whole(ingest: Ingest, tmp_path: Path) -> None:
    path = csv(tmp_path, LINE, header=HEADER.replace("fare", "fair"))
    with pytest.raises(InvalidError, match="column 'fare' of source Trips is missing; did you mean 'fair'") as caught:
        ingest.append_file("Trips", path)
    assert caught.value.code == "missing_column"
    assert ingest.status()["sources"][2]["lsn"] == 0


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"a,b,a\n1,2,3\n", "duplicate_column"),
        (HEADER.encode() + b"\nCaf\xe9,8,Cash,1,0,1,,1400269500,\n", "bad_encoding"),
        (HEADER.encode() + b"\n" + LINE.encode() + b"\nend\xc3", "bad_encoding"),
    ],
)
def test_a_broken_csv_is_refused_before_anything_is_stored(
    ingest: Ingest, tmp_path: Path, content: bytes, code: str
) -> None:
    path = tmp_path / "trips.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidError) as caught:
        ingest.append_file("Trips", path)
    assert caught.value.code == code


def test_an_open_quote_is_named_by_its_line(ingest: Ingest, tmp_path: Path) -> None:
    path = csv(tmp_path, trip(1), '"A' + ",8,Cash,1,0,1,,1400269500,")
    with pytest.raises(InvalidError, match="line 3") as caught:
        ingest.append_file("Trips", path)
    assert caught.value.code == "bad_file"


def test_a_byte_order_mark_and_windows_line_ends_are_read(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([HEADER, trip(1), trip(2)]).encode())
    assert ingest.append_file("Trips", path).accepted == 2


def parquet(folder: Path, count: int) -> Path:
    frame = pl.DataFrame(
        {
            "company": [f"C{i}" for i in range(count)],
            "pickup_community_area": ["8"] * count,
            "payment_type": pl.Series(["Cash"] * count, dtype=pl.Categorical),
            "fare": [12.45] * count,
            "tips": pl.Series(["0.5"] * count).cast(pl.Decimal(10, 1)),
            "trip_miles": [1] * count,
            "trip_seconds": [300.0, None, float("nan")] * (count // 3),
            "trip_start_timestamp": pl.Series(range(count)).cast(pl.Datetime("ms")),
            "nested": [[1, 2]] * count,
        }
    )
    path = folder / "trips.parquet"
    frame.write_parquet(path)
    return path


def test_a_parquet_file_is_loaded_with_its_types(ingest: Ingest, tmp_path: Path) -> None:
    receipt = ingest.append_file("Trips", parquet(tmp_path, 9))
    assert (receipt.accepted, receipt.quarantined, receipt.ignored) == (9, 0, ("nested",))
    ingest.apply()
    events = ingest.events("Trips")
    assert events["fare"].to_list() == [1245] * 9
    assert events["tips"].to_list() == [50] * 9
    assert events["trip_seconds"].to_list()[:3] == [300, None, None]
    assert events["_event_time"].to_list() == [i * 1000 for i in range(9)]


def test_a_truncated_parquet_file_is_refused_before_anything_is_stored(ingest: Ingest, tmp_path: Path) -> None:
    path = parquet(tmp_path, 9)
    os.truncate(path, path.stat().st_size - 40)
    with pytest.raises(InvalidError, match="cannot be read as parquet") as caught:
        ingest.append_file("Trips", path)
    assert caught.value.code == "bad_file"
    assert "cut off" in caught.value.hint
    assert ingest.status()["sources"][2]["lsn"] == 0


def test_json_lines_are_loaded_and_a_torn_line_is_quarantined(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "payments.jsonl"
    path.write_text(
        f'{{"id": "a", "card": "1234", "amount": 1.10, "at": {AT}, "odd": 1}}\n\n'
        f'{{"id": "b", "card": "1234", "amount": "1.2", "at": {AT}}}\n{{"id": "c", "card'
    )
    receipt = ingest.append_file("Payments", path)
    assert (receipt.accepted, receipt.quarantined, receipt.ignored) == (2, 1, ("odd",))
    assert receipt.reasons == {"bad_json": 1}
    (row,) = ingest.quarantine("Payments")["rows"]
    assert (row["position"], row["row"]) == (4, {"": "[pii]"})


def test_a_file_that_was_loaded_is_not_stored_again_unless_the_contract_changed(tmp_path: Path) -> None:
    path = csv(tmp_path, *[trip(i) for i in range(5)])
    first = make_ingest(tmp_path / "state").append_file("Trips", path)
    ingest = make_ingest(tmp_path / "state")
    again = ingest.append_file("Trips", path)
    assert again.replayed
    assert (again.accepted, again.first_lsn) == (first.accepted, first.first_lsn)
    wider = TRIPS.__class__(**{**{f: getattr(TRIPS, f) for f in TRIPS.__struct_fields__}, "owner": "someone"})
    ingest.load_plan({"epoch": 2, "sources": [wider], "views": []})
    assert not ingest.append_file("Trips", path).replayed
    horizon = ingest.flush(["Trips"])["Trips"]
    assert (horizon.lsn, horizon.rows) == (10, 5), "the same rows came again and count once"


def test_a_load_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = csv(tmp_path, *[trip(i) for i in range(8)])
    config = IngestConfig(chunk_rows=3)

    class Crash(BaseException):
        pass

    def crash(rows: int, part: float) -> None:
        if rows == 6:
            raise Crash

    with pytest.raises(Crash):
        make_ingest(tmp_path / "state", config=config).append_file("Trips", path, progress=crash)
    ingest = make_ingest(tmp_path / "state", config=config)
    receipt = ingest.append_file("Trips", path)
    assert (receipt.accepted, receipt.replayed, receipt.last_lsn) == (8, False, 8)


def test_a_key_of_a_file_is_not_taken_for_another_file(ingest: Ingest, tmp_path: Path) -> None:
    ingest.append_file("Trips", csv(tmp_path, trip(1)), idempotency_key="load")
    with pytest.raises(ConflictError) as caught:
        ingest.append_file("Trips", csv(tmp_path, trip(2), name="other.csv"), idempotency_key="load")
    assert caught.value.code == "idempotency_key_used"


def test_history_is_refused_for_a_source_that_does_not_say_when_it_was_known(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    path.write_text("{}")
    with pytest.raises(InvalidError, match="when its history was known") as caught:
        ingest.append_file("Clicks", path)
    assert caught.value.code == "history_not_declared"
    assert 'known=fb.delay("1h")' in caught.value.hint
    with pytest.raises(FlyballError):
        ingest.append("Clicks", [{"page": "a", "at": AT}], live=False)


def test_an_unknown_file_or_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_file(tmp_path / "none.csv")
    path = tmp_path / "trips.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(InvalidError, match="use csv, parquet or jsonl"):
        open_file(path)


def _taxi() -> Path:
    beside = Path(__file__).parents[2].parent / "shared" / "data" / "chicago_taxi.csv"
    return Path(os.environ.get("FLYBALL_TAXI_CSV", beside))


@pytest.mark.skipif(not _taxi().exists(), reason="the taxi data lies in ../shared/data, or FLYBALL_TAXI_CSV names it")
def test_the_real_taxi_file_is_accounted_for_to_the_row(tmp_path: Path) -> None:
    ingest = make_ingest(tmp_path, config=IngestConfig(chunk_rows=4_000))
    receipt = ingest.append_file("Trips", _taxi())
    assert receipt.received == 15_002
    assert receipt.accepted + receipt.quarantined + receipt.duplicates == 15_002
    horizon = ingest.flush(["Trips"])["Trips"]
    truth = pl.read_csv(_taxi(), infer_schema=False)
    columns = [column.name for column in TRIPS.columns]
    events = ingest.events("Trips")
    assert events.height == horizon.rows
    assert events["fare"].sum() == sum(
        round(float(fare) * 100) for fare in truth.unique([*columns, TRIPS.event_time], maintain_order=True)["fare"]
    )
    assert events["company"].null_count() == truth.filter(pl.col("company").is_null()).height
    assert (events["_known_at"] - events["_event_time"]).unique().to_list() == [3_600 * SECOND]
