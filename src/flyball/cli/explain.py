"""`flyball explain`: what is behind one value of a feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show, table
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import show_time

if TYPE_CHECKING:
    from flyball.client import Client


@click.command(epilog="Example: flyball explain UserActivity.clicks_1h --entity user=u1 --at 2026-11-20T10:00:00Z")
@click.argument("feature", metavar="VIEW.FEATURE")
@click.option("--entity", multiple=True, metavar="COLUMN=VALUE", help="Whose value; once for each entity column.")
@click.option("--at", default="", help="The time of the value; default: now.")
@click.option("--prediction", default="", metavar="ID", help="As this prediction was served it.")
@platform_options
def explain(feature: str, entity: tuple[str, ...], at: str, prediction: str, client: Client, as_json: bool) -> None:
    """Show the interval, the tiles and the rows that a value is made of, and the rows that came too late for it."""
    view, dot, name = feature.partition(".")
    if not dot or not name:
        raise InvalidError(
            f"{feature!r} names no feature; write VIEW.FEATURE", code="bad_feature", hint="flyball features lists them"
        )
    found = client.explain(view, name, entity=pairs(entity), at=at or None, prediction=prediction)
    show(found, as_json=as_json, text=told(found))


def pairs(given: tuple[str, ...]) -> dict[str, str]:
    entity = {}
    for text in given:
        column, equals, value = text.partition("=")
        if not equals or not column:
            raise InvalidError("--entity takes COLUMN=VALUE, such as --entity user=u1", code="bad_entity")
        entity[column] = value
    return entity


def told(found: dict[str, Any]) -> str:
    interval = found["interval"]
    entity = ", ".join(f"{name}={value}" for name, value in found["entity"].items()) or "everything"
    start = "the beginning" if interval["start"] is None else show_time(interval["start"])
    more = ", ".join(f"{name} {interval[name]}" for name in ("window", "hop", "ttl") if interval.get(name))
    by = f", as {found['version']} defines it" if found.get("version") else ""
    parts = [
        f"{found['view']}.{found['feature']} ({found['operator']}) of {entity} at {show_time(found['at'])}{by}",
        f"interval [{start}, {show_time(interval['end'])})" + (f": {more}" if more else ""),
        "value " + ", ".join(f"as {how} {shown(value)}" for how, value in found["value"].items()) + online(found),
    ]
    if found["tiles"]:
        rows = [(show_time(t["start"]), t["hop"], t["rows"], shown(t["value"])) for t in found["tiles"]]
        parts.append(_left_out("tiles", found["tiles_left_out"]))
        parts.append(table(("start", "hop", "rows", "alone it gives"), rows))
    head = found["head"]
    what = f"head from {show_time(head['start'])}" if found["tiles"] or found["operator"] != "latest" else "rows"
    parts.append(f"{what}: {len(head['rows'])} rows{_more(found['rows_left_out'])}")
    if head["rows"]:
        parts.append(events(head["rows"], why=False))
    if found["late"]:
        parts += ["not seen:", events(found["late"], why=True)]
    return "\n".join(part for part in parts if part)


def events(rows: list[dict[str, Any]], *, why: bool) -> str:
    head = ["event time", "known at", "LSN", "value", *(["why"] if why else [])]
    body = [
        [show_time(row["event_time"]), show_time(row["known_at"]), row["lsn"], shown(row["value"])]
        + ([row["why"]] if why else [])
        for row in rows
    ]
    return table(head, body)


def online(found: dict[str, Any]) -> str:
    said = found.get("online")
    if not said:
        return ""
    if "error" in said:
        return f"; online state: {said['error']}"
    return f"; online state says {shown(said['value'])}{'' if said['exact'] else ' (inexact: it is newer)'}"


def shown(value: Any) -> str:
    return "null" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def _left_out(what: str, count: int) -> str:
    return f"{what}, {count} older ones left out:" if count else f"{what}:"


def _more(count: int) -> str:
    return f", {count} older ones left out" if count else ""
