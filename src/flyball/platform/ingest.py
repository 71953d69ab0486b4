"""The ingest process: the core, its pump, the plan it follows, and HTTP in front."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import uvloop

from flyball.http.ingest import IngestApp
from flyball.http.server import Limits, start
from flyball.ingest.pull import Puller
from flyball.ingest.pump import Pump
from flyball.kernel.files import FileLock
from flyball.kernel.layout import Layout
from flyball.kernel.memory import settle
from flyball.kernel.settings import Settings
from flyball.loop.plans import FORMATS
from flyball.platform.plans import Plan, PlanFollower
from flyball.platform.process import Loop
from flyball.platform.state import tokens
from flyball.platform.wiring import open_ingest
from flyball.storage.following import open_writable

logger = logging.getLogger(__name__)
POLL = 0.1  # seconds between two looks at the plan
LOOK = 1.0  # seconds between two looks at whether the online state is there
LARGEST_FILE = 1 << 30  # bytes of one upload


def run_ingest(settings: Settings) -> None:
    """Run until SIGTERM; then answer what was received, flush, and end."""
    layout = Layout(settings.state)
    lock = FileLock(layout.lock("ingest"), "ingest")
    online = open_writable(layout.online)
    ingest = open_ingest(settings, store=online)
    pump = Pump(ingest)
    puller = Puller(ingest.pulls, on_stored=pump.notify)
    app = IngestApp(
        ingest,
        tokens(layout),
        spool=layout.event_log / "spool",
        on_stored=pump.notify,
        problem=lambda: follower.error or pump.error,
    )

    def take(plan: Plan) -> None:
        ingest.load_plan(plan)
        app.use_tokens(plan.get("tokens") or tokens(layout))
        puller.use({spec.name: spec.origin for spec in ingest.sources() if spec.origin is not None})
        pump.notify()

    follower = PlanFollower(
        layout.ingest_plan,
        FORMATS["ingest"],
        take=take,
        acknowledgement=layout.acknowledgements / "ingest.json",
    )
    follower.step()  # before the first push: it must find its source

    def look() -> None:
        if online.lost():  # the supervisor starts another, which builds the state again
            logger.error("online state was taken away; ingest ends, to begin it anew")
            os.kill(os.getpid(), signal.SIGTERM)

    polling = Loop("plan", follower.step, every=POLL).start()
    looking = Loop("state", look, every=LOOK).start()
    pump.start()
    settle()
    try:
        uvloop.run(serve(app, settings))
    finally:
        polling.stop()
        puller.stop()
        looking.stop()
        app.close()
        pump.stop()
        lock.release()
        logger.info("ingest stopped")


async def serve(app: IngestApp, settings: Settings) -> None:
    """Listen until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await start(app, host=settings.host, port=settings.port, limits=Limits(body_bytes=LARGEST_FILE))
    logger.info("ingest listens", extra={"port": server.port})
    await stop.wait()
    await server.stop()
