"""`flyball infer`: a first contract from data."""

from __future__ import annotations

from pathlib import Path

import click

from flyball.cli.options import json_option
from flyball.cli.output import show
from flyball.kernel.errors import ConflictError, InvalidError


@click.command(epilog="Example: flyball infer trips.csv --name Trips --out trips.py")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default="", help="The source's name; by default, the file's.")
@click.option("--event-time", default="", help="The column that says when an event was; by default, the first time.")
@click.option("--format", "form", default="", help="csv, parquet or jsonl, where the file's name does not say it.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a new file instead of standard output.")
@json_option
def infer(file: Path, name: str, event_time: str, form: str, out: Path | None, as_json: bool) -> None:
    """Write the source that the rows of FILE (csv, parquet, jsonl) fit, as Python to begin with."""
    from flyball.ingest.infer import infer as contract_of

    name = name or _class_name(file.stem)
    text = contract_of(file, name=name, format=form, event_time=event_time)
    told = text.rstrip("\n")
    if out is not None:
        _write(out, text)
        told = f"{out} is written; read it, then import {name} in your project"
    show({"source": name, "code": text, "out": None if out is None else str(out)}, as_json=as_json, text=told)


def _write(out: Path, text: str) -> None:
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConflictError(
            f"{out} is there already; it is left as it is", code="file_exists", hint="name another"
        ) from None
    except OSError as error:
        raise InvalidError(
            f"{out} cannot be written: {error.strerror or error}",
            code="bad_file",
            hint="name a file in a folder that is there and may be written to",
        ) from None


def _class_name(stem: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in stem).split()
    return "".join(word[0].upper() + word[1:] for word in words) or "Events"
