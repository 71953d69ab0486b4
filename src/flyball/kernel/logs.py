"""Structured logs: one JSON object a line, with the ids of runs, versions and predictions as fields."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from flyball.kernel.times import show_time

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`logger.info("run finished", extra={"run": run_id})` becomes one line of JSON."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": show_time(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(process: str, *, folder: Path | None, level: str = "info") -> None:
    """Send this process's logs to `FOLDER/PROCESS.jsonl`, or to standard error where there is no folder."""
    handler: logging.Handler
    if folder is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / f"{process}.jsonl")
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
