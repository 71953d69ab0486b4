"""Whole runs: in the foreground, in a process of their own, killed and launched again."""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flyball import trainer
from flyball.define.spec import BatchSpec, FeatureSpec
from flyball.engines.local import LocalEngine
from flyball.kernel.errors import FlyballError
from flyball.kernel.files import FileLock, read_document
from flyball.loop.training import _agree
from flyball.registry import versions
from flyball.training.ports import ERROR_FORMAT, PROGRESS_FORMAT, RESULT_FORMAT, SPOOL, Handle, Horizon, Poll, RunSpec
from tests.training.project import fake_rooms, metrics, prepare

SECRET = "correct horse"
ROOT = Path(__file__).parents[2]


def inline(spec: RunSpec, run_dir: Path, **options: Any) -> dict[str, Any]:
    return trainer.run_inline(spec, run_dir, using=fake_rooms(spec, run_dir), **options)


def engine() -> LocalEngine:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {"PYTHONPATH": path, "DB_PASSWORD": SECRET}
    return LocalEngine(command=[sys.executable, "-m", "tests.training.child"], environment=environment)


def finish(local: LocalEngine, handle: Handle) -> Poll:
    watch = os.pidfd_open(handle.pid)
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    assert poll.poll(60_000), "the run did not end"
    os.close(watch)
    return local.poll(handle)


def test_a_run_gives_a_version_that_says_where_it_came_from(tmp_path: Path) -> None:
    spec, run_dir = prepare(tmp_path, params={"baseline": "without_windows"}, seed=3)
    result = inline(spec, run_dir)
    assert read_document(run_dir / "result.json", RESULT_FORMAT) == result
    version = versions.read(run_dir / "version", expected=result["digest"])
    found = version.manifest
    assert found["runtime"]["kind"] == "trees"
    assert found["bundle"] == spec.bundle
    assert found["run"]["seed"] == 3
    assert found["snapshot"]["horizon"] == {"Trips": {"lsn": 300, "rows": 300, "version": 1}}
    assert found["extra"] == {"note": "by hand"}
    assert found["profile"]["rows"] == 225
    assert found["metrics"]["auc"] == result["metrics"]["auc"]
    assert found["evaluation"]["baseline"]["features"] == 2
    assert 0.5 < found["evaluation"]["baseline"]["metrics"]["auc"] < found["metrics"]["auc"]
    assert [stage["stage"] for stage in result["stages"]] == ["data", "training", "evaluation", "baseline", "packaging"]
    assert read_document(run_dir / "progress.json", PROGRESS_FORMAT)["stages"][0]["counts"]["rows"] == 300
    assert (run_dir / "artifacts" / "notes.txt").read_text() == "leaves"
    assert "training on 225 rows" in (run_dir / "log.jsonl").read_text()


def test_equal_runs_give_one_digest_whatever_their_id(tmp_path: Path) -> None:
    first = inline(*prepare(tmp_path, "run_1", seed=5))
    second = inline(*prepare(tmp_path, "run_2", seed=5))
    other = inline(*prepare(tmp_path, "run_3", seed=6))
    assert first["digest"] == second["digest"] != other["digest"]
    logged = [(tmp_path / "runs" / f"run_{n}" / "metrics.jsonl").read_text() for n in (1, 2)]
    assert json.loads(logged[0])["metrics"] == json.loads(logged[1])["metrics"]


def test_the_champion_is_evaluated_on_the_same_rows(tmp_path: Path) -> None:
    first = inline(*prepare(tmp_path, "run_1", params={"rounds": 1}))
    versions.install(tmp_path / "runs" / "run_1" / "version", tmp_path / "artifacts" / "versions")
    second = inline(*prepare(tmp_path, "run_2", champion=first["digest"]))
    assert second["evaluation"]["champion"] == {"digest": first["digest"], "metrics": first["metrics"]}


def test_a_champion_of_other_features_gets_its_own(tmp_path: Path) -> None:
    first = inline(*prepare(tmp_path, "run_1"))
    versions.install(tmp_path / "runs" / "run_1" / "version", tmp_path / "artifacts" / "versions")
    spec, run_dir = prepare(tmp_path, "run_2", champion=first["digest"])
    model = msgspec.structs.replace(spec.model, features=spec.model.features[::-1])
    second = inline(msgspec.structs.replace(spec, model=model), run_dir)
    assert second["evaluation"]["champion"]["metrics"] == first["metrics"]


def test_a_champion_that_cannot_be_read_blocks_nothing(tmp_path: Path) -> None:
    result = inline(*prepare(tmp_path, champion="0" * 64))
    assert "there is no version" in result["evaluation"]["champion"]["error"]


def test_an_exception_of_the_users_passes_through_and_is_kept_with_their_frames(tmp_path: Path) -> None:
    spec, run_dir = prepare(tmp_path, function="broken")
    (run_dir / SPOOL).mkdir()  # of an attempt that was killed
    with pytest.raises(ValueError, match="no such thing"):
        inline(spec, run_dir)
    error = read_document(run_dir / "error.json", ERROR_FORMAT)
    assert [(frame["file"], frame["function"]) for frame in error["frames"]] == [
        ("taxi.py", "broken"),
        ("taxi.py", "inner"),
    ]
    assert error["code"] == "user_code"
    assert not (run_dir / SPOOL).exists()
    assert not (run_dir / "result.json").exists()


def test_a_function_handed_in_is_called_itself(tmp_path: Path) -> None:
    called = []

    def mine(data: Any, run: Any) -> Any:
        called.append(len(data.train))
        import lightgbm

        return run.package(lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(data.train.X, data.train.y))

    spec, run_dir = prepare(tmp_path, bundle="")
    assert inline(spec, run_dir, function=mine)["digest"]
    assert called == [225]

    def fails(data: Any, run: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        inline(spec, run_dir, function=fails)
    assert read_document(run_dir / "error.json", ERROR_FORMAT)["frames"][-1]["function"] == "fails"


def test_a_function_that_returns_no_package_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(FlyballError, match="returned int") as caught:
        inline(*prepare(tmp_path, function="forgets"))
    assert "run.package" in caught.value.hint


def test_a_model_that_answers_differently_once_packed_is_no_version(tmp_path: Path) -> None:
    spec, run_dir = prepare(tmp_path)
    with pytest.raises(FlyballError, match="differs"):
        _agree(np.array([0.5]), np.array([0.6]))
    assert inline(spec, run_dir)["runtime"] == "trees"


def test_a_batch_scores_what_is_new_once(tmp_path: Path) -> None:
    trained = inline(*prepare(tmp_path, "run_1"))
    versions.install(tmp_path / "runs" / "run_1" / "version", tmp_path / "artifacts" / "versions")
    batch = BatchSpec(name="daily", model="tip", rows="Trips", every=1, output="scores")
    options: dict[str, Any] = {"kind": "batch", "batch": batch, "version": trained["digest"]}
    options["horizon"] = {"Trips": Horizon(lsn=120, version=1, rows=120)}
    spec, run_dir = prepare(tmp_path, "run_2", after=100, **options)
    result = inline(spec, run_dir)
    assert (result["rows"], result["through"]) == (20, 120)
    (run_dir / "result.json").unlink()  # killed after the append, before the result
    assert inline(spec, run_dir)["rows"] == 20
    table = json.loads((tmp_path / "table.json").read_text())
    (rows,) = table.values()
    assert [row["_lsn"] for row in rows] == list(range(101, 121))
    assert all(0 < row["score"] < 1 and row["version"] == trained["digest"] for row in rows)


def test_a_batch_computes_the_features_that_its_version_was_trained_on(tmp_path: Path) -> None:
    trained = inline(*prepare(tmp_path, "run_1"))
    versions.install(tmp_path / "runs" / "run_1" / "version", tmp_path / "artifacts" / "versions")
    batch = BatchSpec(name="daily", model="tip", rows="Trips", every=1, output="scores")
    spec, run_dir = prepare(tmp_path, "run_2", kind="batch", batch=batch, version=trained["digest"])
    changed = msgspec.structs.replace(spec.model, features=(FeatureSpec(name="x", expr=["lit", 1.0]),))
    assert inline(msgspec.structs.replace(spec, model=changed), run_dir)["rows"] == 300


@pytest.mark.slow
def test_a_run_killed_in_the_middle_is_completed_by_another_launch(tmp_path: Path) -> None:
    _, run_dir = prepare(tmp_path, function="killed", params={"marker": str(tmp_path / "marker")})
    local = engine()
    assert finish(local, local.launch(run_dir)).code == -9
    assert not (run_dir / "result.json").exists()
    assert not (run_dir / "error.json").exists()
    again = local.launch(run_dir)
    assert finish(local, again).code == 0
    result = read_document(run_dir / "result.json", RESULT_FORMAT)
    assert versions.read(run_dir / "version").digest == result["digest"]
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 1
    assert finish(local, local.launch(run_dir)).code == 0  # finished: nothing is done again
    assert read_document(run_dir / "result.json", RESULT_FORMAT) == result


@pytest.mark.slow
def test_a_failing_process_leaves_the_users_frames_and_no_secret(tmp_path: Path) -> None:
    _, run_dir = prepare(tmp_path, function="broken")
    local = engine()
    assert finish(local, local.launch(run_dir)).code == 1
    error = read_document(run_dir / "error.json", ERROR_FORMAT)
    assert [frame["function"] for frame in error["frames"]] == ["broken", "inner"]
    assert error["message"].startswith("the training code raised ValueError: no such thing as ***225 at taxi.py:")
    for path in run_dir.rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text(errors="replace"), path


def test_a_secret_that_is_printed_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    spec, run_dir = prepare(tmp_path)
    inline(spec, run_dir)
    assert "225 rows with ***" in (run_dir / "log.jsonl").read_text()


def test_a_directory_that_another_process_executes_is_left_alone(tmp_path: Path) -> None:
    _, run_dir = prepare(tmp_path)
    lock = FileLock(run_dir / "run.lock", "the run")
    before = sorted(path.name for path in run_dir.iterdir())
    assert trainer.main([str(run_dir)]) == 4
    assert sorted(path.name for path in run_dir.iterdir()) == before
    lock.release()


def test_the_metric_of_these_tests_is_an_auc() -> None:
    y, score = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8])
    assert metrics(None, y, score) == {"auc": 0.75}  # type: ignore[arg-type]
