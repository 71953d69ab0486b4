"""`flyball erase`: everything of one value goes, and what learned from it is marked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show, table

if TYPE_CHECKING:
    from flyball.client import Client

LOOK = 0.2  # seconds between two looks at how far it is
PATIENCE = 600.0


@click.command(epilog="Example: flyball erase Payments.card=4111111111111111 --dry-run")
@click.argument("subject", metavar="SOURCE.COLUMN=VALUE")
@click.option("--also", "also", multiple=True, metavar="SOURCE.COLUMN", help="Another column with the value.")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@platform_options
def erase(subject: str, also: tuple[str, ...], dry_run: bool, yes: bool, client: Client, as_json: bool) -> None:
    """Erase all rows of VALUE from log, lake, quarantine and online state; sources derived from SOURCE included.

    Predictions for it keep their id and output and lose their fields. Versions that learned from it stay, marked.
    """
    from flyball.define.subject import parse_column, parse_subject

    source, column, value = parse_subject(subject)
    more = [parse_column(text) for text in also]
    counts = client.erase(source, column, value, also=more, dry_run=True)
    if dry_run:
        show(counts, as_json=as_json, text=told(counts, "would go"))
        return
    if not yes:
        click.echo(told(counts, "will go"), err=True)
        click.confirm("This cannot be undone. Erase it?", abort=True, err=True)
    found = client.erase(source, column, value, also=more)
    deadline = time.monotonic() + PATIENCE
    while found["step"] != "done" and time.monotonic() < deadline:
        time.sleep(LOOK)
        found = client.erasure(found["erasure"])
    state = "is gone" if found["step"] == "done" else f"is under way ({found['step']}); flyball status shows how far"
    show(found, as_json=as_json, text=told(found, state))


def told(found: dict[str, Any], what: str) -> str:
    rows = [(f"{t['source']}.{t['column']}", t["rows"], t["quarantined"]) for t in found["targets"]]
    runs = ", ".join(f"{run['run']} ({run['rows']} rows)" for run in found["runs"]) or "none"
    return "\n".join(
        [
            f"{found['erasure']}: {what}",
            table(("column", "rows", "quarantined"), rows),
            f"predictions that lose their fields: {found['predictions']}",
            f"training runs that are marked: {runs}",
        ]
    )
