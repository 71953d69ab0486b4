"""The stages of the loop, each with the numbers that say how it is. Pure: status in, plain values out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flyball.console.view import Health, RolloutStatus, ServiceStatus, SourceStatus, Status

ACTIVE_RUN = ("queued", "starting", "running")
ACTIVE_ROLLOUT = ("running", "waiting")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """How a source stands to its contract: a word, the style of its tag, and the whole of it as a text."""

    word: str
    tag: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage: its number in large, what the number counts, and up to two lines below it."""

    name: str
    value: str
    unit: str
    lines: tuple[str, ...] = ()
    health: Health = "idle"


def stages(status: Status) -> tuple[Stage, ...]:
    """The eight stages in the order of the loop."""
    return (
        ingest(status),
        features(status),
        train(status),
        register(status),
        roll_out(status),
        serve(status),
        monitor(status),
        retrain(status),
    )


def ingest(status: Status) -> Stage:
    sources = status.get("sources") or []
    rows = total(sources, "rows")
    bad = sum(source.get("quarantine_open", source.get("quarantined", 0)) for source in sources)
    lag, rate = total(sources, "lag"), total(sources, "rate")
    broken = [s for s in sources if contract(s).tag == "failed"]
    kept = "in quarantine" if any("quarantine_open" in source for source in sources) else "quarantined"
    lines = [f"{number(rate)} /s" if rate else "no events now", f"{number(bad)} {kept}"]
    failing = [s for s in sources if _error(s)]
    if failing:
        lines.append(f"{failing[0].get('name', '')} fails")
    return Stage(
        name="Ingest",
        value=number(rows),
        unit="rows",
        lines=(*lines, f"{number(lag)} behind") if lag else tuple(lines),
        health="bad" if failing else "warn" if broken else "busy" if rate or lag else "ok" if rows else "idle",
    )


def _error(source: SourceStatus) -> str:
    """What is wrong with a source's pulls or derivation."""
    parts: list[dict[str, Any]] = [source.get("pull") or {}, source.get("derive") or {}]
    return next((str(part["error"]) for part in parts if part.get("error")), "")


def contract(source: SourceStatus) -> Contract:
    """Whether a source's pulls or derivation fail, else whether its rules over pushes hold now."""
    if error := _error(source):
        return Contract(word="fails", tag="failed", text=error)
    rules = source.get("contract") or []
    text = "; ".join(f"{rule['rule']}: {rule['text']}" for rule in rules)
    broken = [str(rule["rule"]) for rule in rules if rule.get("ok") is False]
    if broken:
        return Contract(word=f"{broken[0]} broken", tag="failed", text=text)
    known = any(rule.get("ok") for rule in rules)
    return Contract(word="holds" if known else "–", tag="succeeded" if known else "", text=text)


def warned(source: SourceStatus) -> int:
    """Rows and pushes that were accepted with a warning, all time."""
    return sum((source.get("warnings") or {}).values())


def features(status: Status) -> Stage:
    views = status.get("views") or []
    building = [view for view in views if view.get("ready") is False]
    known = any(view.get("entities") is not None for view in views)
    lines = [counted(len(views), "view")] if known else [str(view.get("name", "")) for view in views[:2]]
    if building:
        lines.append(f"building {building[0].get('name', '')}")
    return Stage(
        name="Features",
        value=number(total(views, "entities")) if known else str(len(views)),
        unit="entities" if known else "view" if len(views) == 1 else "views",
        lines=tuple(lines),
        health="busy" if building else "ok" if views else "idle",
    )


def train(status: Status) -> Stage:
    runs = status.get("runs") or []
    active = [run for run in runs if run.get("state") in ACTIVE_RUN]
    last = next((run for run in runs if run not in active), None)
    lines = [f"{run.get('model', '')} {run.get('state', '')}" for run in active[:1]]
    if last is not None:
        lines.append(f"last: {last.get('model', '')} {last.get('state', '')}")
    health: Health = "busy" if active else "idle"
    if not active and last is not None:
        health = "bad" if last.get("state") == "failed" else "ok"
    return Stage(
        name="Train", value=str(len(active)), unit="running", lines=tuple(lines) or ("no run yet",), health=health
    )


def register(status: Status) -> Stage:
    versions = status.get("versions") or []
    if not versions:
        return Stage(name="Register", value="0", unit="versions", lines=("no version yet",))
    newest = versions[0]
    measured = newest.get("metrics") or {}
    metrics = [f"{name} {measured[name]:.3f}" for name in sorted(measured, key=lambda name: (name != "auc", name))]
    name = f"{newest.get('model', '')}/{newest.get('version', '?')}"
    return Stage(
        name="Register", value=name, unit="newest version", lines=(*metrics[:1], counted(len(versions), "version"))
    )


def roll_out(status: Status) -> Stage:
    rollouts = status.get("rollouts") or []
    active = next((r for r in rollouts if r.get("state") in ACTIVE_ROLLOUT), None)
    if active is not None:
        waiting = active.get("state") == "waiting"
        lines = ("waits for approval" if waiting else step(active), f"{active.get('service', '')}")
        return Stage(
            name="Roll out",
            value=share(active.get("weight", 0.0)),
            unit=f"on version {active.get('version', '?')}",
            lines=lines,
            health="warn" if waiting else "busy",
        )
    if not rollouts:
        return Stage(name="Roll out", value="–", unit="nothing to roll out")
    last = rollouts[0]
    aborted = last.get("state") == "aborted"
    return Stage(
        name="Roll out",
        value=str(last.get("state", "")),
        unit=f"version {last.get('version', '?')}",
        lines=(str(last.get("service", "")), *([str(last.get("reason", ""))[:34]] if aborted else [])),
        health="bad" if aborted else "ok",
    )


def serve(status: Status) -> Stage:
    services = status.get("services") or []
    rate = total(services, "rate")
    empty: ServiceStatus = {}
    busiest = max(services, key=lambda s: s.get("rate") or 0.0, default=empty)
    errors = max((s.get("errors") or 0.0 for s in services), default=0.0)
    lines = []
    if busiest.get("p99") is not None:
        lines.append(f"p50 {milliseconds(busiest.get('p50'))} · p99 {milliseconds(busiest.get('p99'))}")
    if errors:
        lines.append(f"{share(errors)} errors")
    lines.append(f"{number(total(services, 'requests'))} predictions")
    health: Health = "bad" if errors > 0.01 else "busy" if rate else "ok" if services else "idle"
    return Stage(name="Serve", value=number(rate), unit="predictions /s", lines=tuple(lines[:3]), health=health)


def monitor(status: Status) -> Stage:
    drifted = [d for d in status.get("drift") or [] if d.get("state") == "drift"]
    quality = [q for q in status.get("quality") or [] if q.get("value") is not None]
    opened = [a for a in status.get("alerts") or [] if a.get("open")]
    lines = []
    if drifted:
        lines.append(f"drift: {drifted[0].get('feature') or drifted[0].get('service', '')}")
    lines.append(counted(len(opened), "open alert"))
    worse = bool(drifted or opened or any(q.get("dropped") for q in quality))
    if quality:
        return Stage(
            name="Monitor",
            value=f"{quality[0]['value']:.3f}",
            unit=f"{quality[0].get('metric', '')} from {number(quality[0].get('labels'))} labels",
            lines=tuple(lines),
            health="warn" if worse else "ok",
        )
    known = [d for d in status.get("drift") or [] if d.get("state") in ("ok", "drift")]
    return Stage(
        name="Monitor",
        value="drift" if drifted else "steady" if known else "–",
        unit="inputs" if known else "nothing to watch yet",
        lines=tuple(lines),
        health="warn" if worse else "ok" if known else "idle",
    )


def retrain(status: Status) -> Stage:
    loops = status.get("retrain") or []
    done = total(loops, "count")
    newest = max(loops, key=lambda r: r.get("last") or 0, default=None)
    lines = []
    if newest is not None and newest.get("last"):
        lines.append(f"last: {newest.get('trigger', '')}")
    if newest is not None and newest.get("state"):
        lines.append(str(newest.get("state")))
    running = any(r.get("state") == "running" for r in loops)
    return Stage(
        name="Retrain",
        value=number(done),
        unit="retrainings",
        lines=tuple(lines) or ("no trigger yet",),
        health="busy" if running else "ok" if done else "idle",
    )


def total(parts: Iterable[Any], key: str) -> float:
    return sum((part.get(key) or 0) for part in parts)


def step(rollout: RolloutStatus) -> str:
    if not rollout.get("steps"):
        return str(rollout.get("kind", ""))
    return f"step {rollout.get('step', 0)} of {rollout['steps']}"


def number(value: float | None) -> str:
    """A count or a rate for people: `987`, `12.3 k`, `4.56 M`; an en dash where there is none.

    >>> number(12_345), number(0.25)
    ('12.3 k', '0.25')
    """
    if value is None:
        return "–"
    for least, size, unit in ((9.995e8, 1e9, "G"), (9.995e5, 1e6, "M"), (9_999.5, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.3g} {unit}"
    if value == int(value):
        return str(int(value))
    return f"{value:.3g}"


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3g} %"


def milliseconds(us: float | None) -> str:
    return "–" if us is None else f"{us / 1000:.3g} ms"


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
