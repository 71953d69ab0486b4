"""Ours: events pushed over HTTP to the ingest process, each acknowledged when it is on the disk. Argument: `view`.

The process is the platform's own, with its pump: what was pushed is applied and flushed to the lake meanwhile. Without
`view` the plan has the source alone; with it, the 22-feature view, whose state is kept as well. A push counts when its
200 has come back; afterwards the table must hold exactly the events that were acknowledged.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import polars as pl
import uvloop

from benchmarks.features.view import SOURCE, VIEW
from benchmarks.harness import CACHE
from benchmarks.report import Measured
from flyball.features.warm import warm
from flyball.kernel.layout import Layout
from flyball.loop.plans import PlanFiles
from flyball.platform.state import ensure_token
from flyball.storage.lake import DeltaLake

BATCH, CONNECTIONS = 100, 32
WARM_UP, SECONDS = 3.0, 15.0
MOST = 400_000  # events a second that there are bodies for
PAUSE = 0.02  # seconds until what was refused is sent again
USERS = 50_000


@dataclass(kw_only=True)
class Load:
    """What the connections share; `sent_at` and `done_at` are of acknowledged pushes, by the monotonic clock."""

    address: tuple[str, int]
    token: str
    bodies: Iterator[tuple[int, bytes]]
    until: float
    acknowledged: list[int] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    done_at: list[float] = field(default_factory=list)
    refused: int = 0


def main(*, view: bool) -> None:
    CACHE.mkdir(exist_ok=True)
    warm()  # compiled code is on the disk before, as an installation leaves it
    with tempfile.TemporaryDirectory(prefix="push-", dir=CACHE) as folder:
        layout = Layout(Path(folder))
        bodies = iter(list(enumerate(_bodies(int((WARM_UP + SECONDS) * MOST)))))
        with _ingest(layout, view=view) as address:
            token = ensure_token(layout)
            gc.freeze()
            load = Load(address=address, token=token, bodies=islice(bodies, CONNECTIONS), until=float("inf"))
            uvloop.run(_push(load))  # whatever the first pushes wait for
            began = time.monotonic()
            load.bodies, load.until = bodies, began + WARM_UP + SECONDS
            with Measured() as measured:
                uvloop.run(_push(load))
            status = _ask(address, token, "GET", "/v1/sources")
            if status["problem"]:
                raise SystemExit(f"what was pushed cannot be applied: {status['problem']}")
            behind = status["sources"][0]["lag"]
            _ask(address, token, "POST", "/v1/flush")
        _check(layout, load)
        if next(load.bodies, None) is None:
            raise SystemExit(f"more than {MOST} events a second were taken: there were no more bodies")
        measured.done(**_figures(load, began + WARM_UP), events=len(load.acknowledged) * BATCH, behind=behind)


def _bodies(events: int) -> Iterator[bytes]:
    """Batches of events of the last hour, in JSON."""
    rng = np.random.default_rng(7)
    at = time.time_ns() // 1_000 - 3_600_000_000 + np.arange(events, dtype=np.int64) * 3_600_000_000 // (2 * events)
    frame = pl.DataFrame(
        {
            "id": pl.Series(np.arange(events)).cast(pl.String).str.zfill(12),
            "user": (USERS * rng.random(events) ** 3).astype(np.int64),
            "merchant": rng.integers(0, 5_000, events),
            "amount": np.round(rng.lognormal(3.0, 1.0, events), 2).clip(0.01, 9_999.0),
            "kind": np.array(["card", "cash", "transfer", "wallet"])[rng.integers(0, 4, events)],
            "status": np.array(["OK-1", "OK-2", "NO-1"])[rng.integers(0, 3, events)],
            "online": rng.random(events) < 0.4,
            "at": at,
        }
    )
    lines = frame.write_ndjson().encode().splitlines()
    for start in range(0, len(lines), BATCH):
        yield b"[" + b",".join(lines[start : start + BATCH]) + b"]"


@contextmanager
def _ingest(layout: Layout, *, view: bool) -> Iterator[tuple[str, int]]:
    """The ingest process, started as the supervisor starts it; the address where it takes pushes."""
    layout.create()
    ensure_token(layout)
    plan = {"sources": [SOURCE.to_data()], "views": [VIEW.to_data()] if view else []}
    PlanFiles(layout).publish("ingest", {"epoch": 1, "digest": "bench", **plan})
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = ("127.0.0.1", int(free.getsockname()[1]))
    command = [sys.executable, "-m", "flyball.platform", "ingest", "--state", str(layout.root)]
    command += ["--host", address[0], "--port", str(address[1]), "--supervised"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        _wait(process, address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=120)


def _wait(process: subprocess.Popen[bytes], address: tuple[str, int]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the ingest process ended with status {process.returncode}")
        try:
            _ask(address, "", "GET", "/readyz")
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the ingest process did not answer within a minute")


def _ask(address: tuple[str, int], token: str, method: str, path: str) -> Any:
    request = Request(f"http://{address[0]}:{address[1]}{path}", method=method)
    request.add_header("authorization", f"Bearer {token}")
    with urlopen(request, timeout=300) as answer:
        return json.loads(answer.read())


async def _push(load: Load) -> None:
    await asyncio.gather(*(_connection(load) for _ in range(CONNECTIONS)))


async def _connection(load: Load) -> None:
    """Push one batch after another until the time is over; the last one is waited for."""
    reader, writer = await asyncio.open_connection(*load.address)
    while time.monotonic() < load.until and (following := next(load.bodies, None)) is not None:
        number, body = following
        head = (
            f"POST /v1/events/{SOURCE.name} HTTP/1.1\r\nhost: {load.address[0]}\r\n"
            f"authorization: Bearer {load.token}\r\nidempotency-key: push-{number}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        began = time.monotonic()
        while not await _sent(reader, writer, head + body):
            load.refused += 1
            await asyncio.sleep(PAUSE)
        load.acknowledged.append(number)
        load.sent_at.append(began)
        load.done_at.append(time.monotonic())
    writer.close()


async def _sent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
    """Whether a push was acknowledged; False: it was refused for now (429), and may come again."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    answer = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    status = head.split(b" ", 2)[1]
    if status == b"200":
        if (accepted := json.loads(answer)["accepted"]) != BATCH:
            raise SystemExit(f"of {BATCH} events of a push {accepted} were accepted: {answer[:500]!r}")
        return True
    if status == b"429":
        return False
    raise SystemExit(f"a push was answered with {status.decode()}: {answer[:500]!r}")


def _check(layout: Layout, load: Load) -> None:
    """The table must hold exactly what was acknowledged."""
    stored = DeltaLake(layout.lake).scan(SOURCE.name).select(pl.col("id").cast(pl.Int64)).collect()["id"].sort()
    starts = np.sort(np.array(load.acknowledged)) * BATCH
    acknowledged = pl.Series("id", (starts[:, None] + np.arange(BATCH)).ravel())
    if not stored.equals(acknowledged):
        raise SystemExit(
            f"{len(acknowledged)} events were acknowledged, and {len(stored)} are in the table, "
            f"{stored.n_unique()} of them different"
        )


def _figures(load: Load, since: float) -> dict[str, float]:
    sent, done = np.array(load.sent_at), np.array(load.done_at)
    inside = (done > since) & (done <= load.until)
    took = (done - sent)[inside] * 1e3
    return {
        "events_per_second": float(inside.sum()) * BATCH / SECONDS,
        "p50_ms": float(np.percentile(took, 50)),
        "p99_ms": float(np.percentile(took, 99)),
        "refused": load.refused,
    }


if __name__ == "__main__":
    main(view=sys.argv[1:] == ["view"])
