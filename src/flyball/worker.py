"""Composition root of a worker: a serving plan in, a wired worker out.

    python -m flyball.worker --state DIR [--host H] [--port P] [--workers N|MIN:MAX] [--drain-window SECONDS]

The first process is a zygote: it imports and warms what workers share, listens on the port, forks as many workers as
the load needs, one a slot, and forks again where one died. It stays single-threaded, so that a fork is safe; files,
LMDB and threads are opened in the workers. A worker that loses its zygote finishes what it has and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from flyball.engines.runtimes import open_runtime
from flyball.features.online import OnlineReader, not_built
from flyball.features.ports import OnlineStore
from flyball.features.serving import FeatureServer, ServedFeatures
from flyball.features.states import META, REBUILDING, pulse, view_key
from flyball.features.views import CompiledView
from flyball.features.warm import warm as warm_features
from flyball.http.accepting import Acceptor
from flyball.http.access import LOOPBACK_HOSTS
from flyball.http.draining import DrainConfig, Ending, drain
from flyball.http.inference import InferenceApp
from flyball.http.listening import open_listener
from flyball.http.metrics import InferenceMetrics
from flyball.http.outlet import Outlet
from flyball.http.server import Limits, Server
from flyball.kernel import logs
from flyball.kernel.clock import Clock, ReplayClock, WallClock
from flyball.kernel.errors import (
    ConflictError,
    DeniedError,
    FlyballError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from flyball.kernel.files import FileLock
from flyball.kernel.layout import Layout
from flyball.kernel.settings import worker_bounds
from flyball.kernel.times import SECOND
from flyball.serving import standalone, trees
from flyball.serving.board import Board, WorkerState
from flyball.serving.follower import PlanFollower
from flyball.serving.log import PredictionWriter
from flyball.serving.manifest import Manifest
from flyball.serving.observing import Counting
from flyball.serving.ports import FeatureBatch, Observer, RecordLog
from flyball.serving.privacy import pii_key
from flyball.serving.scaling import ScalingConfig
from flyball.serving.service import Worker
from flyball.serving.threads import answer_quickly
from flyball.serving.zygote import Zygote
from flyball.storage.following import FollowingStore
from flyball.storage.online import MemoryStore

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
SYNC_SECONDS = 1.0
PULSE_SECONDS = 0.1
FILES = 65_536  # a worker's connections, and some
SWITCH_SECONDS = 0.0005  # after which a slow version's thread gives the interpreter to the event loop
GC_THRESHOLDS = (20_000, 50, 1_000)  # requests leave no cycles behind: looking for some costs more than it frees
SKEW = 5_000_000  # an `at` that is older than this asked for the past


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """What a zygote is started with. `port` 0 picks a free one, which is printed as a line of JSON."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 0
    workers: int | str = 1
    drain_window: float = 0.0
    log_level: str = "info"

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK_HOSTS and self.host != "::1":
            raise DeniedError(
                f"a worker listens on the loopback address only, not on {self.host!r}",
                code="not_loopback",
                hint="put a proxy with TLS before it, and leave --host out",
            )
        worker_bounds(self.workers)
        DrainConfig(window=self.drain_window)

    @property
    def scaling(self) -> ScalingConfig:
        minimum, maximum = worker_bounds(self.workers)
        return ScalingConfig(minimum=minimum, maximum=maximum)

    @property
    def drain(self) -> DrainConfig:
        return DrainConfig(window=self.drain_window)


class OnlineFeatures:
    """`serving.ports.FeatureReader` over online state, which is opened when a version first needs it.

    While the state is not there (it is being built again), views answer as for an entity that saw nothing, labelled so.
    """

    def __init__(
        self, open_store: Callable[[], OnlineStore], clock: Clock, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_store = open_store
        self._clock = clock
        self._monotonic = monotonic
        self._store: OnlineStore | None = None
        self._servers: dict[tuple[int, bool], tuple[Manifest, FeatureServer]] = {}
        self._complete: int | None = None
        self._look_at = 0.0
        self._told_until = 0.0

    def vectors(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> FeatureBatch:
        if not manifest.views:
            return self._batch(self._server(manifest, None).compute(rows, at), at, default=False)
        try:
            computed = self._server(manifest, self._reader()).compute(rows, at)
            complete = self._complete_through(max(at, default=0))
        except UnavailableError as error:
            self._tell(manifest, error)
            return self.defaults(manifest, rows, at)
        return self._batch(computed, at, default=False, complete=complete)

    def defaults(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> FeatureBatch:
        return self._batch(self._server(manifest, None).compute(rows, at), at, default=True)

    def check(self, manifest: Manifest) -> None:
        if not manifest.views:
            return
        try:
            with self._opened().read() as transaction:
                if transaction.get(META, REBUILDING) is not None:
                    return
                for view, definition in definitions(manifest):
                    if transaction.get(META, view_key(definition)) is None:
                        raise not_built(view)
        except UnavailableError as error:
            if error.code == "view_not_built":
                raise

    def _opened(self) -> OnlineStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _reader(self) -> OnlineReader:
        return OnlineReader(self._opened())

    def _complete_through(self, newest: int) -> int | None:
        """The state's pulse, looked at a few times a second, and where the last look would make a row at `newest` look
        late: a replay's time may have moved by hours since."""
        now = self._monotonic()
        if now >= self._look_at or self._complete is None or newest - self._complete >= SECOND:
            self._look_at = now + PULSE_SECONDS
            with self._opened().read() as transaction:
                self._complete = pulse(transaction)
        return self._complete

    def _tell(self, manifest: Manifest, error: UnavailableError) -> None:
        now = self._monotonic()
        if now >= self._told_until:  # once a second, not once a request
            self._told_until = now + 1.0
            logger.warning("online state cannot be read", extra={"model": manifest.model, "error": error.message})

    def _server(self, manifest: Manifest, reader: OnlineReader | None) -> FeatureServer:
        key = (id(manifest), reader is not None)
        found = self._servers.get(key)
        if found is None:
            if len(self._servers) > 256:
                self._servers.clear()  # of versions that are long gone; those in use come back
            server = FeatureServer(
                manifest.features,
                manifest.views,
                manifest.sources,
                rows=manifest.rows,
                columns=manifest.inputs,
                reader=reader or _empty_state(manifest),
            )
            found = self._servers[key] = (manifest, server)  # holds the manifest, so that its id stays its own
        return found[1]

    def _batch(
        self, computed: ServedFeatures, at: Sequence[int], *, default: bool, complete: int | None = None
    ) -> FeatureBatch:
        """Rows that state cannot answer exactly: an error where the past was asked for, else stale."""
        errors = dict(computed.errors)
        inexact = [] if default else np.flatnonzero(~computed.exact).tolist()
        now = self._clock.now() if inexact else 0
        for row in [row for row in inexact if at[row] < now - SKEW]:
            errors.setdefault(
                row, InvalidError("online state does not reach back to the row's time", code="at_too_old")
            )
        return FeatureBatch(
            matrix=computed.matrix,
            lsn={} if default else computed.lsn,
            known_through={} if default else computed.known_through,
            state="default" if default else "fresh",
            stale=frozenset(inexact) - errors.keys(),
            complete_through=complete,
            errors=errors,
        )


def _empty_state(manifest: Manifest) -> OnlineReader:
    """State in which nobody was ever seen: views answer what they answer for a new entity."""
    store = MemoryStore()
    with store.write() as transaction:
        for _, definition in definitions(manifest):
            transaction.put(META, view_key(definition), b"")
    return OnlineReader(store)


def definitions(manifest: Manifest) -> list[tuple[str, str]]:
    """The views of a version by name, and what their state is kept under."""
    sources = {source.name: source for source in manifest.sources}
    return [(view.name, CompiledView(view, sources[view.source]).definition) for view in manifest.views]


def build_worker(
    layout: Layout, *, log: RecordLog, clock: Clock, store: OnlineStore | None = None, observer: Observer | None = None
) -> Worker:
    """A worker's core on a state directory. `store`: online state of this process; None opens the directory's."""
    features = OnlineFeatures(lambda: store or FollowingStore(layout.online), clock)
    return Worker(
        features=features,
        open_runtime=open_runtime,
        log=log,
        clock=clock,
        pii_key=pii_key(layout.predictions),
        observer=observer,
    )


def open_clock(layout: Layout) -> Clock:
    """The replay clock where the platform was started with one, else the wall clock."""
    return ReplayClock(layout.clock) if layout.clock.exists() else WallClock()


def prepare_model(path: Path, state: Path) -> standalone.Standalone:
    """Make a state directory serve one model file: for `flyball serve FILE`, which then calls `run`.

    The file's suffix tells what it is: `.onnx`, `.txt` (LightGBM) or `.json` (XGBoost).
    """
    formats = {".onnx": "onnx", ".txt": "lightgbm", ".json": "xgboost"}
    format = formats.get(path.suffix.lower())
    if format is None:
        raise InvalidError(
            f"{path.name} is not a model file that can be served: it ends with none of {', '.join(formats)}",
            code="bad_model_file",
            hint="save LightGBM with Booster.save_model('model.txt'), XGBoost with Booster.save_model('model.json'); "
            "export other models to ONNX, or declare them in a project",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}", code="file_not_found") from None
    if format == "onnx":
        from flyball.engines.runtimes.onnx import OnnxRuntime

        return standalone.prepare(path, data, OnnxRuntime(data).signature(), state)
    from flyball.engines.runtimes.trees import TreeRuntime

    signature = TreeRuntime(data, format).signature()
    return standalone.prepare(path, data, signature, state, kind="trees", format=format)


async def serve(settings: WorkerSettings, slot: int, listener: socket.socket, parent: int, board: Board) -> None:
    """One worker, until SIGTERM or until the zygote is gone (`parent`, a pipe's end, closes)."""
    answer_quickly()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*GC_THRESHOLDS)
    process = f"worker-{slot}"
    layout, page = Layout(settings.state), board.slots[slot]
    loop = asyncio.get_running_loop()
    ending = Ending(board, parent)
    log = PredictionWriter(layout.predictions / process)
    metrics = InferenceMetrics(layout.metrics, process, board=board)
    worker = build_worker(layout, log=log, clock=open_clock(layout), observer=Counting(metrics.counters))
    follower = PlanFollower(worker, layout, process)
    first = follower.poll()
    if first is not None:
        first()

    def not_ready() -> str:
        if ending.whole_pool:
            return "it is stopping"
        return "" if worker.state.plan.epoch else "no serving plan was published yet"

    outlet = Outlet(loop)
    app = InferenceApp(worker, metrics, outlet, ready=not_ready)
    server = Server(app, Limits(), loop, outlet)
    server.sweep()
    busy_before = page.busy_ns

    def look() -> None:
        page.busy_ns = busy_before + time.process_time_ns()
        page.connections, page.in_flight = server.connections, server.owed
        epoch = worker.state.plan.epoch
        if epoch != page.epoch:
            page.epoch = epoch
            server.heads.clear()
            metrics.keep(served_pairs(worker))
            page.ready(time.monotonic_ns())

    look()
    acceptor = Acceptor(listener, server.connect, may_take=lambda: board.may_take(slot, server.connections))
    logger.info("worker started", extra={"port": listener.getsockname()[1], "pid": os.getpid()})
    tasks = [asyncio.create_task(_follow(follower, look)), asyncio.create_task(_sync(log))]
    await ending.asked.wait()
    page.state = WorkerState.DRAINING
    config = DrainConfig(window=settings.drain_window if board.desk.draining else 0.0)
    await drain(server, acceptor, config, whole_pool=ending.whole_pool, forced=ending.forced)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    metrics.close()
    log.close()
    logger.info("worker stopped", extra={"pid": os.getpid()})


def served_pairs(worker: Worker) -> list[tuple[str, str]]:
    """Each version of each service that a worker has loaded."""
    return [(name, ref) for name, service in worker.state.services.items() for ref in service.versions]


async def _follow(follower: PlanFollower, look: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(POLL_SECONDS)
        work = follower.poll()
        if work is not None:
            await loop.run_in_executor(None, work)
        look()


async def _sync(log: PredictionWriter) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SYNC_SECONDS)
        try:
            await loop.run_in_executor(None, log.sync)
        except Exception:
            logger.exception("the prediction log could not be brought to the disk")


def run(settings: WorkerSettings) -> None:
    """Run the workers of a state directory in this process and its children, until SIGTERM or SIGINT.

    Says where they listen in one line of JSON on standard output.
    """
    layout = Layout(settings.state)
    layout.create()
    lock = FileLock(layout.lock("workers"), "the workers' part")
    _raise_file_limit()
    listener = open_listener(settings.host, settings.port)
    port = int(listener.getsockname()[1])
    board = Board(settings.scaling.maximum)
    trees.warm()
    warm_features()
    gc.collect()
    gc.freeze()
    sys.stdout.write(json.dumps({"process": "workers", "host": settings.host, "port": port}) + "\n")
    sys.stdout.flush()

    def child(slot: int, parent: int) -> None:
        lock.release()
        logs.configure(f"worker-{slot}", folder=layout.logs, level=settings.log_level)
        uvloop.run(serve(settings, slot, listener, parent, board))

    Zygote(child, settings.scaling, board, grace=settings.drain.longest, leaving=listener.close).run()
    lock.release()


def _raise_file_limit() -> None:
    """As many open files, and so connections, as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flyball.worker", description="Serve a state directory's plan.")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", default="1", metavar="N|MIN:MAX")
    parser.add_argument("--drain-window", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--log-level", default="info")
    given = parser.parse_args(arguments)
    try:
        settings = WorkerSettings(**vars(given))
        settings.state.mkdir(parents=True, exist_ok=True)
        logs.configure("workers", folder=Layout(settings.state).logs, level=settings.log_level)
        run(settings)
    except FlyballError as error:
        sys.stderr.write(f"{error}\n")
        return 4 if isinstance(error, ConflictError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
