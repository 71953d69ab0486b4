"""`flyball logs`: what runs and processes said."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import connect, json_option, state_option
from flyball.cli.output import show
from flyball.cli.train import FINAL, PAUSE
from flyball.kernel.errors import NotFoundError, did_you_mean

if TYPE_CHECKING:
    from flyball.client import Client


@click.command(epilog="Examples: flyball logs run_01j… --follow     flyball logs ingest")
@click.argument("what", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends, or Ctrl-C.")
@click.option("-n", "last", default=50, show_default=True, help="Start at the last N lines.")
@click.option("--url", default="", help="The platform's address; also FLYBALL_URL.")
@state_option
@json_option
def logs(what: str, follow: bool, last: int, url: str, state: Path, as_json: bool) -> None:
    """Show the log of a run (by id; default: the newest) or of a process (control, ingest, worker-0, …)."""
    if what and not what.startswith("run_"):
        follow_file(log_file(what, state / "logs"), last, follow, as_json)
        return
    with connect(state, url) as client:
        follow_run(client, what or newest_run(client), last, follow, as_json)


def newest_run(client: Client) -> str:
    runs = client.runs(limit=1)
    if not runs:
        raise NotFoundError("no run yet", code="no_runs", hint="flyball train MODEL")
    return str(runs[0]["run"])


def follow_run(client: Client, run: str, last: int, follow: bool, as_json: bool) -> None:
    lines = client.run_logs(run)
    seen = len(lines)
    emit(lines[-last:], as_json)
    while follow and client.run(run).get("state") not in FINAL:
        time.sleep(PAUSE)
        lines = client.run_logs(run, after=seen)
        seen += len(lines)
        emit(lines, as_json)


def log_file(process: str, folder: Path) -> Path:
    path = folder / f"{process}.jsonl"
    if Path(process).name != process or not path.is_file():
        known = [p.stem for p in folder.glob("*.jsonl")]
        raise NotFoundError(
            f"no log of {process!r} in {folder}: {did_you_mean(process, known)}",
            code="no_such_log",
            hint="the logs of processes lie in STATE/logs of the machine they run on; --state says where",
        )
    return path


def follow_file(path: Path, last: int, follow: bool, as_json: bool) -> None:
    with path.open() as file:
        emit([read_line(text) for text in file.readlines()[-last:]], as_json)
        while follow:
            text = file.readline()
            if text:
                emit([read_line(text)], as_json)
            else:
                time.sleep(PAUSE)


def read_line(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        return {"message": text.rstrip("\n")}
    return data if isinstance(data, dict) else {"message": text.rstrip("\n")}


def emit(lines: list[dict[str, Any]], as_json: bool) -> None:
    """JSON lines for scripts; for people time, level, message, and the fields beside them."""
    for entry in lines:
        known = ("time", "level", "process", "logger", "message", "exception")
        rest = " ".join(f"{key}={value}" for key, value in entry.items() if key not in known)
        text = f"{entry.get('time', '')} {entry.get('level', '')!s:7} {entry.get('message', '')}  {rest}".strip()
        if entry.get("exception"):
            text += f"\n{entry['exception']}"
        show(entry, as_json=as_json, text=text)
