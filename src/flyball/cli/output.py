"""Results on a terminal, in a pipe, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click


def show(data: Any, *, as_json: bool, text: str) -> None:
    """One result: a JSON document for scripts, text for people."""
    if as_json:
        click.echo(json.dumps(data, default=str))
    elif text:
        click.echo(text)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns padded to their widest value; numbers to the right."""
    shown = [["–" if value is None else str(value) for value in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in shown), 0) for i, name in enumerate(head)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(head))
    ]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([click.style(line(head), bold=True), *(line(row) for row in shown)])


class Bar(Protocol):
    """Progress of one piece of work."""

    def __call__(self, done: float, total: float) -> None: ...


@contextmanager
def progress(what: str, *, quiet: bool = False, unit: str = "") -> Iterator[Bar]:
    """A bar on a terminal; elsewhere a plain line at each tenth; nothing where `quiet`. All on standard error."""
    if quiet:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with bar_on_terminal(what) as bar:
            yield bar
    else:
        yield Lines(what, unit)


@contextmanager
def bar_on_terminal(what: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total or None)


class Lines:
    """A line at each tenth of the work."""

    def __init__(self, what: str, unit: str = "") -> None:
        self._what = what
        self._unit = f" {unit}" if unit else ""
        self._tenth = -1

    def __call__(self, done: float, total: float) -> None:
        tenth = int(10 * done / total) if total else 0
        if tenth > self._tenth:
            self._tenth = tenth
            click.echo(f"{self._what}: {done:g} of {total:g}{self._unit}", err=True)
