"""What happens in the platform while the stream is replayed: alerts, runs, rollouts, read from its facts."""

from __future__ import annotations

from typing import Any

from flyball.client import Client
from flyball.kernel.times import show_time

Data = dict[str, Any]


class Events:
    """Facts that were not told yet, as lines for people."""

    def __init__(self, client: Client, service: str) -> None:
        self._client = client
        self._service = service
        self._seen: set[str] = set()

    def news(self) -> list[str]:
        """What is new since the last call, the oldest first."""
        facts = [fact for fact in self._client.facts(limit=200) if fact["id"] not in self._seen]
        self._seen |= {fact["id"] for fact in facts}
        facts.sort(key=lambda fact: str(fact["id"]))
        return [f"{show_time(int(fact['at']))}  {line}" for fact in facts if (line := told(fact))]

    def busy(self) -> bool:
        """Whether a training run waits or runs."""
        return any(run["state"] in ("queued", "running") for run in self._client.runs(limit=5))

    def promoted_at(self) -> int | None:
        """Domain time at which the newest version took all traffic; None if none followed the first."""
        facts = self._client.facts(subject=f"service:{self._service}", limit=500)
        times = [int(fact["at"]) for fact in facts if fact["kind"] == "rollout.promote"]
        return max(times, default=None)


def told(fact: Data) -> str:
    """A fact as a line, or nothing where it is of no interest here."""
    kind, after = str(fact["kind"]), fact.get("after") or {}
    if kind.startswith("alert."):
        return _alert(kind, after)
    if kind == "retrain.start":
        return f"retraining starts: {fact['note']}"
    if kind == "version.register":
        return f"registered {after.get('version')}: {(after.get('gate') or {}).get('note', '')}"
    if kind.startswith(("rollout.", "version.refuse")):
        verb = kind.partition(".")[2]
        weight = f" at {after['weight'] / 100:g} %" if "weight" in after else ""
        return f"rollout of {after.get('version')}: {verb}{weight}  {fact['note']}"
    return ""


def _alert(kind: str, after: Data) -> str:
    details: Data = after.get("details") or {}
    if kind == "alert.close":
        return f"alert closed: {after.get('kind')}"
    alarm = "drift" if after.get("kind") == "drift" else "quality"
    return f"{alarm} alarm (uncalibrated): {details.get('reason', '')}"
