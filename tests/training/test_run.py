"""What a run reports, and that secrets stay out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flyball.define.secret import secret
from flyball.kernel.errors import InvalidError
from flyball.kernel.files import read_document
from flyball.training.capture import Lines, LogFile, capture_descriptors, capture_streams
from flyball.training.ports import PROGRESS_FORMAT
from flyball.training.progress import Progress
from flyball.training.run import Run
from flyball.training.secrecy import Mask


def make_run(folder: Path, mask: Mask | None = None) -> Run:
    progress = Progress(folder / "progress.json", mask or Mask())
    progress.stage("training")
    return Run(folder=folder, params={"leaves": 7}, seed=3, pack=lambda model: model, progress=progress)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_appended_with_their_step_and_infinity_is_null(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.log({"loss": 0.5}, step=1)
    run.log({"loss": float("inf")})
    assert [(line["step"], line["metrics"]) for line in lines(tmp_path / "metrics.jsonl")] == [
        (1, {"loss": 0.5}),
        (None, {"loss": None}),
    ]
    with pytest.raises(InvalidError, match="'loss' is str"):
        run.log({"loss": "low"})  # type: ignore[dict-item]


def test_artifacts_are_kept_under_plain_names(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.artifact("roc.txt", "curve")
    assert (tmp_path / "artifacts" / "roc.txt").read_text() == "curve"
    for name in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(InvalidError):
            run.artifact(name, b"")


def test_a_secret_that_is_declared_later_is_masked_from_then_on() -> None:
    mask = Mask.of(["LISTED"], {"LISTED": "one-value", "DECLARED_LATER_IN_TEST": "another-value", "NEITHER": "plain"})
    assert mask("one-value another-value plain") == "*** another-value plain"
    secret("DECLARED_LATER_IN_TEST")
    assert mask("one-value another-value plain") == "*** *** plain"
    assert mask.longest == len("another-value")


def test_progress_tells_stages_counts_and_seconds(tmp_path: Path) -> None:
    now = iter([float(n) for n in range(100)])
    progress = Progress(tmp_path / "progress.json", Mask(["s3cret"]), monotonic=lambda: next(now))
    progress.stage("data")
    progress.count(rows=10)
    progress.stage("training")
    progress.report(done=1, total=2, note="password s3cret")
    body = read_document(tmp_path / "progress.json", PROGRESS_FORMAT)
    assert body["stage"] == "training"
    assert body["stages"][0]["counts"] == {"rows": 10}
    assert body["stages"][0]["seconds"] > 0
    assert (body["stages"][1]["done"], body["stages"][1]["note"]) == (1, "password ***")


def test_what_is_said_beside_a_model_must_be_plain_data(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert run.package("model", threshold=0.3).extra == {"threshold": 0.3}
    with pytest.raises(InvalidError, match="plain JSON"):
        run.package("model", frame=object())


def test_everything_written_to_the_descriptors_is_logged_and_masked(tmp_path: Path) -> None:
    mask = Mask(["s3cret", "two\nlines"])
    log = LogFile(tmp_path / "log.jsonl", mask)
    with capture_descriptors(log):
        os.write(1, b"from native code\npart")
        os.write(1, b"ial s3cret\nprogress 1\rprogress 2\r")
        os.write(2, b"two\nlines\nunfinished")
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
    log.close()
    by_stream: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for line in lines(tmp_path / "log.jsonl"):
        assert line["time"].endswith("Z")
        by_stream[line["stream"]].append(line["text"])
    assert by_stream["stdout"] == ["from native code", "partial ***", "progress 1", "progress 2", "child"]
    assert by_stream["stderr"] == ["***", "***", "unfinished"]


def test_in_the_foreground_output_is_shown_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = LogFile(tmp_path / "log.jsonl", Mask(["s3cret"]))
    with capture_streams(log):
        sys.stdout.write("hello s3cret\n")
    log.close()
    assert capsys.readouterr().out == "hello s3cret\n"
    assert [line["text"] for line in lines(tmp_path / "log.jsonl")] == ["hello ***"]


def test_a_secret_across_the_cut_of_an_endless_line_is_masked(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log.jsonl", Mask(["s3cret"]))
    for position in range(7):
        cut = Lines(log, "stdout")
        cut.feed(b"x" * (65_537 - position) + b"s3c")
        cut.feed(b"ret" + b"y" * 70_000)
        cut.close()
    log.close()
    text = "".join(line["text"] for line in lines(tmp_path / "log.jsonl"))
    assert "s3cret" not in text
    assert text.count("***") == 7
