"""The ingest process over HTTP: routes of `http/routes.py` → the core.

Nothing here blocks the event loop: pushes wait for the writer thread's next transaction, everything else that touches
the disk runs on a small pool, and replies come back through the loop. The server reads no file that a client names.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from flyball.define.spec import SourceSpec
from flyball.http import quarantine
from flyball.http.access import LOOPBACK_HOSTS, authorize
from flyball.http.ingest_metrics import metrics_text
from flyball.http.outbox import Outbox, Room
from flyball.http.server import Request, Response, error_response, json_response
from flyball.ingest.body import ArrowBody, JsonBody, json_rows, json_value
from flyball.ingest.committing import Horizon
from flyball.ingest.group import Answer, GroupCommit, GroupLimits
from flyball.ingest.load import Progress
from flyball.ingest.receipts import Push, Receipt, fingerprint
from flyball.kernel.errors import ErrorKind, FlyballError, InternalError, InvalidError, from_data
from flyball.kernel.files import translate_os_error

logger = logging.getLogger(__name__)

ARROW = "application/vnd.apache.arrow.stream"
INLINE_BYTES = 128 * 1024  # bodies up to here are decoded on the event loop; larger ones on the pool
PUSH_BYTES = 64 * 1024 * 1024  # of one push; a file may be larger
POOL_TASKS = 64  # requests that may wait for the pool
POOL_BYTES = 2 << 30  # of their bodies together; one alone may be larger
RATE_SECONDS = 10.0

Respond = Callable[[Response], None]
Work = Callable[[], Response]


class IngestCore(quarantine.QuarantineCore, Protocol):
    """What this shell calls of `flyball.ingest.service.Ingest`."""

    def append_many(self, pushes: Sequence[Push]) -> list[Answer]: ...

    def append_file(
        self, source: str, path: Path, *, idempotency_key: str = "", format: str = "", progress: Progress | None = None
    ) -> Receipt: ...

    def feedback_push(self, items: Any, *, idempotency_key: str = "", fingerprint: str = "") -> Push: ...

    def pull(self, source: str) -> Receipt: ...

    def check_backlog(self) -> None: ...

    def flush(self, sources: Sequence[str] | None = None) -> dict[str, Horizon]: ...

    def sources(self) -> list[SourceSpec]: ...

    def count_erased(self, source: str, column: str, digests: Sequence[str]) -> dict[str, Any]: ...

    def erase(self, source: str, column: str, digests: Sequence[str], *, entity: bytes | None = None) -> None: ...

    def status(self) -> dict[str, Any]: ...


class IngestApp:
    """An application for `flyball.http.server`.

    Args:
        core: the ingest core; its `append_many` runs on a thread of this object, the rest on its pool.
        tokens: SHA-256 of a token → its permissions; replaced by `use_tokens` when a plan brings others.
        spool: a folder of the state directory where uploaded files lie while they are loaded.
        on_stored: called after each commit; wakes what applies events.
        problem: a code of what is wrong in the background, or empty; shown by `readyz`.
    """

    def __init__(
        self,
        core: IngestCore,
        tokens: Mapping[str, Sequence[str]],
        *,
        spool: Path,
        hosts: Iterable[str] = LOOPBACK_HOSTS,
        limits: GroupLimits | None = None,
        on_stored: Callable[[], None] = lambda: None,
        problem: Callable[[], str] = lambda: "",
    ) -> None:
        self._core = core
        self._tokens = dict(tokens)
        self._hosts = frozenset(hosts)
        self._spool = spool
        spool.mkdir(parents=True, exist_ok=True)
        for left in spool.iterdir():  # of a process that was killed during an upload, which was not acknowledged
            left.unlink()
        self._on_stored = on_stored
        self._problem = problem
        self._rate = _Rate()
        self._outbox: Outbox | None = None
        self._group = GroupCommit(self._append, limits=limits, behind=core.check_backlog)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="ingest-pool")
        self._files = ThreadPoolExecutor(1, thread_name_prefix="ingest-files")
        self._room = Room(POOL_TASKS, POOL_BYTES)
        self._handlers: dict[str, Callable[[Request, dict[str, str], Respond], None]] = {
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
            "push_events": self._push_events,
            "push_file": self._push_file,
            "push_feedback": self._push_feedback,
            "pull_source": self._pull_source,
            "list_sources": self._list_sources,
            "list_quarantine": self._list_quarantine,
            "show_quarantined": self._show_quarantined,
            "retry_quarantine": self._retry_quarantine,
            "drop_quarantine": self._drop_quarantine,
            "flush": self._flush,
            "erase_rows": self._erase,
        }
        self._group.start()

    def __call__(self, request: Request, respond: Respond) -> None:
        """Answer a request, now or later; on the event loop's thread in both cases."""
        try:
            matched = authorize("ingest", self._tokens, request, hosts=self._hosts)
            self._handlers[matched.route.name](request, matched.params, respond)
        except FlyballError as error:
            respond(_refused(error))

    def use_tokens(self, tokens: Mapping[str, Sequence[str]]) -> None:
        self._tokens = dict(tokens)

    def close(self) -> None:
        """Write what waits, finish what runs, end the threads."""
        self._group.stop()
        self._pool.shutdown(wait=True)
        self._files.shutdown(wait=True)

    # --- pushes

    def _push_events(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        """Hand the body to the writer as it is; it is read there, so what waits is as large as what was sent."""
        if len(request.body) > PUSH_BYTES:
            raise InvalidError(
                f"a push has {len(request.body)} bytes, and may have {PUSH_BYTES}; nothing was stored",
                code="body_too_large",
                hint="send it in several pushes, or as a file: flyball ingest",
            )
        arrow = request.headers.get("content-type", "").partition(";")[0].strip().lower() == ARROW
        push = Push(
            source=params["source"],
            rows=ArrowBody(request.body) if arrow else JsonBody(request.body),
            idempotency_key=request.headers.get("idempotency-key", ""),
        )
        deliver = self._deliver(respond)
        self._group.submit(push, len(request.body), lambda answer: deliver(_answered(answer)))

    def _push_feedback(self, request: Request, _: dict[str, str], respond: Respond) -> None:
        deliver, size = self._deliver(respond), len(request.body)

        def submit() -> None:
            items = json_rows(request.body, wrappers=("items",))
            key = request.headers.get("idempotency-key", "")
            print_ = fingerprint(JsonBody(request.body)) if key else ""
            push = self._core.feedback_push(items, idempotency_key=key, fingerprint=print_)
            self._group.submit(push, size, lambda answer: deliver(_answered(answer)))

        if size <= INLINE_BYTES:
            submit()  # its errors are answered by the caller
            return

        def submit_later() -> None:
            try:
                submit()
            except FlyballError as error:
                deliver(_refused(error))
            except Exception:
                deliver(_refused(_defect()))
                raise

        self._start(self._pool, submit_later, size)

    def _append(self, pushes: Sequence[Push]) -> list[Answer]:
        answers = self._core.append_many(pushes)
        for answer in answers:
            if isinstance(answer, Receipt) and not answer.replayed:
                self._rate.add(answer.source, answer.accepted)
        self._on_stored()
        return answers

    def _push_file(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        kind = request.query.get("format", "")
        if kind not in ("csv", "parquet", "jsonl"):
            raise InvalidError(
                f"format is {kind!r}; send the file as the body, and ?format=csv, parquet or jsonl",
                code="unknown_format",
            )

        def load() -> Response:
            with tempfile.NamedTemporaryFile(dir=self._spool, suffix=f".{kind}") as file:
                try:
                    file.write(request.body)
                    file.flush()
                except OSError as error:
                    raise translate_os_error(error, Path(file.name)) from error
                try:
                    receipt = self._core.append_file(
                        params["source"],
                        Path(file.name),
                        idempotency_key=request.headers.get("idempotency-key", ""),
                        format=kind,
                        progress=lambda rows, fraction: self._on_stored(),
                    )
                except FlyballError as error:
                    raise _named(error, Path(file.name).name, request.query.get("name", "")) from None
            if not receipt.replayed:
                self._rate.add(receipt.source, receipt.accepted)
            return json_response(receipt.to_data())

        self._later(self._files, load, respond, len(request.body))

    def _pull_source(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        def pull() -> Response:
            receipt = self._core.pull(params["source"])
            self._rate.add(receipt.source, receipt.accepted)
            self._on_stored()
            return json_response(receipt.to_data())

        self._later(self._files, pull, respond)

    # --- everything else

    def _healthz(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        respond(json_response({"status": "ok"}))

    def _readyz(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        """Ready means: a push would be stored. What is wrong in the background is said, and does not stop pushes."""
        ready = self._group.alive
        respond(json_response({"ready": ready, "problem": self._problem()}, 200 if ready else 503))

    def _metrics(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        def write() -> Response:
            text = metrics_text(self._core.status(), self._group.counters, self._group.limits)
            return Response(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

        self._later(self._pool, write, respond)

    def _list_sources(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        def read() -> Response:
            specs = {spec.name: spec for spec in self._core.sources()}
            status = self._core.status()
            rates = self._rate.get()
            for source in status["sources"]:
                source["rate"] = rates.get(source["name"], 0.0)
                source["declaration"] = specs[source["name"]].to_data()
                source["backlog"] = status["backlog"]  # of all sources together: a push to any of them is refused
            queue = asdict(self._group.counters) | {"limits": asdict(self._group.limits)}
            return json_response(status | {"queue": queue, "problem": self._problem()})

        self._later(self._pool, read, respond)

    def _list_quarantine(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        work = partial(quarantine.list_quarantine, self._core, request, params["source"])
        self._later(self._pool, work, respond)

    def _show_quarantined(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        self._later(self._pool, partial(quarantine.show_quarantined, self._core, params["id"]), respond)

    def _retry_quarantine(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        def retry() -> Response:
            try:
                return quarantine.retry_quarantine(self._core, request, params["source"])
            finally:
                self._on_stored()

        self._later(self._files, retry, respond)

    def _drop_quarantine(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        work = partial(quarantine.drop_quarantine, self._core, request, params["source"])
        self._later(self._pool, work, respond)

    def _flush(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        body = json_value(request.body) if request.body else {}
        names = body.get("sources") if isinstance(body, dict) else body
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise InvalidError(
                'sources must be a list of names; send {"sources": ["Trips"]} or nothing', code="bad_body"
            )

        def flush() -> Response:
            return json_response({"horizons": {k: asdict(v) for k, v in self._core.flush(names).items()}})

        self._later(self._pool, flush, respond)

    def _erase(self, request: Request, params: dict[str, str], respond: Respond) -> None:
        """Digests in, counts out: the value itself never comes here."""
        body = json_value(request.body)
        if not isinstance(body, dict) or not isinstance(body.get("digests"), list) or not body.get("column"):
            raise InvalidError('send {"column": name, "digests": [digest]}', code="bad_body")
        source, column = params["source"], str(body["column"])
        digests = [str(digest) for digest in body["digests"]]

        def erase() -> Response:
            if body.get("dry_run"):
                return json_response(self._core.count_erased(source, column, digests))
            entity = bytes.fromhex(body["entity"]) if body.get("entity") else None
            self._core.erase(source, column, digests, entity=entity)
            return json_response({"erased": True})

        self._later(self._pool, erase, respond)

    # --- threads

    def _deliver(self, respond: Respond) -> Respond:
        """`respond` for other threads: it runs on the loop that is running now."""
        loop = asyncio.get_running_loop()
        if self._outbox is None or self._outbox.loop is not loop:
            self._outbox = Outbox(loop)
        return partial(self._outbox.put, respond)

    def _later(self, pool: ThreadPoolExecutor, work: Work, respond: Respond, size: int = 0) -> None:
        """Run on a thread, answer through the event loop."""
        deliver = self._deliver(respond)

        def run() -> None:
            try:
                deliver(work())
            except FlyballError as error:
                deliver(_refused(error))
            except Exception:
                deliver(_refused(_defect()))
                raise

        self._start(pool, run, size)

    def _start(self, pool: ThreadPoolExecutor, work: Callable[[], None], size: int = 0) -> None:
        self._room.enter(size)
        pool.submit(work).add_done_callback(lambda task: self._ended(task, size))

    def _ended(self, task: Future[None], size: int) -> None:
        self._room.leave(size)
        error = task.exception()
        if error is not None:
            logger.error("a request was not answered as it should", exc_info=error)


class _Rate:
    """Accepted events per second over the last seconds, by source."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, str, int]] = deque()

    def add(self, source: str, count: int) -> None:
        with self._lock:
            self._recent.append((time.monotonic(), source, count))
            self._forget()

    def get(self) -> dict[str, float]:
        with self._lock:
            self._forget()
            sums: dict[str, int] = {}
            for _, source, count in self._recent:
                sums[source] = sums.get(source, 0) + count
        return {source: count / RATE_SECONDS for source, count in sums.items()}

    def _forget(self) -> None:
        oldest = time.monotonic() - RATE_SECONDS
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()


def _answered(answer: Answer) -> Response:
    return _refused(answer) if isinstance(answer, FlyballError) else json_response(answer)


def _refused(error: FlyballError) -> Response:
    response = error_response(error)
    if error.kind in (ErrorKind.EXHAUSTED, ErrorKind.UNAVAILABLE):
        wait = error.details.get("retry_after", 1)
        response.headers = (*response.headers, ("retry-after", str(wait)))
    return response


def _defect() -> InternalError:
    return InternalError("the request failed because of a defect of ours; the log of ingest has the details")


def _named(error: FlyballError, stored: str, given: str) -> FlyballError:
    """An error about an uploaded file, with the name that its sender knows it by."""
    name = "".join(c for c in given if c.isprintable())[:200] or "the file"
    data = error.to_data()
    return from_data(data | {key: data[key].replace(stored, name) for key in ("message", "hint") if key in data})
