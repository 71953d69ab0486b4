"""`flyball ingest`: files of history, or live events from a pipe."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.errors import EXIT_STATUS
from flyball.cli.options import platform_options
from flyball.cli.output import progress, show
from flyball.kernel.errors import ErrorKind, FlyballError, InvalidError, NotFoundError

if TYPE_CHECKING:
    from flyball.client import Client

BATCH = 1_000  # rows in one push


FORMATS = (".csv", ".parquet", ".pq", ".jsonl", ".ndjson")


@click.command(
    epilog="Examples: flyball ingest Trips trips.csv     flyball ingest Trips 2014/ 'more/*.parquet'     "
    "tail -f events.jsonl | flyball ingest Trips -     flyball ingest Orders --pull"
)
@click.argument("source")
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@click.option("--pull", is_flag=True, help="Pull SOURCE from its origin (fb.Sql) now, instead of when it is due.")
@platform_options
def ingest(source: str, paths: tuple[str, ...], pull: bool, client: Client, as_json: bool) -> int:
    """Load files (csv, parquet, jsonl), directories of them, or globs as history of SOURCE; with `-`, push JSON lines
    from a pipe as live events.

    Each file is a load of its own: one that was loaded before is not stored again, one that was cut off goes on, and
    one that cannot be read does not keep the others from being loaded.
    """
    if pull is bool(paths):
        raise InvalidError(
            "give files to load, or --pull, and not both" if pull else "give files to load, `-`, or --pull",
            code="bad_usage",
            hint=f"flyball ingest {source} FILE     flyball ingest {source} --pull",
        )
    if pull:
        receipt = client.pull(source)
        show(receipt, as_json=as_json, text=told(source, receipt))
        return 0
    if paths == ("-",):
        receipt = push_lines(client, source, sys.stdin.buffer)  # JSON is UTF-8, whatever the locale is
        show(receipt, as_json=as_json, text=told(source, receipt))
        return 0
    found = files(paths)
    if len(found) == 1:
        receipt = upload(client, source, str(found[0]), as_json)
        show(receipt, as_json=as_json, text=told(source, receipt))
        return 0
    return load_all(client, source, found, as_json)


def files(paths: Sequence[str]) -> list[Path]:
    """The files that paths name, each once: a file as it is; those of a known format in a directory, sorted; a glob."""
    found: dict[Path, None] = {}
    for path in paths:
        place = Path(path)
        if place.is_dir():
            inside = sorted(p for p in place.rglob("*") if p.suffix.lower() in FORMATS and p.is_file())
            if not inside:
                raise NotFoundError(f"{path} has no file of {', '.join(FORMATS)}", code="file_not_found")
        elif not place.exists() and glob.has_magic(path):
            inside = sorted(p for p in map(Path, glob.glob(path, recursive=True)) if p.is_file())
            if not inside:
                raise NotFoundError(f"no file is named like {path}", code="file_not_found")
        else:
            inside = [place]
        found |= dict.fromkeys(inside)
    return list(found)


def load_all(client: Client, source: str, paths: Sequence[Path], as_json: bool) -> int:
    """Load one file after another; the exit status is that of the first that was refused."""
    receipts: list[dict[str, Any]] = []
    refused: dict[str, FlyballError] = {}
    for path in paths:
        try:
            receipts.append(upload(client, source, str(path), as_json) | {"file": str(path)})
        except FlyballError as error:
            if error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.DENIED, ErrorKind.EXHAUSTED):
                raise  # of the platform, not of this file: the next one would fare no better
            refused[str(path)] = error
    total = added(receipts) | {"files": receipts}
    total["refused"] = {path: {"code": e.code, "message": e.message} for path, e in refused.items()}
    lines = [f"{len(receipts)} of {len(paths)} files are loaded"]
    if again := sum(bool(receipt.get("replayed")) for receipt in receipts):
        lines[0] += f", {again} of them were before"
    lines += [f"  {path} was refused: {error.message}" for path, error in refused.items()]
    show(total, as_json=as_json, text="\n".join([told(source, total), *lines]))
    return EXIT_STATUS[next(iter(refused.values())).kind] if refused else 0


def upload(client: Client, source: str, file: str, quiet: bool) -> dict[str, Any]:
    with progress(f"upload {file}", quiet=quiet, unit="bytes") as bar:
        return client.upload(source, file, progress=bar)


def added(receipts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The counts of receipts, added up, with a few examples."""
    total: dict[str, Any] = {"accepted": 0, "quarantined": 0, "duplicates": 0, "examples": []}
    total |= {"reasons": {}, "warnings": {}}
    for receipt in receipts:
        for name in ("accepted", "quarantined", "duplicates"):
            total[name] += receipt.get(name) or 0
        for kind in ("reasons", "warnings"):
            for rule, count in (receipt.get(kind) or {}).items():
                total[kind][rule] = total[kind].get(rule, 0) + count
        total["examples"] += receipt.get("examples") or []
    return total


def push_lines(client: Client, source: str, lines: Iterable[str | bytes]) -> dict[str, Any]:
    """Push in batches; the receipts' counts are added up."""
    total = added(client.push(source, batch) for batch in batches(lines))
    del total["examples"]
    return total


def batches(lines: Iterable[str | bytes]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise InvalidError(
                f"line {number} is not JSON in UTF-8", code="bad_row", hint='{"fare": 12.5, …} on each line'
            ) from None
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
