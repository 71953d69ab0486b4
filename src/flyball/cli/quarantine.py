"""`flyball quarantine`: rows that broke their contract, and what becomes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show, table
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import show_time

if TYPE_CHECKING:
    from flyball.client import Client

rule_option = click.option("--rule", default="", help="Only rows that broke this rule, such as null.")
id_option = click.option("--id", "ids", multiple=True, help="Only this row; may be given several times.")


@click.group(epilog="Example: flyball quarantine list Trips, then mend the contract, flyball apply, and retry Trips")
def quarantine() -> None:
    """List, show, retry or drop rows that broke their contract."""


@quarantine.command("list", epilog="Example: flyball quarantine list Trips --rule null")
@click.argument("source", default="")
@rule_option
@click.option("--all", "everything", is_flag=True, help="Rows that were retried, superseded or dropped, too.")
@click.option("--limit", default=20, show_default=True, help="Rows of each source.")
@platform_options
def list_rows(source: str, rule: str, everything: bool, limit: int, client: Client, as_json: bool) -> None:
    """The newest rows in quarantine, of SOURCE or of all sources."""
    names = [source] if source else [str(s["name"]) for s in client.sources()]
    state = "" if everything else "open"
    found = [client.quarantine_of(name, rule=rule, state=state, limit=limit) for name in names]
    found = [one for one in found if source or one["rows"] or one.get("open")]
    show({"sources": found}, as_json=as_json, text="\n\n".join(map(told, found)) or "nothing is in quarantine")


@quarantine.command("show", epilog="Example: flyball quarantine show Trips:12.3")
@click.argument("id")
@platform_options
def show_row(id: str, client: Client, as_json: bool) -> None:
    """One row as it came, what it broke, and what became of it."""
    row = client.quarantined(id)
    show(row, as_json=as_json, text=row_told(row))


@quarantine.command("retry", epilog="Example: flyball quarantine retry Trips --rule unknown_category")
@click.argument("source")
@rule_option
@id_option
@platform_options
def retry(source: str, rule: str, ids: tuple[str, ...], client: Client, as_json: bool) -> None:
    """Take the open rows of SOURCE that the contract of now accepts; the others stay, with the reason of now.

    Where SOURCE takes corrections, a row of whose key a later version or deletion was accepted is not taken: it is
    superseded, and done with.
    """
    done = client.retry(source, rule=rule, ids=ids)
    text = f"{source}: {done['accepted']} of {done['retried']} rows accepted, {done['quarantined']} still in quarantine"
    if done["duplicates"]:
        text += f", {done['duplicates']} were there already"
    if done.get("superseded"):
        text += f", {done['superseded']} superseded by a later version or deletion of the same key"
    show(done, as_json=as_json, text=text)


@quarantine.command("drop", epilog="Example: flyball quarantine drop Trips --rule bad_json")
@click.argument("source")
@rule_option
@id_option
@click.option("--all", "everything", is_flag=True, help="All open rows of the source.")
@platform_options
def drop(source: str, rule: str, ids: tuple[str, ...], everything: bool, client: Client, as_json: bool) -> None:
    """Give open rows of SOURCE up; they stay in the lake until its retention, and are retried no more."""
    if not (rule or ids or everything):
        raise InvalidError("nothing says which rows are dropped", code="bad_option", hint="--rule, --id, or --all")
    done = client.drop(source, rule=rule, ids=ids, everything=everything)
    show(done, as_json=as_json, text=f"{source}: {done['dropped']} rows dropped")


def told(found: dict[str, Any]) -> str:
    """One source: its rows, then the pushes that were refused whole."""
    open_, total = found.get("open", 0), found.get("total", 0)
    parts = [f"{found['source']}: {open_:,} rows open of {total:,} that were ever quarantined"]
    rows = [
        (row.get("id"), row.get("state"), row.get("rule"), when(row.get("known_at")), row.get("message"))
        for row in found.get("rows") or []
    ]
    if rows:
        parts.append(table(("id", "state", "rule", "came", "why"), rows))
    for refused in (found.get("refused") or [])[:5]:
        parts.append(f"refused whole at {when(refused.get('at'))}: {refused.get('message')}")
    return "\n".join(parts)


def row_told(row: dict[str, Any]) -> str:
    kind = "live" if row.get("live") else "history"
    came = f"{when(row.get('known_at'))} as {kind}, in row {row.get('position')} of its push or file"
    lines = [
        f"{row['id']} is {row['state']}; it came at {came}",
        f"  {row.get('rule')}: {row.get('message')}",
    ]
    if row.get("changed_at"):
        became = f" as event {row['lsn']}" if row.get("lsn") else ""
        lines.append(f"  last tried or dropped at {when(row['changed_at'])}{became}")
    return "\n".join([*lines, json.dumps(row.get("row"), indent=2, ensure_ascii=False, default=str)])


def when(at: Any) -> str:
    return show_time(int(at)) if at else "–"
