"""`flyball ingest`: files of history, or live events from a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import progress, show
from flyball.kernel.errors import InvalidError

if TYPE_CHECKING:
    from flyball.client import Client

BATCH = 1_000  # rows in one push


@click.command(
    epilog="Examples: flyball ingest Trips trips.csv     tail -f events.jsonl | flyball ingest Trips -     "
    "flyball ingest Orders --pull"
)
@click.argument("source")
@click.argument("file", required=False)
@click.option("--pull", is_flag=True, help="Pull SOURCE from its origin (fb.Sql) now, instead of when it is due.")
@platform_options
def ingest(source: str, file: str | None, pull: bool, client: Client, as_json: bool) -> None:
    """Load FILE (csv, parquet, jsonl) as history of SOURCE; with `-`, push JSON lines from a pipe as live events."""
    if pull is (file is not None):
        raise InvalidError(
            "give a file to load, or --pull, and not both" if pull else "give a file to load, `-`, or --pull",
            code="bad_usage",
            hint=f"flyball ingest {source} FILE     flyball ingest {source} --pull",
        )
    if file is None:
        receipt = client.pull(source)
        show(receipt, as_json=as_json, text=told(source, receipt))
        return
    receipt = push_lines(client, source, sys.stdin) if file == "-" else upload(client, source, file, as_json)
    show(receipt, as_json=as_json, text=told(source, receipt))


def upload(client: Client, source: str, file: str, quiet: bool) -> dict[str, Any]:
    with progress(f"upload {file}", quiet=quiet, unit="bytes") as bar:
        return client.upload(source, file, progress=bar)


def push_lines(client: Client, source: str, lines: Iterable[str]) -> dict[str, Any]:
    """Push in batches; the receipts' counts are added up."""
    total: dict[str, Any] = {"accepted": 0, "quarantined": 0, "duplicates": 0, "reasons": {}, "warnings": {}}
    for batch in batches(lines):
        receipt = client.push(source, batch)
        for name in ("accepted", "quarantined", "duplicates"):
            total[name] += receipt.get(name) or 0
        for kind in ("reasons", "warnings"):
            for rule, count in (receipt.get(kind) or {}).items():
                total[kind][rule] = total[kind].get(rule, 0) + count
    return total


def batches(lines: Iterable[str]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise InvalidError(f"line {number} is not JSON", code="bad_row", hint='{"fare": 12.5, …} on each line')
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def told(source: str, receipt: dict[str, Any]) -> str:
    text = f"{source}: {receipt.get('accepted', 0)} rows accepted, {receipt.get('quarantined', 0)} quarantined"
    if receipt.get("duplicates"):
        text += f", {receipt['duplicates']} seen before"
    reasons = sorted((receipt.get("reasons") or {}).items(), key=lambda item: -item[1])[:5]
    examples = {e.get("rule"): e.get("message") for e in reversed(receipt.get("examples") or [])}
    lines = [f"  {n} × {reason}: {examples.get(reason, '')}".rstrip(": ") for reason, n in reasons]
    warned = sorted((receipt.get("warnings") or {}).items(), key=lambda item: -item[1])[:5]
    return "\n".join([text, *lines, *(f"  warned: {n} × {rule}" for rule, n in warned)])
