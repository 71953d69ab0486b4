import os
from pathlib import Path
from typing import Any

from flyball.console import page
from flyball.kernel.errors import UnavailableError
from flyball.kernel.files import write_document
from flyball.kernel.layout import Layout
from flyball.loop.plans import ACKNOWLEDGEMENT_FORMAT, FORMATS
from flyball.platform.board import Board


class Core:
    """A core that nothing was applied to."""

    def status(self) -> dict[str, Any]:
        return {"at": 5, "projects": [], "services": [], "predictions": {}, "plans": {}, "loops": {}}

    def runs(self, *, model: str = "", kind: str = "", limit: int = 50) -> list[dict[str, Any]]:
        return []

    def facts(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[dict[str, Any]]:
        return []

    def versions(self, model: str) -> dict[str, Any]:
        raise AssertionError

    service = quality = drift = skew = versions


def no_worker() -> str:
    raise UnavailableError("nothing answers")


class Ingest:
    def __init__(self) -> None:
        self.rows = 0
        self.gone = False

    def __call__(self) -> list[dict[str, Any]]:
        if self.gone:
            raise UnavailableError("nothing answers")
        return [{"name": "Trips", "rows": self.rows}]


def test_the_rate_is_what_came_in_lately_and_stays_while_ingest_does_not_answer(tmp_path: Path) -> None:
    now = 0.0
    ingest = Ingest()
    layout = Layout(tmp_path)
    board = Board(Core(), layout=layout, sources=ingest, metrics=no_worker, predictions=dict, monotonic=lambda: now)
    board.look()
    assert board.status()["sources"] == [{"name": "Trips", "rows": 0, "rate": 0.0}]
    for _ in range(30):
        now, ingest.rows = now + 1.0, ingest.rows + 100
        board.look()
    assert board.status()["sources"][0]["rate"] == 100.0
    ingest.gone = True
    board.look()
    assert board.status()["sources"][0]["rows"] == 3_000


def test_processes_are_told_with_their_plans_and_only_workers_that_live(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    processes = [{"name": "ingest", "state": "running", "pid": 11, "restarts": 0}]
    endpoints = {"control": "http://127.0.0.1:1", "processes": processes}
    write_document(layout.endpoints, "flyball.endpoints", endpoints)
    (tmp_path / "console").write_text("c0de")
    said = (("ingest", 11, "bad view"), ("worker-0", os.getpid(), None), ("worker-1", 2**22 - 1, None))
    for name, pid, error in said:
        body = {"epoch": 4, "digest": "d", "error": error, "pid": pid, "at": 0}
        write_document(layout.acknowledgements / f"{name}.json", ACKNOWLEDGEMENT_FORMAT, body)
    view = {"name": "Company", "source": "Trips"}
    write_document(layout.ingest_plan, FORMATS["ingest"], {"epoch": 4, "digest": "d", "views": [view]})
    status = Board(Core(), layout=layout, sources=Ingest(), metrics=no_worker, predictions=dict).status()
    assert [p["name"] for p in status["processes"]] == ["ingest", "worker-0"]
    assert status["processes"][0]["error"] == "bad view"
    assert status["views"] == [{"name": "Company", "source": "Trips", "ready": False}]
    assert status["console"] == "http://127.0.0.1:1/open?code=c0de"
    assert status["state"] == str(tmp_path)
    assert page(status)  # type: ignore[arg-type]
