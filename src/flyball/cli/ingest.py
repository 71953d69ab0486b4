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


@click.command(epilog="Examples: flyball ingest Trips trips.csv     tail -f events.jsonl | flyball ingest Trips -")
@click.argument("source")
@click.argument("file")
@platform_options
def ingest(source: str, file: str, client: Client, as_json: bool) -> None:
    """Load FILE (csv, parquet, jsonl) as history of SOURCE; with `-`, push JSON lines from a pipe as live events."""
    receipt = push_lines(client, source, sys.stdin) if file == "-" else upload(client, source, file, as_json)
    show(receipt, as_json=as_json, text=told(source, receipt))


def upload(client: Client, source: str, file: str, quiet: bool) -> dict[str, Any]:
    with progress(f"upload {file}", quiet=quiet, unit="bytes") as bar:
        return client.upload(source, file, progress=bar)


def push_lines(client: Client, source: str, lines: Iterable[str]) -> dict[str, Any]:
    """Push in batches; the receipts' counts are added up."""
    total: dict[str, Any] = {"accepted": 0, "rejected": 0, "duplicates": 0}
    for batch in batches(lines):
        receipt = client.push(source, batch)
        for name in total:
            found = receipt.get(name)
            total[name] += len(found) if isinstance(found, list) else found or 0
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
    rejected = receipt.get("rejected") or 0
    count = len(rejected) if isinstance(rejected, list) else rejected
    text = f"{source}: {receipt.get('accepted', 0)} rows accepted, {count} quarantined"
    if receipt.get("duplicates"):
        text += f", {receipt['duplicates']} seen before"
    reasons = receipt.get("reasons") or {}
    shown = sorted(reasons.items(), key=lambda item: -item[1])[:5] if isinstance(reasons, dict) else []
    return "\n".join([text, *(f"  {n} × {reason}" for reason, n in shown)])
