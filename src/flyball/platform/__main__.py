"""`python -m flyball.platform control|ingest --state DIR --host HOST --port PORT`: one process of the platform."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from flyball.kernel.errors import FlyballError
from flyball.kernel.layout import Layout
from flyball.kernel.logs import configure
from flyball.kernel.settings import Settings
from flyball.platform.process import stop_with_parent


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m flyball.platform")
    parser.add_argument("process", choices=["control", "ingest"])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--audit-share", type=float, default=Settings().audit_share)
    parser.add_argument("--supervised", action="store_true", help="stop when standard input ends")
    given = parser.parse_args(arguments)
    settings = Settings(
        state=given.state, host=given.host, port=given.port, log_level=given.log_level, audit_share=given.audit_share
    )
    layout = Layout(settings.state)
    try:
        layout.create()
        configure(given.process, folder=layout.logs, level=settings.log_level)
        for chatty in ("httpx", "alembic", "uvicorn.error"):  # a line for each request, or at each start
            logging.getLogger(chatty).setLevel(logging.WARNING)
        if given.supervised:
            stop_with_parent()
        if given.process == "control":
            from flyball.platform.control import run_control as run
        else:
            from flyball.platform.ingest import run_ingest as run
        run(settings)
    except FlyballError as error:
        sys.stderr.write(json.dumps({"error": error.to_data()}) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
