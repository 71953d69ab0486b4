"""`flyball status`: what runs, what is behind, what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show, table
from flyball.kernel.times import show_duration, show_time

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
    contracts = [
        (s.get("name"), c.get("rule"), "–" if c.get("ok") is None else "holds" if c["ok"] else "broken", c.get("text"))
        for s in now.get("sources") or []
        for c in contract_lines(s)
    ]
    if contracts:
        parts.append(table(("source", "rule", "", ""), contracts))
    for heading, rows in (
        (("pulled", "from", "every", "last pull", "rows", ""), pulled(now)),
        (("derived", "from", "events", "behind", "waiting", ""), derived(now)),
    ):
        if rows:
            parts.append(table(heading, rows))
    processes = [
        (p.get("name"), p.get("state"), p.get("pid"), p.get("restarts"), p.get("error") or "")
        for p in now.get("processes") or []
    ]
    if processes:
        parts.append(table(("process", "state", "pid", "restarts", ""), processes))
    building = [building_of(view) for view in now.get("views") or [] if view.get("build")]
    if building:
        parts.append("\n".join(building))
    erasures = [erasure_of(erasure) for erasure in now.get("erasures") or []]
    if erasures:
        parts.append("\n".join(erasures))
    wrong = wrongs(now)
    parts.append("\n".join(f"wrong: {line}" for line in wrong) if wrong else "nothing is wrong")
    return "\n\n".join(parts)


def contract_lines(source: dict[str, Any]) -> list[dict[str, Any]]:
    """How a source's rules over batches stand, then what its contract warned of, refused, and keeps in quarantine."""
    lines = list(source.get("contract") or [])
    lines += [
        {"rule": rule, "ok": None, "text": f"{count:,} accepted with a warning"}
        for rule, count in sorted((source.get("warnings") or {}).items())
    ]
    lines += [
        {"rule": rule, "ok": None, "text": f"{count:,} pushes refused whole"}
        for rule, count in sorted((source.get("refused") or {}).items())
    ]
    if source.get("quarantine_open"):
        text = f"{source['quarantine_open']:,} rows open: flyball quarantine list {source.get('name')}"
        lines.append({"rule": "quarantine", "ok": None, "text": text})
    return lines


def pulled(now: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Sources with an origin: the secret's name, when the last pull went well, rows taken, and what is wrong."""
    rows = []
    for source, pull in described(now, "pull"):
        again = f"failed {pull['failures']} times: {pull.get('code')}" if pull.get("failures") else ""
        last = show_time(pull["pulled_at"]) if pull.get("pulled_at") else "never"
        rows.append((source, pull.get("dsn"), show_duration(pull["every"]), last, pull.get("rows"), again))
    return rows


def derived(now: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Derived sources: events of the parent that were derived from, that are to come, and that are not known yet."""
    rows = []
    for source, state in described(now, "derive"):
        late = f"{state['late']} events of its views came late" if state.get("late") else ""
        note = state.get("code") or late
        rows.append((source, state.get("from"), state.get("lsn"), state.get("behind"), state.get("held"), note))
    return rows


def described(now: dict[str, Any], what: str) -> list[tuple[str, dict[str, Any]]]:
    """The sources that have a status of this kind."""
    return [(str(s.get("name")), s[what]) for s in now.get("sources") or [] if s.get(what)]


def building_of(view: dict[str, Any]) -> str:
    """How far a view is that is built beside the others."""
    build = view["build"]
    left = build.get("seconds_left")
    still = "" if left is None else f", about {left:,.0f} s left"
    return f"building: view {view['name']} of {view['source']}, {build['rows']:,} of {build['of']:,} rows{still}"


def erasure_of(erasure: dict[str, Any]) -> str:
    """What an erasure took, and which runs had learned from it."""
    columns = ", ".join(f"{t['source']}.{t['column']}" for t in erasure["targets"])
    rows = sum(t["rows"] for t in erasure["targets"])
    runs = ", ".join(run["run"] for run in erasure["runs"])
    learned = f"; it was in the training sets of {runs}" if runs else ""
    at = show_time(erasure["at"])
    return f"erasure {erasure['erasure']} of {columns} ({at}, {erasure['step']}): {rows:,} rows{learned}"


def wrongs(now: dict[str, Any]) -> list[str]:
    """What a person should look at."""
    found = [f"{p.get('name')} is {p.get('state')}" for p in now.get("processes") or [] if p.get("state") != "running"]
    found += [
        f"{a.get('kind')} {a.get('subject')}: {a.get('message')}" for a in now.get("alerts") or [] if a.get("open")
    ]
    found += [
        f"{p.get('name')} refuses the plan: {p.get('error')}" for p in now.get("processes") or [] if p.get("error")
    ]
    found += [
        f"{s.get('name')}.{c.get('rule')}: {c.get('text')}"
        for s in now.get("sources") or []
        for c in s.get("contract") or []
        if c.get("ok") is False
    ]
    found += [
        f"{source} is not pulled: {pull['error']}" for source, pull in described(now, "pull") if pull.get("error")
    ]
    found += [
        f"{name} is not derived: {state['error']}" for name, state in described(now, "derive") if state.get("error")
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
