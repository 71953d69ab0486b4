"""`flyball skew`: whether what was served is what training would compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show, table
from flyball.kernel.times import show_duration, show_time

if TYPE_CHECKING:
    from flyball.client import Client


@click.command(epilog="Example: flyball skew fraud")
@click.argument("service")
@platform_options
def skew(service: str, client: Client, as_json: bool) -> None:
    """Tell how many of the values that SERVICE served differ from their recomputation, by cause and by feature."""
    found = client.skew(service)
    show(found, as_json=as_json, text=told(found))


def told(found: dict[str, Any]) -> str:
    window = show_duration(int(found["window"]))
    head = (
        f"{found['service']} {found.get('version') or ''}: {found['compared']} values compared in the last {window}, "
        f"{found['mismatched']} differ"
    )
    parts = [head, f"rate of mismatches {found['told']}{_limit(found)}"]
    if found.get("causes"):
        parts.append("causes: " + ", ".join(f"{cause} {count}" for cause, count in found["causes"].items()))
    if found.get("skipped"):
        parts.append("skipped: " + ", ".join(f"{reason} {count}" for reason, count in found["skipped"].items()))
    parts.append(_sampling(found["sampling"]))
    wrong = [f for f in found.get("features") or [] if f["mismatched"]]
    if wrong:
        rows = [(f["feature"], f["compared"], f["mismatched"], _causes(f["causes"])) for f in wrong]
        parts.append(table(("feature", "compared", "differ", "causes"), rows))
        parts.append(_effect(found["effect"]))
    if found.get("examples"):
        examples = [
            (
                show_time(e["at"]),
                ", ".join(f"{name}={value}" for name, value in e["entity"].items()),
                e["feature"],
                e["served"],
                e["recomputed"],
                e["cause"],
            )
            for e in found["examples"][:10]
        ]
        parts.append(table(("at", "entity", "feature", "served", "recomputed", "cause"), examples))
        newest = found["examples"][0]
        parts.append(f"flyball explain VIEW.FEATURE --prediction {newest['prediction']} shows what is behind a value")
    return "\n".join(parts)


def _limit(found: dict[str, Any]) -> str:
    if found.get("limit") is None:
        return ""
    over = " (over it: no release)" if found["bound"] > found["limit"] else ""
    return f"; max_skew is {found['limit']:g}{over}"


def _sampling(sampling: dict[str, Any]) -> str:
    text = f"sampled {sampling['share']:.3g} of the entities: {sampling['predictions']} predictions audited"
    waits = f", {sampling['waiting']} wait" if sampling["waiting"] else ""
    return text + waits + (f", {sampling['dropped']} were let go" if sampling["dropped"] else "")


def _effect(effect: dict[str, Any]) -> str:
    if not effect["rows"]:
        return "the effect on predictions is not known: the model cannot be run outside of its own process"
    return f"effect on {effect['rows']} predictions: |Δ score| mean {effect['mean']:.3g}, max {effect['max']:.3g}"


def _causes(causes: dict[str, int]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in causes.items())
