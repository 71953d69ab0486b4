"""The control process: the core, the loop that ticks it, and the control API in front."""

from __future__ import annotations

import logging
import threading
from typing import Any

import uvicorn

from flyball import console
from flyball.http.access import token_digest
from flyball.http.control import Shell, application
from flyball.http.session import OneTimeCode, Sessions
from flyball.kernel.errors import FlyballError
from flyball.kernel.files import FileLock, read_document
from flyball.kernel.layout import Layout
from flyball.kernel.settings import Settings
from flyball.platform.board import Board
from flyball.platform.process import Loop
from flyball.platform.state import OWNER, ensure_token, tokens
from flyball.platform.wiring import OtherProcesses, PredictionCounts, open_control

logger = logging.getLogger(__name__)
TICK = 0.2  # seconds between two ticks of the loops
LOOK = 1.0  # seconds between two looks at the other processes


def run_control(settings: Settings) -> None:
    """Run until SIGTERM; then answer what was received, finish the tick, and end."""
    layout = Layout(settings.state)
    lock = FileLock(layout.lock("control"), "control")
    others = OtherProcesses(layout)
    control = open_control(settings, ingest=others)
    token = ensure_token(layout)
    board = Board(
        control, layout=layout, sources=others.sources, metrics=others.metrics, predictions=PredictionCounts(layout)
    )
    writing = threading.Lock()
    shell = Shell(
        pages=console,
        core=control,
        status=board.status,
        tokens=tokens(layout),
        names={token_digest(token): OWNER},
        sessions=Sessions(token.encode()),
        code=OneTimeCode(layout.root / "console"),
        endpoints=lambda: endpoints(layout),
        writing=writing,
    )

    def tick() -> None:
        with writing:
            control.tick()

    loops = [Loop("tick", tick, every=TICK).start(), Loop("look", board.look, every=LOOK).start()]
    logger.info("control listens", extra={"port": settings.port})
    try:
        uvicorn.run(
            application(shell),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=10,
        )
    finally:
        for loop in loops:
            loop.stop()
        lock.release()
        logger.info("control stopped")


def endpoints(layout: Layout) -> dict[str, Any] | None:
    """Where the processes listen, as the supervisor wrote it; None before it did."""
    try:
        return read_document(layout.endpoints, "flyball.endpoints")
    except (FileNotFoundError, FlyballError):
        return None
