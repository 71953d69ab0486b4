import io
import json
from typing import Any

import click
import pytest

from flyball.cli.explain import pairs
from flyball.cli.explain import told as explain_told
from flyball.cli.features import told as features_told
from flyball.cli.ingest import batches, push_lines, told
from flyball.cli.logs import log_file, read_line
from flyball.cli.output import progress, table
from flyball.cli.predict import read_rows
from flyball.cli.skew import told as skew_told
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


def test_skew_is_told_with_causes_bound_effect_and_examples() -> None:
    example = {
        "at": 0,
        "entity": {"user": "u1"},
        "feature": "Card.n_1h",
        "served": 7.0,
        "recomputed": 2.0,
        "cause": "ttl",
        "prediction": "pred_1",
    }
    found = {
        "service": "fraud",
        "version": "fraud/1",
        "window": 604_800_000_000,
        "compared": 1000,
        "mismatched": 5,
        "told": "≤ 0.0105 at 95 %",
        "bound": 0.0105,
        "limit": 0.001,
        "causes": {"ttl": 5},
        "skipped": {"pii": 3},
        "features": [{"feature": "Card.n_1h", "compared": 100, "mismatched": 5, "causes": {"ttl": 5}}],
        "effect": {"rows": 5, "mean": 0.01, "max": 0.04},
        "examples": [example],
        "sampling": {"share": 0.05, "predictions": 100, "waiting": 4, "dropped": 2},
    }
    text = click.unstyle(skew_told(found))
    for part in (
        "1000 values compared in the last 7d, 5 differ",
        "max_skew is 0.001 (over it: no release)",
        "causes: ttl 5",
        "skipped: pii 3",
        "sampled 0.05 of the entities: 100 predictions audited, 4 wait, 2 were let go",
        "|Δ score| mean 0.01, max 0.04",
        "user=u1",
        "--prediction pred_1",
    ):
        assert part in text, part
    assert "is not known" in skew_told(found | {"effect": {"rows": 0, "mean": None, "max": None}})


def test_an_explanation_is_told_with_its_interval_tiles_and_late_rows() -> None:
    row = {"event_time": 0, "known_at": 1_000_000, "lsn": 3, "value": 2.5}
    found = {
        "view": "Card",
        "feature": "sum_1h",
        "operator": "sum",
        "entity": {"user": "u1"},
        "at": 3_600_000_000,
        "interval": {"start": 0, "end": 3_600_000_000, "window": "1h", "hop": "30s"},
        "tiles": [{"start": 0, "hop": "5m", "rows": 1, "value": 2.5}],
        "tiles_left_out": 2,
        "head": {"start": 3_600_000_000, "end": 3_600_000_000, "rows": [row]},
        "rows_left_out": 0,
        "late": [row | {"why": "it was known 1s too late"}],
        "value": {"known": 5.0, "event": None},
        "online": {"value": 5.0, "exact": False, "lsn": 9},
    }
    text = click.unstyle(explain_told(found))
    for part in (
        "Card.sum_1h (sum) of user=u1 at 1970-01-01T01:00:00Z",
        "[1970-01-01T00:00:00Z, 1970-01-01T01:00:00Z): window 1h, hop 30s",
        "as known 5, as event null; online state says 5 (inexact: it is newer)",
        "tiles, 2 older ones left out:",
        "it was known 1s too late",
    ):
        assert part in text, part
    assert "online state: no store" in explain_told(found | {"online": {"error": "no store"}})
    value = {"logged": 6.0, "served": 5.0, "event": 5.0}
    served = explain_told(found | {"value": value, "online": None, "version": "fraud/3", "prediction": "pred_1"})
    assert "at 1970-01-01T01:00:00Z, as fraud/3 defines it" in served
    assert "value as logged 6, as served 5, as event 5" in served


def test_an_entity_is_columns_and_values() -> None:
    assert pairs(("user=a=b", "shop=")) == {"user": "a=b", "shop": ""}
    with pytest.raises(InvalidError, match="COLUMN=VALUE"):
        pairs(("user",))


def test_views_are_told_with_their_users() -> None:
    view = {
        "view": "Card",
        "kind": "window",
        "source": "Payments",
        "entity": ["card"],
        "ttl": None,
        "definition": "0123456789abcdef",
        "served_by": ["fraud/1"],
        "features": [{"name": "n_1h", "operator": "count", "window": "1h", "hop": "30s", "used_by": ["fraud"]}],
    }
    text = click.unstyle(features_told(view))
    assert "window view over Payments by card, definition 0123456789ab; served by fraud/1" in text
    assert text.splitlines()[-1].split() == ["n_1h", "count", "1h", "30s", "fraud"]
