"""The command line on a platform in this process: what a tutorial's commands print is what they print there."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from flyball.cli import options
from flyball.kernel.times import parse_time
from flyball.loop.control import Control
from flyball.testing.platform import TEST, TestPlatform
from tests.cli.run_cli import flyball


class Beside:
    """A client whose platform is `running`: as many methods of `flyball.client.Client` as tutorials need."""

    def __init__(self, running: TestPlatform) -> None:
        self._running = running
        self._control: Control = running._control
        self.upload = self._load
        self.predict = self._predict

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *error: object) -> None:
        self._running.tick()

    def _load(self, source: str, path: str, **more: Any) -> Any:
        return self._running.load(source, path)

    def push(self, source: str, rows: Any) -> Any:
        return self._running.push(source, rows)

    def _predict(self, service: str, rows: Any, *, at: str | None) -> Any:
        return self._running.predict(service, rows, at=at)

    def train(self, model: str, *, reason: str, params: Any) -> Any:
        started = self._control.train(model, actor=TEST, reason=reason, params=params)
        self._running.tick()
        return started

    def run(self, run: str) -> Any:
        return self._control.run(run)

    def run_logs(self, run: str, *, after: int = 0) -> Any:
        return []

    def explain(self, view: str, feature: str, *, entity: Any, at: str | None, prediction: str) -> Any:
        moment = None if at is None else parse_time(at)
        return self._control.explain(view, feature, entity=entity, at=moment, prediction=prediction)

    def skew(self, service: str) -> Any:
        return self._control.skew(service)

    def views(self) -> Any:
        return self._control.views()

    def view_sql(self, view: str, *, kind: str, table: str) -> str:
        return str(self._control.view_sql(view, kind=kind, table=table)["sql"])

    def quarantine_of(self, source: str, *, rule: str, state: str, limit: int) -> Any:
        return self._running._ingest.quarantine(source, rule=rule, state=state, limit=limit)

    def drop(self, source: str, *, rule: str, ids: Any, everything: bool) -> Any:
        return self._running._ingest.drop(source, rule=rule, ids=ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A command as a page shows it, with the lines that it says come out."""

    command: str
    lines: tuple[str, ...]


def shown(page: str) -> Iterator[Shown]:
    """The commands of a page: indented lines that begin with `$`, each with the indented lines below it."""
    command, lines = "", list[str]()
    for line in [*page.splitlines(), ""]:
        if command and (line.startswith("    $ ") or not line.startswith("    ")):
            yield Shown(command=command, lines=tuple(lines))
            command, lines = "", []
        if line.startswith("    $ "):
            command = line.removeprefix("    $ ")
        elif command:
            lines.append(line.removeprefix("    ").rstrip())


def typed(command: str, running: TestPlatform, patch: pytest.MonkeyPatch) -> str:
    """Run a command of a page, with what is piped into it; what it printed."""
    echoed, _, line = command.rpartition(" | ")
    if echoed:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(shlex.split(echoed)[1].encode() + b"\n")))
    patch.setattr(options, "connect", lambda state, url="": Beside(running))
    program, *arguments = shlex.split(line)
    assert program == "flyball"
    ran = flyball(*arguments)
    assert ran.status == 0, ran.err
    return ran.out


def agrees(expected: tuple[str, ...], out: str) -> bool:
    """Whether the lines stand in the output in this order, and no others unless a line `…` says so; `…` in a line
    stands for anything."""
    lines = [line.rstrip() for line in out.splitlines() if line.strip()]
    place = 0
    gap = False
    for line in expected:
        if line == "…":
            gap = True
            continue
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        found = next((n for n in range(place, len(lines)) if pattern.fullmatch(lines[n])), None)
        if found is None or (found > place and not gap):
            return False
        place, gap = found + 1, False
    return gap or place == len(lines)
