"""CSV is what Python's `csv` reads, whatever is in it and wherever chunks and reads are cut."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyball.define.spec import ColumnSpec, SourceSpec
from flyball.ingest import delimited
from flyball.ingest.delimited import csv_rows

SPEC = SourceSpec(
    name="S",
    columns=tuple(ColumnSpec(name=name, type="string", nullable=True) for name in "ac"),
    event_time="b",
)


def rows_of(path: Path, size: int) -> list[tuple[int, Any]]:
    """Line and values (or the rule) of each row."""
    found: list[tuple[int, Any]] = []
    for rows, _ in csv_rows(path, SPEC, size):
        assert rows.height <= size
        faults = {fault.row: fault.rule.value for fault in rows.faults}
        assert rows.positions is not None
        for place in range(rows.height):
            values = tuple(rows.columns[name][place] for name in "abc")
            found.append((rows.positions[place], faults.get(place, values)))
            if place in faults:
                assert values == (None, None, None)
    return found


def expected_of(text: str) -> list[tuple[int, Any]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    next(reader)
    return [
        (reader.line_num, tuple(v or None for v in row) if len(row) == 3 else "field_count") for row in reader if row
    ]


PIECES = ["a", "é,", ",", ",,", "\n", "\r\n", '"', '""', '"x,\ny"', '"a""b"', ',"c"\n', "x,y,z\n", "\r", " "]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(PIECES), max_size=25),
    st.integers(1, 5),
)  # fmt: skip
def test_every_text_is_read_as_python_reads_it(tmp_path: Path, parts: list[str], size: int) -> None:
    text = "a,b,c\n" + "".join(parts)
    path = tmp_path / "f.csv"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_READ", 7)
        try:
            expected = expected_of(text)
        except csv.Error:
            try:
                rows = rows_of(path, size)
            except ValueError:
                return  # a quote is open
            assert "bad_quotes" in [rule for _, rule in rows]
            return
        assert rows_of(path, size) == expected


def test_a_badly_quoted_line_is_named_and_the_next_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text('a,b,c\n1,2,3\n"x"y,2,3\n4,5,6\n7,"8 and\nmore"9,10\n11,"12\n13",14\n')
    assert rows_of(path, 2) == [
        (2, ("1", "2", "3")),
        (3, "bad_quotes"),
        (4, ("4", "5", "6")),
        (5, "bad_quotes"),
        (6, "field_count"),
        (8, ("11", "12\n13", "14")),
    ]
    (rows, _), *_ = csv_rows(path, SPEC, 50)
    assert rows.originals([1, 3]) == [{"a": "xy", "b": "2", "c": "3"}, {"a": "7", "b": "8 and"}]


def test_a_quote_that_is_never_closed_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text('a,b,c\n1,2,3\n4,"5,6\n7,8,9\n')
    with pytest.raises(ValueError, match="line 3: a quote is open"):
        rows_of(path, 5)
