import io
import json
from typing import Any

import click
import pytest

from flyball.cli.ingest import batches, push_lines, told
from flyball.cli.logs import log_file, read_line
from flyball.cli.output import progress, table
from flyball.cli.predict import read_rows
from flyball.cli.status import told as status_told
from flyball.cli.status import wrongs
from flyball.cli.train import parse_param
from flyball.kernel.errors import InvalidError, NotFoundError


def test_a_table_pads_text_to_the_right_and_numbers_to_the_left() -> None:
    text = click.unstyle(table(("name", "n"), [("a", 1), ("long", 100), ("b", None)]))
    assert text.splitlines() == ["name    n", "a       1", "long  100", "b       –"]
    assert click.unstyle(table(("name",), [])) == "name"


def test_progress_without_a_terminal_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("upload", unit="bytes") as bar:
        for done in range(0, 101, 5):
            bar(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "upload: 100 of 100 bytes"


def test_quiet_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("upload", quiet=True) as bar:
        bar(1, 2)
    assert capsys.readouterr() == ("", "")


def test_lines_from_a_pipe_are_pushed_in_batches_and_counted() -> None:
    class Pushed:
        sizes: list[int] = []

        def push(self, source: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
            self.sizes.append(len(rows))
            return {"accepted": len(rows) - 1, "quarantined": 1, "duplicates": 0, "reasons": {"too_late": 1}}

    client = Pushed()
    lines = io.StringIO("\n".join(json.dumps({"a": n}) for n in range(2_500)) + "\n\n")
    receipt = push_lines(client, "s", lines)  # type: ignore[arg-type]
    assert client.sizes == [1_000, 1_000, 500]
    assert receipt == {"accepted": 2_497, "quarantined": 3, "duplicates": 0, "reasons": {"too_late": 3}, "warnings": {}}
    assert told("s", receipt) == "s: 2497 rows accepted, 3 quarantined\n  3 × too_late"


def test_a_line_that_is_not_json_is_named_by_its_number() -> None:
    with pytest.raises(InvalidError, match="line 2 "):
        list(batches(["{}\n", "{,}\n"]))


def test_parameters_are_json_where_they_read_as_json() -> None:
    given = ["a=1", "b=true", "c=Sun", 'd={"x": 1}', "e=", "f=a=b"]
    assert [parse_param(text)[1] for text in given] == [1, True, "Sun", {"x": 1}, "", "a=b"]
    for wrong in ("a", "=1"):
        with pytest.raises(InvalidError):
            parse_param(wrong)


def test_rows_are_a_json_list_or_json_lines(tmp_path: Any) -> None:
    file = tmp_path / "rows.json"
    for text in ('[{"a": 1}, {"a": 2}]', '{"a": 1}\n{"a": 2}\n'):
        file.write_text(text)
        assert read_rows(str(file)) == [{"a": 1}, {"a": 2}]
    with pytest.raises(NotFoundError):
        read_rows(str(tmp_path / "none"))


def test_a_log_is_found_by_its_process_and_only_in_its_folder(tmp_path: Any) -> None:
    (tmp_path / "control.jsonl").write_text('{"message": "x"}\nplain\n')
    assert log_file("control", tmp_path).name == "control.jsonl"
    with pytest.raises(NotFoundError, match="did you mean 'control'"):
        log_file("contrl", tmp_path)
    with pytest.raises(NotFoundError):
        log_file("../control", tmp_path / "logs")
    assert read_line("plain\n") == {"message": "plain"}


def test_what_is_wrong_names_processes_alerts_and_failed_runs() -> None:
    now = {
        "processes": [{"name": "ingest", "state": "down"}, {"name": "control", "state": "running"}],
        "alerts": [{"kind": "drift", "subject": "service:tip", "message": "fare moved", "open": True}],
        "runs": [{"run": "run_2", "model": "tip", "state": "failed"}, {"run": "run_1", "model": "tip", "state": "x"}],
    }
    assert wrongs(now) == [
        "ingest is down", "drift service:tip: fare moved", "the last run of tip failed: flyball logs run_2"
    ]  # fmt: skip
    assert wrongs({}) == []


def test_status_shows_what_is_pulled_and_derived_and_what_is_wrong_with_it() -> None:
    pull = {"dsn": "PG_DSN", "every": 60_000_000, "pulled_at": None, "rows": 0, "failures": 2, "code": "bad_query"}
    derive = {"from": "Trips", "lsn": 7, "behind": 3, "held": 1, "late": 2, "error": "", "code": ""}
    sources = [{"name": "Orders", "pull": pull | {"error": "no such table"}}, {"name": "Big@1", "derive": derive}]
    now = {"sources": [*sources, {"name": "Trips", "pull": None, "derive": None}]}
    text = status_told(now, "http://x")
    lines = [" ".join(line.replace("│", " ").split()) for line in text.splitlines()]
    assert any(line.startswith("Orders PG_DSN 1m never 0 failed 2 times: bad_query") for line in lines), text
    assert any(line.startswith("Big@1 Trips 7 3 1 2 events of its views came late") for line in lines), text
    assert wrongs(now) == ["Orders is not pulled: no such table"]
