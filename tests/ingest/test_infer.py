"""What is inferred from a file imports, compiles, and accepts that very file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flyball as fb
from flyball.define.spec import SourceSpec
from flyball.ingest.infer import infer
from flyball.kernel.errors import InvalidError
from tests.cli.run_cli import flyball
from tests.ingest.sources import make_ingest

AT = 1_690_000_000


def spec_of(text: str, name: str) -> SourceSpec:
    scope: dict[str, Any] = {}
    exec(compile(text, "inferred.py", "exec"), scope)
    source = scope[name]
    assert issubclass(source, fb.Source)
    found: SourceSpec = source._spec
    return found


def quarantined(folder: Path, path: Path, spec: SourceSpec) -> int:
    receipt = make_ingest(folder, sources=[spec]).append_file(spec.name, path)
    assert receipt.received == receipt.accepted + receipt.duplicates + receipt.quarantined
    return receipt.quarantined


def test_a_csv_gives_types_nulls_a_key_and_an_event_time(tmp_path: Path) -> None:
    path = tmp_path / "rides.csv"
    rows = [
        f"r{i},{i * 0.25:.2f},{'cash' if i % 3 else 'card'},{i % 2 == 0},{AT + i},,{i / 7},2023-07-2{i % 9}"
        for i in range(60)
    ]
    path.write_text("id,fare,paid,shared,started_at,note,miles,day\n" + "\n".join(rows) + "\n")
    text = infer(path, name="Rides")
    for line in (
        'event_time=fb.epoch("started_at", "s"),  # or day',
        'key="id",  # unique in the file',
        "    fare = fb.Decimal(2, ge=0)  # 0.00 to 14.75",
        '    paid = fb.Category("card", "cash")\n',
        "    shared = fb.Boolean()\n",
        "    note = fb.String(nullable=True)\n",
        "    miles = fb.Float(ge=0)",
        "    day = fb.Timestamp()",
    ):
        assert line in text
    assert "    started_at" not in text
    assert quarantined(tmp_path, path, spec_of(text, "Rides")) == 0


_CELLS = st.one_of(
    st.integers(-(10**6), 10**18).map(str),
    st.decimals(-1000, 1000, places=3).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["", "", "true", "FALSE", "2023-01-01", "x", 'a "b"', "1e3", " 5 ", "0"]),
    st.text(alphabet="aé,\n\\'\" ", max_size=4),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_in_a_file_its_contract_accepts_it(tmp_path: Path, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.lists(_CELLS, min_size=1, max_size=3), min_size=1, max_size=4))
    height = data.draw(st.integers(1, 40))
    columns: dict[str, Any] = {"at": [AT + i for i in range(height)]}
    for number, kind in enumerate(kinds):
        columns[f"c{number}"] = [kind[(i * 7 + number) % len(kind)] for i in range(height)]
    path = tmp_path / "f.csv"
    pl.DataFrame(columns).write_csv(path, quote_style="necessary")
    text = infer(path, name="Rows")
    assert quarantined(Path(tempfile.mkdtemp(dir=tmp_path)), path, spec_of(text, "Rows")) == 0, text


def test_parquet_and_json_lines_bring_their_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "when": pl.Series([AT * 1000 + i for i in range(30)]).cast(pl.Datetime("ms")),
            "n": range(30),
            "x": [i / 3 for i in range(30)],
            "cents": [i / 100 for i in range(30)],
            "two words": ["a"] * 30,
            "class": ["b"] * 30,
        }
    )
    frame.write_parquet(tmp_path / "f.parquet")
    text = infer(tmp_path / "f.parquet", name="F")
    assert "cents = fb.Decimal(2, ge=0)" in text
    assert "two words cannot be the name of an attribute" in text
    assert quarantined(tmp_path / "p", tmp_path / "f.parquet", spec_of(text, "F")) == 0
    frame.with_columns(pl.col("when").dt.epoch("ms")).write_ndjson(tmp_path / "f.jsonl")
    text = infer(tmp_path / "f.jsonl", name="F")
    assert 'fb.epoch("when", "ms")' in text
    assert quarantined(tmp_path / "j", tmp_path / "f.jsonl", spec_of(text, "F")) == 0


def test_without_a_time_the_contract_says_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidError, match="no event time") as caught:
        infer(path, name="F")
    assert caught.value.code == "no_event_time"


def test_the_command_prints_or_writes_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "my-rides.csv"
    path.write_text(f"a,at\n1,{AT}\n")
    assert "class MyRides(" in flyball("infer", path).out
    out = tmp_path / "rides.py"
    assert flyball("infer", path, "--name", "Rides", "--out", out).status == 0
    assert "class Rides(" in out.read_text()
    assert flyball("infer", path, "--out", out).status == 4


def test_codes_with_leading_zeros_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    codes = ["007", "7", *(f"{i:05}" for i in range(500, 530))]
    path.write_text("code,n,share,day,at\n" + "".join(f"{code},0,0.5,2023-01-01,{AT}\n" for code in codes))
    text = infer(path, name="F")
    for line in (
        'key="code"',
        "    code = fb.String()\n",
        "    n = fb.Integer(ge=0)",
        "    share = fb.Decimal(1, ge=0)",
    ):
        assert line in text
    ingest = make_ingest(tmp_path / "state", sources=[spec_of(text, "F")])
    assert ingest.append_file("F", path).accepted == len(codes), "007 and 7 are two keys"
    path = tmp_path / "months.csv"
    path.write_text("month,at\n" + "".join(f"{i % 3 + 1:02},{AT}\n" for i in range(60)))
    assert 'month = fb.Category("01", "02", "03")' in infer(path, name="F")
    path = tmp_path / "long.csv"
    path.write_text(f"number,at\n000123456789012,{AT}\n")
    assert "number = fb.String()" in infer(path, name="F"), "and no time in microseconds"


@pytest.mark.parametrize(
    ("name", "content", "status", "code"),
    [
        ("absent.csv", None, 3, "file_not_found"),
        ("absent.parquet", None, 3, "file_not_found"),
        ("latin.csv", b"name,at\nCaf\xe9,1690000000\n", 2, "bad_encoding"),
        ("late.csv", b"name,at\n" + b"x,1690000000\n" * 9_000 + b"Caf\xe9,1690000000\n", 2, "bad_encoding"),
        ("latin.jsonl", b'{"name": "Caf\xe9"}\n', 2, "bad_file"),
        ("none.jsonl", b"\n", 2, "empty_file"),
        ("long.csv", b"x" * 200_000, 2, "bad_file"),
        ("cut.parquet", b"PAR1", 2, "bad_file"),
        ("book.xlsx", b"PK\x03\x04\xff", 2, "unknown_format"),
    ],
)
def test_what_is_no_file_of_rows_is_refused_and_no_defect(
    tmp_path: Path, name: str, content: bytes | None, status: int, code: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ran = flyball("infer", tmp_path / name, "--name", "F", "--json")
    assert (ran.status, ran.json["error"]["code"]) == (status, code)


def test_a_directory_and_a_place_that_cannot_be_written_to_are_refused(tmp_path: Path) -> None:
    ran = flyball("infer", tmp_path, "--name", "F", "--json")
    assert (ran.status, ran.json["error"]["code"]) == (2, "bad_file")
    path = tmp_path / "f.csv"
    path.write_text(f"a,at\n1,{AT}\n")
    ran = flyball("infer", path, "--out", tmp_path / "absent" / "f.py", "--json")
    assert (ran.status, ran.json["error"]["code"]) == (2, "bad_file")
    assert "absent/f.py cannot be written: No such file or directory" in ran.json["error"]["message"]
    ran = flyball("infer", path, "--out", tmp_path, "--json")
    assert (ran.status, ran.json["error"]["code"]) == (4, "file_exists")


def _taxi() -> Path:
    beside = Path(__file__).parents[2].parent / "shared" / "data" / "chicago_taxi.csv"
    return Path(os.environ.get("FLYBALL_TAXI_CSV", beside))


@pytest.mark.skipif(not _taxi().exists(), reason="the taxi data lies in ../shared/data, or FLYBALL_TAXI_CSV names it")
def test_the_real_taxi_file_is_accepted_by_its_inferred_contract(tmp_path: Path) -> None:
    text = infer(_taxi(), name="Trips")
    assert 'event_time=fb.epoch("trip_start_timestamp", "s")' in text
    assert "payment_type = fb.Category(" in text
    assert quarantined(tmp_path, _taxi(), spec_of(text, "Trips")) == 0
