"""`flyball predict`: ask a service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show
from flyball.cli.train import parse_param
from flyball.kernel.errors import InvalidError, NotFoundError, from_data

if TYPE_CHECKING:
    from flyball.client import Client


@click.command(epilog="Examples: flyball predict tip fare=12.5 company=Sun     flyball predict tip --rows rows.json")
@click.argument("service")
@click.argument("fields", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--rows", "file", help="A file of rows: a JSON list, or JSON lines; `-` for a pipe.")
@click.option("--at", help="The row's time (ISO 8601); default: now.")
@platform_options
def predict(
    service: str, fields: tuple[str, ...], file: str | None, at: str | None, client: Client, as_json: bool
) -> None:
    """Ask SERVICE for a prediction of one row given as fields, or of the rows of a file."""
    if bool(fields) == bool(file):
        raise InvalidError("give one row as NAME=VALUE fields, or rows with --rows", code="no_rows")
    rows = read_rows(file) if file else [dict(parse_param(text) for text in fields)]
    replies = client.predict(service, rows, at=at)
    if fields and "error" in replies[0]:
        raise from_data(replies[0]["error"])
    show(replies, as_json=as_json, text="\n".join(line(reply) for reply in replies))


def read_rows(file: str) -> list[dict[str, Any]]:
    if file != "-" and not Path(file).is_file():
        raise NotFoundError(f"no file {file}", code="file_not_found")
    text = sys.stdin.read() if file == "-" else Path(file).read_text()
    try:
        data = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x]
    except ValueError as error:
        raise InvalidError(f"{file} holds no JSON rows: {error}", code="bad_rows")
    rows: list[dict[str, Any]] = data
    return rows


def line(reply: dict[str, Any]) -> str:
    """The prediction, its score, and which version and rung answered; or why this row has none."""
    if "error" in reply:
        return f"error: {reply['error'].get('message', '')}"
    score = reply.get("score")
    answer = [json.dumps(reply.get("prediction")), *([f"score {score:.6g}"] if isinstance(score, float) else [])]
    notes = [str(reply[key]) for key in ("version", "rung", "prediction_id") if reply.get(key)]
    return "  ".join(answer + notes)
