"""`flyball status`: what runs, what is behind, what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show, table
from flyball.kernel.times import show_time

if TYPE_CHECKING:
    from flyball.client import Client


@click.command(epilog="Example: flyball status --json | jq .services")
@platform_options
def status(client: Client, as_json: bool) -> None:
    """Tell what the platform is doing."""
    now = client.status()
    show(now, as_json=as_json, text=told(now, client.settings.url))


def told(now: dict[str, Any], url: str) -> str:
    from flyball.console.stages import milliseconds, number, share, stages

    clock = "replay clock" if now.get("replay") else "clock"
    projects = ", ".join(now.get("projects") or []) or "no project applied yet: flyball apply"
    parts = [f"{projects} at {url}, {clock} {show_time(now.get('at') or 0)}"]
    if now.get("console"):
        parts[0] += f"\nconsole {now['console']}"
    parts.append("\n".join(f"{s.name:9} {s.value} {s.unit}  {' · '.join(s.lines)}" for s in stages(now)))  # type: ignore[arg-type]
    waiting = next((s["backlog"] for s in now.get("sources") or [] if s.get("backlog")), None)
    if waiting:
        parts.append(
            f"ingest: {number(waiting['unapplied'])} pushed events wait to be applied, "
            f"{number(waiting['unflushed'])} for the lake; beyond {number(waiting['unapplied_limit'])} and "
            f"{number(waiting['unflushed_limit'])} pushes are refused"
        )
    services = [
        (
            s.get("name"),
            ", ".join(f"{r.get('version')} {share(r.get('weight'))}" for r in s.get("routes") or []),
            f"{number(s.get('rate'))}/s",
            milliseconds(s.get("p50")),
            milliseconds(s.get("p99")),
            share(s.get("errors")),
        )
        for s in now.get("services") or []
    ]
    if services:
        parts.append(table(("service", "traffic", "rate", "p50", "p99", "errors"), services))
    processes = [
        (p.get("name"), p.get("state"), p.get("pid"), p.get("restarts"), p.get("error") or "")
        for p in now.get("processes") or []
    ]
    if processes:
        parts.append(table(("process", "state", "pid", "restarts", ""), processes))
    wrong = wrongs(now)
    parts.append("\n".join(f"wrong: {line}" for line in wrong) if wrong else "nothing is wrong")
    return "\n\n".join(parts)


def wrongs(now: dict[str, Any]) -> list[str]:
    """What a person should look at."""
    found = [f"{p.get('name')} is {p.get('state')}" for p in now.get("processes") or [] if p.get("state") != "running"]
    found += [
        f"{a.get('kind')} {a.get('subject')}: {a.get('message')}" for a in now.get("alerts") or [] if a.get("open")
    ]
    found += [
        f"{p.get('name')} refuses the plan: {p.get('error')}" for p in now.get("processes") or [] if p.get("error")
    ]
    newest: dict[str, dict[str, Any]] = {}
    for run in now.get("runs") or []:
        newest.setdefault(str(run.get("model")), run)
    found += [
        f"the last run of {m} failed: flyball logs {r.get('run')}"
        for m, r in newest.items()
        if r.get("state") == "failed"
    ]
    return found
