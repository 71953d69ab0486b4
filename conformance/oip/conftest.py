"""The kit's options, its fixtures, and the summary by clause."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from . import wire
from .samples import inputs_of
from .target import PAIR, Subject, Target
from .wire import DTYPES, Array, texts

PROFILES = ("strict", "protocol")
SECONDS = 60.0
_CLAUSE = "oip_clause"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("oip", "Open Inference Protocol conformance")
    group.addoption("--target", metavar="URL", help="the server's address, such as http://127.0.0.1:8080")
    group.addoption("--model", metavar="NAME", help="the model under test; else oip_pair, else the first one listed")
    group.addoption("--request", metavar="FILE", help="JSON of a request that the model takes, for its `inputs`")
    group.addoption("--header", metavar="LINE", action="append", default=[], help='such as "Authorization: Bearer …"')
    group.addoption(
        "--profile",
        choices=PROFILES,
        default="strict",
        help="strict: the exact statuses that servers agree on; protocol: what its text demands, any 4xx",
    )
    group.addoption("--oip-report", metavar="FILE", help="write each test's outcome as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(name): the part of the protocol, or the extension, that a test is of")


def pytest_sessionstart(session: pytest.Session) -> None:
    if not session.config.getoption("--target", None):
        raise pytest.UsageError("the conformance kit needs --target URL, the address of the server under test")


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("clause")
    item.user_properties.append((_CLAUSE, marker.args[0] if marker else "other"))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    outcomes = _outcomes(terminalreporter)
    table: dict[str, Counter[str]] = {}
    for found in outcomes:
        table.setdefault(found["clause"], Counter())[found["outcome"]] += 1
    terminalreporter.section(f"Open Inference Protocol: {config.getoption('--target')}")
    for clause, counts in sorted(table.items()):
        terminalreporter.write_line(f"{clause:<28}{_counts(counts)}")
    total = sum(table.values(), Counter[str]())
    terminalreporter.write_line(f"{'all':<28}{_counts(total)}")
    path = config.getoption("--oip-report")
    if path:
        Path(path).write_text(json.dumps(outcomes, indent=1))


def _outcomes(reporter: Any) -> list[dict[str, str]]:
    """One entry a test; a test that failed while it was set up or torn down failed."""
    found: dict[str, dict[str, str]] = {}
    for kind in ("passed", "skipped", "failed", "error"):
        for report in reporter.stats.get(kind, []):
            if not hasattr(report, "user_properties"):  # a file that cannot be collected
                found[report.nodeid] = {"test": report.nodeid, "clause": "kit", "outcome": "failed", "why": ""}
                continue
            if kind == "passed" and report.when != "call":
                continue
            clause = dict(report.user_properties).get(_CLAUSE, "other")
            outcome = "failed" if kind == "error" else kind
            why = report.longrepr[2] if kind == "skipped" and isinstance(report.longrepr, tuple) else ""
            found[report.nodeid] = {"test": report.nodeid, "clause": str(clause), "outcome": outcome, "why": why}
    return list(found.values())


def _counts(counts: Counter[str]) -> str:
    return f"{counts['passed']:>4} passed {counts['failed']:>4} failed {counts['skipped']:>4} skipped"


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Iterator[Target]:
    headers = dict(_header(line) for line in pytestconfig.getoption("--header"))
    url = str(pytestconfig.getoption("--target")).rstrip("/")
    alone = httpx.Limits(max_keepalive_connections=0)  # a server that closes after one test must not fail the next
    with httpx.Client(base_url=url, headers=headers, timeout=SECONDS, limits=alone, trust_env=False) as client:
        try:
            client.get("/v2/health/live")
        except httpx.TransportError as error:
            pytest.exit(f"no server answers at {url}: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
        yield Target(client=client, strict=pytestconfig.getoption("--profile") == "strict")


@pytest.fixture(scope="session")
def model(target: Target, pytestconfig: pytest.Config) -> Subject:
    """The model under test: any that is served."""
    name = pytestconfig.getoption("--model") or _first_model(target)
    metadata = target.metadata(name)
    if metadata is None:
        pytest.fail(f"the server does not serve {name!r}; name a model that it does with --model NAME")
    path = pytestconfig.getoption("--request")
    given = json.loads(Path(path).read_text())["inputs"] if path else None
    if given is None and not metadata.get("inputs"):
        pytest.fail(f"the metadata of {name!r} list no inputs; give a request that it takes with --request FILE")
    inputs = inputs_of(metadata) if given is None else {one["name"]: _array(one) for one in given}
    return Subject(name=name, metadata=metadata, inputs=inputs)


@pytest.fixture(scope="session")
def pair(target: Target) -> Subject:
    """The reference model of two inputs and two outputs; skips where it is not served."""
    metadata = target.need_model(PAIR)
    inputs: dict[str, Array] = {
        "a": np.array([[1.5, -2.0], [0.25, 1e6]], dtype=np.float32),
        "b": np.array([7, -9], dtype=np.int64),
    }
    return Subject(name=PAIR, metadata=metadata, inputs=inputs)


def _first_model(target: Target) -> str:
    if target.metadata(PAIR) is not None:
        return PAIR
    reply = target.get("/v2/models")
    if reply.status_code == 200 and reply.json().get("models"):
        return str(reply.json()["models"][0])
    reply = target.post("/v2/repository/index", wire.json_body({}))
    if reply.status_code == 200 and reply.json():
        return str(reply.json()[0]["name"])
    pytest.fail("the server lists no models; name one with --model NAME")


def _array(given: dict[str, Any]) -> Array:
    if given["datatype"] == "BYTES":
        return texts(*given["data"]).reshape(given["shape"])
    return np.array(given["data"], dtype=DTYPES[given["datatype"]]).reshape(given["shape"])


def _header(line: str) -> tuple[str, str]:
    name, found, value = line.partition(":")
    if not found:
        raise pytest.UsageError(f'--header takes "Name: value", not {line!r}')
    return name.strip(), value.strip()
