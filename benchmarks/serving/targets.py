"""What is measured side by side: how each server is started, asked and understood."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import CACHE, environment
from benchmarks.serving import states
from benchmarks.serving.client import Client, Read, check, read_oip, read_plain, read_predict
from benchmarks.serving.data import (
    NARROW_FEATURES,
    Floats,
    binary_head,
    bodies_path,
    expected,
    lookup_fields,
    lookup_tensors,
    many_rows,
    oip_binary,
    oip_body,
    read_bodies,
    single_rows,
    write_bodies,
)
from benchmarks.serving.files import DISTINCT, NARROW, ROOT, SERVICE
from benchmarks.serving.processes import CORE, Server, free_port, started
from benchmarks.serving.states import Entry, State

TOLERANCE = 1e-5
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Requests of one shape: where they go, the file of their bodies, and what each must be answered with."""

    path: str
    bodies: Path
    headers: Mapping[str, str]
    expected: Sequence[Floats]
    read: Read
    rows: int = 1  # of each request

    def check(self, port: int) -> None:
        """Fail where one of the answers is wrong."""
        bodies = read_bodies(self.bodies)
        check(port, self.path, self.headers, bodies, self.expected, self.read, tolerance=TOLERANCE)

    def first(self, port: int) -> bool:
        """Whether the first request is answered as it should be."""
        client = Client(port, self.headers)
        try:
            status, headers, body = client.post(self.path, read_bodies(self.bodies)[0])
        finally:
            client.close()
        return status == 200 and bool(np.allclose(self.read(headers, body), self.expected[0], rtol=0, atol=TOLERANCE))


@dataclass(kw_only=True)
class Running:
    """A server that answered, and what it is asked; `state` where it is ours."""

    server: Server
    load: Load
    state: State | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}{self.load.path}"


# peers: name → path, kind of bodies, and how replies are read. A kind with `_many` has 1,000 rows a request.
PEERS: dict[str, tuple[str, str, Read]] = {
    "nginx": ("/", "oip", read_oip),
    "fastapi": ("/predict", "oip", read_plain),
    "fastapi_many": ("/predict", "oip_many", read_plain),
    "pytriton": (f"/v2/models/{SERVICE}/infer", "oip", read_oip),
    "pytriton_many": (f"/v2/models/{SERVICE}/infer", "binary_many", read_oip),
    "mlserver": (f"/v2/models/{SERVICE}/infer", "oip", read_oip),
    "litserve": ("/predict", "oip", read_plain),
    "mlflow": ("/invocations", "plain", read_plain),
    "bentoml": ("/predict", "plain", read_plain),
    "ray": ("/predict", "oip", read_plain),
}


@contextmanager
def running(name: str, *, workers: int = 1, core: str | None = CORE) -> Iterator[Running]:
    """Start a peer, or ours by the name of a state; it has answered once, rightly."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=CACHE) as folder:
        peer = PEERS.get(name)
        found = _peer(name, *peer, Path(folder)) if peer else _ours(name, Path(folder), workers=workers, core=core)
        with found as one:
            yield one


@contextmanager
def _peer(name: str, path: str, kind: str, read: Read, folder: Path) -> Iterator[Running]:
    script, port = name.removesuffix("_many"), free_port()
    python = sys.executable if script == "nginx" else str(environment(script))
    load = Load(
        path=path,
        bodies=bodies_path(kind),
        headers=_binary_headers(JSON) if kind == "binary_many" else JSON,
        expected=_expected(kind),
        read=read,
        rows=len(_expected(kind)[0]),
    )
    command = [python, "-m", f"benchmarks.serving.peers.{script}", str(port), str(folder), str(load.rows)]
    answers: Callable[[], bool] = lambda: load.first(port)  # noqa: E731
    if script == "nginx":
        answers = lambda: Client(port, JSON).post(path, b"{}")[0] == 200  # noqa: E731
    with started(command, port, answers=answers, environment=_plain(python), folder=folder) as server:
        if script != "nginx":
            load.check(port)
        yield Running(server=server, load=load)


@contextmanager
def _ours(name: str, folder: Path, *, workers: int, core: str | None) -> Iterator[Running]:
    state = states.fresh(folder / "state")
    load = OURS[name](state)
    with worker(state, load.first, workers=workers, core=core) as server:
        load.check(server.port)
        yield Running(server=server, load=load, state=state)


@contextmanager
def worker(
    state: State, answers: Callable[[int], bool], *, workers: int = 1, core: str | None = CORE
) -> Iterator[Server]:
    """Our server on a state directory whose plan was published, from its start to its first answer."""
    port = free_port()
    command = [sys.executable, "-m", "flyball.worker", "--state", str(state.root.resolve()), "--port", str(port)]
    command += ["--workers", str(workers), "--log-level", "warning"]
    told = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    with started(
        command, port, answers=lambda: answers(port), environment=told, folder=state.root.parent, core=core
    ) as server:
        yield server


def tensor_load(state: State, entry: Entry, name: str = SERVICE, *, many: str = "") -> Load:
    """Requests to a model of its own tensors. Bodies are in the type that its signature names; `many`: `json` or
    `binary` of 1,000 rows each."""
    manifest = states.manifest_of(entry)
    (tensor,) = manifest["signature"]["inputs"]
    matrices = many_rows() if many else [row[None, :] for row in single_rows()]
    given = (tensor["name"], tensor["datatype"])
    headers = state.headers
    if many == "binary":
        made = [oip_binary(matrix, *given) for matrix in matrices]
        bodies, headers = [body for body, _ in made], headers | {"Inference-Header-Content-Length": str(made[0][1])}
    else:
        bodies = [oip_body(matrix, *given) for matrix in matrices]
    path = state.root.parent / f"bodies_{name}_{many}.bin"
    write_bodies(path, bodies)
    return Load(
        path=f"/v2/models/{name}/infer",
        bodies=path,
        headers=headers,
        expected=[expected(matrix) for matrix in matrices],
        read=read_oip,
        rows=len(matrices[0]),
    )


def _tensors(state: State, many: str = "") -> Load:
    entry = state.tensors(states.tensor_model())
    state.publish({SERVICE: (entry, {})})
    return tensor_load(state, entry, many=many)


def _fields(state: State, kind: str) -> Load:
    state.publish({SERVICE: (states.all_fields(state), {})})
    path, read = (f"/v1/services/{SERVICE}:predict", read_predict)
    if kind == "field_tensors":
        path, read = f"/v2/models/{SERVICE}/infer", read_oip
    return Load(path=path, bodies=bodies_path(kind), headers=state.headers, expected=_expected("oip"), read=read)


def _entities(state: State, entry: Entry, kind: str, answers: Sequence[Floats]) -> Load:
    state.publish({SERVICE: (entry, {})})
    rows = single_rows()[:, :NARROW_FEATURES]
    make: Callable[[int, Floats], bytes] = lookup_tensors if kind == "tensors" else lookup_fields
    bodies = state.root.parent / f"bodies_{kind}.bin"
    write_bodies(bodies, [make(user, row) for user, row in zip(states.users(DISTINCT), rows, strict=True)])
    path = f"/v2/models/{SERVICE}/infer" if kind == "tensors" else f"/v1/services/{SERVICE}:predict"
    read = read_oip if kind == "tensors" else read_predict
    return Load(path=path, bodies=bodies, headers=state.headers, expected=answers, read=read)


def _narrow(state: State, kind: str) -> Load:
    answers = [expected(row[None, :NARROW_FEATURES], NARROW) for row in single_rows()]
    return _entities(state, states.narrow(state), kind, answers)


def _lookup(state: State, kind: str) -> Load:
    """What the state says of the entities is read here too, and LightGBM asked about it."""
    entry = states.lookup(state)
    found = states.looked_up(states.users(DISTINCT))
    matrix = np.hstack([found, single_rows()[:, :NARROW_FEATURES]])
    return _entities(state, entry, kind, [expected(row[None, :]) for row in matrix])


def _expected(kind: str) -> Sequence[Floats]:
    matrices = many_rows() if kind.endswith("_many") else [row[None, :] for row in single_rows()]
    return [expected(matrix) for matrix in matrices]


def _binary_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Inference-Header-Content-Length": str(binary_head())}


def _plain(python: str) -> dict[str, str]:
    """A peer's environment: its own programs first, one thread for mathematics, and only the repository on the path."""
    path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


OURS: dict[str, Callable[[State], Load]] = {
    "tensors": _tensors,
    "tensors_many": lambda state: _tensors(state, "json"),
    "tensors_binary": lambda state: _tensors(state, "binary"),
    "fields": lambda state: _fields(state, "fields"),
    "field_tensors": lambda state: _fields(state, "field_tensors"),
    "narrow": lambda state: _narrow(state, "fields"),
    "narrow_tensors": lambda state: _narrow(state, "tensors"),
    "lookup": lambda state: _lookup(state, "fields"),
    "lookup_tensors": lambda state: _lookup(state, "tensors"),
}
