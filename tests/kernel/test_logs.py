import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.kernel.logs import configure


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


def test_a_log_line_is_json_with_the_extra_fields(tmp_path: Path) -> None:
    configure("control", folder=tmp_path / "logs")
    logging.getLogger("flyball.x").info("run %s finished", "r1", extra={"run": "run_1"})
    (line,) = (tmp_path / "logs" / "control.jsonl").read_text().splitlines()
    data = json.loads(line)
    assert data | {"time": ""} == {
        "time": "",
        "level": "info",
        "process": "control",
        "logger": "flyball.x",
        "message": "run r1 finished",
        "run": "run_1",
    }


def test_an_exception_and_a_value_that_json_does_not_know_are_kept(tmp_path: Path) -> None:
    configure("ingest", folder=tmp_path)
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger().exception("failed", extra={"where": Path("a/b")})
    data = json.loads((tmp_path / "ingest.jsonl").read_text())
    assert data["where"] == "a/b"
    assert "KeyError" in data["exception"]


def test_without_a_folder_logs_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure("worker", folder=None, level="warning")
    logging.getLogger().info("quiet")
    logging.getLogger().warning("loud")
    err = capsys.readouterr().err
    assert json.loads(err)["message"] == "loud"
