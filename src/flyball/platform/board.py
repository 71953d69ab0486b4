"""The status of the whole platform: what control knows, and what the other processes say of themselves."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from flyball.kernel.errors import FlyballError
from flyball.kernel.files import read_document
from flyball.kernel.layout import Layout
from flyball.loop.plans import ACKNOWLEDGEMENT_FORMAT, FORMATS
from flyball.platform.picture import Core, picture
from flyball.platform.supervisor import console_address
from flyball.platform.traffic import Traffic
from flyball.platform.wiring import BuildNotes

Data = dict[str, Any]
RATE_OVER = 10.0  # seconds over which a source's rate is taken


class Board:
    """Asks ingest now and then (`look`), and lays its answer beside the core's status.

    Args:
        sources: ingest's status of each source; raises `FlyballError` where it does not answer.
        metrics: a worker's metrics as Prometheus text; raises likewise.
        predictions: how many predictions of each service are in the lake.
    """

    def __init__(
        self,
        core: Core,
        *,
        layout: Layout,
        sources: Callable[[], list[Data]],
        metrics: Callable[[], str],
        predictions: Callable[[], dict[str, int]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core = core
        self._layout = layout
        self._ask = sources
        self._metrics = metrics
        self._predictions = predictions
        self._traffic = Traffic()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._sources: list[Data] = []
        self._history: dict[str, list[tuple[float, int]]] = {}

    def look(self) -> None:
        """Ask ingest and the workers; where one does not answer, its last answer stays."""
        with contextlib.suppress(FlyballError):
            sources = self._ask()
            now = self._monotonic()
            with self._lock:
                self._sources = [source | {"rate": self._rate(source, now)} for source in sources]
        with contextlib.suppress(FlyballError):
            text = self._metrics()
            with self._lock:
                self._traffic.take(text, self._monotonic())

    def _rate(self, source: Data, now: float) -> float:
        seen = self._history.setdefault(str(source.get("name")), [])
        seen.append((now, int(source.get("rows") or 0)))
        while len(seen) > 2 and seen[1][0] < now - RATE_OVER:
            seen.pop(0)
        (then, before), (_, rows) = seen[0], seen[-1]
        return (rows - before) / (now - then) if now > then else 0.0

    def status(self) -> Data:
        status = picture(self._core)
        logged = self._predictions()
        labels = {quality["service"]: quality["labels"] for quality in status["quality"]}
        with self._lock:
            status["sources"] = self._sources
            now = self._monotonic()
            status["services"] = [
                service
                | {"requests": logged.get(service["name"], 0), "labels": labels.get(service["name"])}
                | self._traffic.of(service["name"], now)
                for service in status["services"]
            ]
        status["views"] = self._views()
        status["replay"] = self._layout.clock.exists()
        endpoints = self._document("endpoints.json", "flyball.endpoints")
        status["processes"] = self._processes(endpoints)
        if endpoints.get("control"):
            status["console"] = console_address(self._layout, str(endpoints["control"]))
        status["state"] = str(self._layout.root.resolve())
        return status

    def _views(self) -> list[Data]:
        plan = self._document("plan/ingest.json", FORMATS["ingest"])
        done = self._document("plan/ack/ingest.json", ACKNOWLEDGEMENT_FORMAT)
        ready = done.get("epoch", 0) >= plan.get("epoch", 0) and not done.get("error")
        running = {(b["view"], b["source"]): b for b in BuildNotes(self._layout).read()["running"]}
        found = []
        for view in plan.get("views") or []:
            build = running.get((view["name"], view["source"]))
            shown = {"name": view["name"], "source": view["source"], "ready": ready and build is None}
            found.append(shown if build is None else shown | {"build": build})
        return found

    def _processes(self, endpoints: Data) -> list[Data]:
        acknowledged = {
            path.stem: self._document(f"plan/ack/{path.name}", ACKNOWLEDGEMENT_FORMAT)
            for path in sorted(self._layout.acknowledgements.glob("*.json"))
        }
        processes = [
            process | said(acknowledged.pop(process["name"], {})) for process in endpoints.get("processes") or []
        ]
        workers = [
            {"name": name, "state": "running", "pid": ack["pid"]} | said(ack)
            for name, ack in acknowledged.items()
            if ack.get("pid") and alive(int(ack["pid"]))
        ]
        return processes + workers

    def _document(self, name: str, form: str) -> Data:
        try:
            return read_document(self._layout.root / name, form)
        except (FileNotFoundError, FlyballError):
            return {}


def said(acknowledgement: Data) -> Data:
    """What a process made of its plan."""
    if not acknowledgement:
        return {}
    return {"epoch": acknowledgement.get("epoch"), "error": acknowledgement.get("error") or ""}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
