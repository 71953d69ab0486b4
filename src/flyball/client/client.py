"""The client of a platform: a method for every verb of the command line, over HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from flyball.client.rows import Named, name_of, records
from flyball.client.transport import Transport
from flyball.kernel.errors import InvalidError, NotFoundError, UnavailableError
from flyball.kernel.ids import digest, new_id
from flyball.kernel.settings import ClientSettings, client_settings
from flyball.kernel.times import parse_time

Data = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with what is done and the total, both in bytes."""

CHUNK = 1 << 20
ERASING = 600.0  # seconds; tables are written anew
FILE_FORMATS = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class Client:
    """A platform, as seen over HTTP. Errors are `FlyballError`s; answers are plain data.

    >>> client = Client(ClientSettings(url="http://127.0.0.1:7700", token="…"))
    """

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.settings = settings or client_settings()
        self._transport = Transport(self.settings, timeout=timeout, transport=transport)
        self._endpoints: Data | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # addresses

    def endpoints(self) -> Data:
        """The addresses of `control`, `ingest` and `inference`; with control gone, by the convention of ports."""
        if self._endpoints is None:
            try:
                self._endpoints = self._control("GET", "/v1/endpoints")
            except UnavailableError:
                return by_convention(self.settings.url)
        return self._endpoints

    def known_endpoints(self, endpoints: Mapping[str, Any]) -> None:
        """Take these addresses, for a caller that knows them without asking."""
        self._endpoints = dict(endpoints)

    def _control(self, method: str, path: str, **more: Any) -> Any:
        return self._transport.request(method, self.settings.url + path, **more)

    def _ingest(self, method: str, path: str, **more: Any) -> Any:
        return self._transport.request(method, self.endpoints()["ingest"] + path, **more)

    def _inference(self, method: str, path: str, **more: Any) -> Any:
        return self._transport.request(method, self.endpoints()["inference"] + path, **more)

    # the platform

    def status(self) -> Data:
        return dict(self._control("GET", "/v1/status", idempotent=True))

    def facts(self, *, subject: str | None = None, kind: str | None = None, limit: int = 100) -> list[Data]:
        """What changed the platform, newest last."""
        params = {"subject": subject, "kind": kind, "limit": limit}
        return list(self._control("GET", "/v1/facts", params=params, idempotent=True)["facts"])

    def advance_clock(self, at: int | str) -> int:
        """Move a replay clock forward; gives the new domain time in microseconds."""
        return int(self._control("POST", "/v1/clock", json={"at": parse_time(at)})["at"])

    # projects

    def project(self, name: str) -> Data:
        """What is applied now, with the `digest` that a plan is based on."""
        return dict(self._control("GET", f"/v1/projects/{seg(name)}", idempotent=True))

    def plan(self, spec: Mapping[str, Any]) -> Data:
        """What applying a compiled project (`ProjectSpec.to_data()`) would do."""
        path = f"/v1/projects/{seg(str(spec.get('name', '')))}/plan"
        return dict(self._control("POST", path, json={"spec": spec}, idempotent=True))

    def apply(self, spec: Mapping[str, Any], *, base: str, timeout: float = 120.0) -> Data:
        """Do what a plan said; `base` is the plan's, and a stale one is refused."""
        path = f"/v1/projects/{seg(str(spec.get('name', '')))}/apply"
        return dict(self._control("POST", path, json={"spec": spec, "base": base}, timeout=timeout))

    def put_artifact(self, data: bytes, *, timeout: float = 120.0) -> str:
        """Store bytes under their SHA-256. Idempotent."""
        name = digest(data)
        headers = {"Content-Type": "application/octet-stream"}
        path = f"/v1/artifacts/{name}"
        self._control("PUT", path, content=data, headers=headers, idempotent=True, timeout=timeout)
        return name

    # data

    def push(self, source: str | Named, rows: Any, *, idempotency_key: str = "") -> Data:
        """Push live events: rows as dicts, or a Polars, pandas or Arrow table. Durable on return, sent again safely."""
        headers = {"Idempotency-Key": idempotency_key or new_id("push")}
        path = f"/v1/events/{seg(name_of(source))}"
        return dict(self._ingest("POST", path, json={"rows": records(rows)}, headers=headers, idempotent=True))

    def upload(
        self,
        source: str | Named,
        path: str | Path,
        *,
        idempotency_key: str = "",
        progress: Progress | None = None,
        timeout: float = 600.0,
    ) -> Data:
        """Load a file of history (csv, parquet, jsonl), sent in chunks of 1 MB.

        Without a key the file's content and the source's contract are the key: sent again, it is stored once."""
        file = Path(path)
        form = FILE_FORMATS.get(file.suffix.lower())
        if form is None:
            raise InvalidError(
                f"{file.name} is none of the files that can be ingested: {', '.join(FILE_FORMATS)}", code="bad_file"
            )
        if not file.is_file():
            raise NotFoundError(f"no file {file}", code="file_not_found")
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.stat().st_size),
        }
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        target = f"/v1/files/{seg(name_of(source))}"
        params = {"format": form, "name": file.name}
        body = chunks(file, progress)
        return dict(self._ingest("POST", target, content=body, headers=headers, params=params, timeout=timeout))

    def pull(self, source: str | Named, *, timeout: float = 600.0) -> Data:
        """Pull a source from its origin now; gives the receipt of what was new."""
        return dict(self._ingest("POST", f"/v1/sources/{seg(name_of(source))}/pull", idempotent=True, timeout=timeout))

    def feedback(self, items: Sequence[Mapping[str, Any]], *, idempotency_key: str = "") -> Data:
        """Late labels: `{"prediction_id": …, "label": …}` each."""
        headers = {"Idempotency-Key": idempotency_key or new_id("feedback")}
        return dict(self._ingest("POST", "/v1/feedback", json={"items": items}, headers=headers, idempotent=True))

    def sources(self) -> list[Data]:
        return list(self._ingest("GET", "/v1/sources", idempotent=True)["sources"])

    def quarantine(self, source: str | Named, *, limit: int = 100) -> list[Data]:
        """Rows that broke their contract, each with its reasons."""
        return list(self.quarantine_of(source, limit=limit)["rows"])

    def quarantine_of(self, source: str | Named, *, rule: str = "", state: str = "", limit: int = 100) -> Data:
        """The newest quarantined `rows`, how many are `open`, and the newest pushes `refused` whole.

        `state` is `open`, `retried` or `dropped`; empty: any.
        """
        path = f"/v1/sources/{seg(name_of(source))}/quarantine"
        params = {"limit": limit, "rule": rule or None, "state": state or None}
        return dict(self._ingest("GET", path, params=params, idempotent=True))

    def quarantined(self, row: str) -> Data:
        """One quarantined row, by its id (`Payments:12.3`)."""
        return dict(self._ingest("GET", f"/v1/quarantine/{seg(row)}", idempotent=True))

    def retry(self, source: str | Named, *, rule: str = "", ids: Sequence[str] = (), timeout: float = 600.0) -> Data:
        """Take quarantined rows that the contract of now accepts, each once; repeating it is safe."""
        path = f"/v1/sources/{seg(name_of(source))}/quarantine/retry"
        body = {"rule": rule, "ids": list(ids)}
        return dict(self._ingest("POST", path, json=body, idempotent=not ids, timeout=timeout))

    def drop(self, source: str | Named, *, rule: str = "", ids: Sequence[str] = (), everything: bool = False) -> Data:
        """Give quarantined rows up: those of a rule, these, or all that are open."""
        path = f"/v1/sources/{seg(name_of(source))}/quarantine/drop"
        body = {"rule": rule, "ids": list(ids), "all": everything}
        return dict(self._ingest("POST", path, json=body))

    def flush(self, sources: Sequence[str] | None = None, *, timeout: float = 300.0) -> Data:
        """Commit what is logged to the lake; gives each source's horizon."""
        body = {"sources": list(sources) if sources is not None else None}
        return dict(self._ingest("POST", "/v1/flush", json=body, idempotent=True, timeout=timeout)["horizons"])

    # training

    def train(self, model: str | Named, *, reason: str = "", params: Mapping[str, Any] | None = None) -> Data:
        """Queue a run; gives it with its `id`."""
        body = {"reason": reason, "params": dict(params or {})}
        return dict(self._control("POST", f"/v1/models/{seg(name_of(model))}/train", json=body))

    def runs(self, *, model: str | None = None, limit: int = 50) -> list[Data]:
        return list(self._control("GET", "/v1/runs", params={"model": model, "limit": limit}, idempotent=True)["runs"])

    def run(self, run: str) -> Data:
        return dict(self._control("GET", f"/v1/runs/{seg(run)}", idempotent=True))

    def run_logs(self, run: str, *, after: int = 0) -> list[Data]:
        """The run's log lines after the first `after` of them."""
        path = f"/v1/runs/{seg(run)}/logs"
        return list(self._control("GET", path, params={"after": after}, idempotent=True)["lines"])

    def versions(self, model: str | Named) -> list[Data]:
        path = f"/v1/models/{seg(name_of(model))}/versions"
        return list(self._control("GET", path, idempotent=True)["versions"])

    # services

    def version_digests(self, model: str) -> dict[str, str]:
        """The digests of a model's versions, by what predictions call them (`model/number`)."""
        return {str(found["version"]): str(found["digest"]) for found in self.versions(model)}

    def service(self, service: str | Named) -> Data:
        return dict(self._control("GET", f"/v1/services/{seg(name_of(service))}", idempotent=True))

    def release(self, service: str | Named, *, version: int | str | None = None, strategy: str | None = None) -> Data:
        """Roll a version out; None is the newest. `strategy` is `full` or `canary`; None is the service's own."""
        body = {"version": version, "strategy": strategy}
        return dict(self._control("POST", f"/v1/services/{seg(name_of(service))}/release", json=body))

    def rollback(self, service: str | Named) -> Data:
        return dict(self._control("POST", f"/v1/services/{seg(name_of(service))}/rollback", json={}))

    def approve(self, service: str | Named, *, version: int | str | None = None) -> Data:
        body = {"version": version}
        return dict(self._control("POST", f"/v1/services/{seg(name_of(service))}/approve", json=body))

    def quality(self, service: str | Named) -> Data:
        return dict(self._control("GET", f"/v1/services/{seg(name_of(service))}/quality", idempotent=True))

    def drift(self, service: str | Named) -> Data:
        return dict(self._control("GET", f"/v1/services/{seg(name_of(service))}/drift", idempotent=True))

    def skew(self, service: str | Named) -> Data:
        """What the audit found about the values that a service served."""
        return dict(self._control("GET", f"/v1/services/{seg(name_of(service))}/skew", idempotent=True))

    # views

    def views(self) -> list[Data]:
        """Every view with its features, and the models and versions that use it."""
        return list(self._control("GET", "/v1/views", idempotent=True)["views"])

    def view_sql(self, view: str | Named, *, kind: str = "delta", table: str = "") -> str:
        """The DuckDB query of a view over `delta`, `parquet` or a `table` of yours."""
        params = {"from": kind, "table": table}
        return str(self._control("GET", f"/v1/views/{seg(name_of(view))}/sql", params=params, idempotent=True)["sql"])

    def explain(
        self,
        view: str | Named,
        feature: str,
        *,
        entity: Mapping[str, Any] | None = None,
        at: int | str | None = None,
        prediction: str = "",
    ) -> Data:
        """What is behind a feature's value: of an entity at a time (None: now), or as a prediction was served it."""
        path = f"/v1/views/{seg(name_of(view))}/features/{seg(feature)}/explain"
        params: Data = {"entity": [f"{name}={value}" for name, value in (entity or {}).items()]}
        params |= {} if at is None else {"at": str(parse_time(at))}
        params |= {"prediction": prediction} if prediction else {}
        return dict(self._control("GET", path, params=params, idempotent=True))

    def prediction(self, prediction: str) -> Data:
        """The receipt of a prediction."""
        return dict(self._control("GET", f"/v1/predictions/{seg(prediction)}", idempotent=True))

    def batch(self, name: str) -> Data:
        return dict(self._control("GET", f"/v1/batches/{seg(name)}", idempotent=True))

    # erasure

    def erase(
        self,
        source: str | Named,
        column: str,
        value: str,
        *,
        also: Sequence[tuple[str, str]] = (),
        dry_run: bool = False,
    ) -> Data:
        """Ask for everything of one value of a column to be erased, and of the columns `also` (source, column); gives
        the erasure with its id. `dry_run` gives the counts, and changes nothing."""
        more = [list(pair) for pair in also]
        body = {"source": name_of(source), "column": column, "value": value, "also": more, "dry_run": dry_run}
        return dict(self._control("POST", "/v1/erasures", json=body, timeout=ERASING))

    def erasure(self, erasure: str) -> Data:
        return dict(self._control("GET", f"/v1/erasures/{seg(erasure)}", idempotent=True, timeout=ERASING))

    def erasures(self, *, limit: int = 100) -> list[Data]:
        """The newest first."""
        return list(self._control("GET", "/v1/erasures", params={"limit": limit}, idempotent=True)["erasures"])

    def erase_rows(
        self, source: str, column: str, digests: Sequence[str], *, entity: bytes | None = None, dry_run: bool = False
    ) -> Data:
        """Ingest's part of an erasure, which control asks for. Idempotent."""
        body = {"column": column, "digests": list(digests), "dry_run": dry_run}
        if entity is not None:
            body["entity"] = entity.hex()
        path = f"/v1/sources/{seg(source)}/erase"
        return dict(self._ingest("POST", path, json=body, idempotent=True, timeout=ERASING))

    # inference

    def inference_metrics(self) -> str:
        """The metrics of the worker that answers, as Prometheus text."""
        return str(self._inference("GET", "/metrics", headers={"Connection": "close"}, idempotent=True))

    def predict(
        self, service: str | Named, rows: Any = None, *, at: int | str | None = None, **fields: Any
    ) -> list[Data]:
        """Predict for rows, or for one row given as fields; one reply a row, each with its `prediction_id`."""
        asked = records(rows) if rows is not None else [fields]
        body: Data = {"rows": asked}
        if at is not None:
            body["at"] = parse_time(at)
        reply = self._inference("POST", f"/v1/services/{seg(name_of(service))}:predict", json=body)
        return list(reply["predictions"])

    def infer(self, model: str, request: Mapping[str, Any], *, version: str | None = None) -> Data:
        """An Open Inference Protocol request, as it is."""
        at = f"/versions/{seg(version)}" if version else ""
        return dict(self._inference("POST", f"/v2/models/{seg(model)}{at}/infer", json=request))


def seg(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def by_convention(url: str) -> Data:
    """The addresses beside a control address: ingest one port up, inference two."""
    parts = urlsplit(url)
    if parts.port is None:
        raise UnavailableError(f"nothing answers at {url}", code="not_running", hint="flyball up")

    def beside(offset: int) -> str:
        return f"{parts.scheme}://{parts.hostname}:{(parts.port or 0) + offset}"

    return {"control": url, "ingest": beside(1), "inference": beside(2)}


def chunks(path: Path, progress: Progress | None) -> Iterator[bytes]:
    total, done = os.path.getsize(path), 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            yield block
            done += len(block)
            if progress is not None:
                progress(done, total)
