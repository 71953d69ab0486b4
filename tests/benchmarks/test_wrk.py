from __future__ import annotations

import pytest
from benchmarks.serving.wrk import parse

OUTPUT = """Running 2s test @ http://127.0.0.1:1/
  2 threads and 64 connections
wrk {"requests": 1000, "microseconds": 2000000, "p50_us": 150, "p99_us": 4200, "max_us": 9000, """
COUNTS = '"bad_status": 1, "connect": 2, "read": 3, "write": 4, "timeout": 5}\n'


def test_the_line_of_the_script_is_read() -> None:
    found = parse(OUTPUT + COUNTS)
    assert (found.rate, found.p50_ms, found.p99_ms) == (500.0, 0.15, 4.2)


def test_whatever_was_not_answered_well_has_failed() -> None:
    assert parse(OUTPUT + COUNTS).failed == 15


def test_output_without_a_result_is_an_error() -> None:
    with pytest.raises(SystemExit, match="no result"):
        parse("unable to connect to 127.0.0.1:1 Connection refused")
