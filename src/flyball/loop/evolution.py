"""Whether a plan's sources fit the data that is there: what the lake holds, and what served versions read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from flyball.define.evolution import feature_columns, view_columns
from flyball.define.plan import Change, Plan
from flyball.define.spec import FeatureSpec, ProjectSpec, SourceSpec, ViewSpec
from flyball.ingest.frames import lake_type
from flyball.loop.ports import Packages, Unit
from flyball.loop.publish import services, version_digest


def fitted_to_data(
    plan: Plan, before: ProjectSpec | None, unit: Unit, packages: Packages, types: Callable[[str], Mapping[str, Any]]
) -> Plan:
    """The plan with those changes of sources refused that the data or a served version does not allow.

    `define.evolution` compares declarations; a table may remember a column that no declaration has any more, and a
    version that still serves, or may be rolled back to, may read what the project does not read any more.
    """
    was = {source.name: source for source in before.sources} if before is not None else {}
    changes = tuple(
        msgspec.structs.replace(change, refused=said)
        if change.kind == "source"
        and not change.refused
        and (said := _refusal(change, was.get(change.name), plan.spec, unit, packages, types))
        else change
        for change in plan.changes
    )
    return msgspec.structs.replace(plan, changes=changes)


def _refusal(
    change: Change,
    was: SourceSpec | None,
    new: ProjectSpec,
    unit: Unit,
    packages: Packages,
    types: Callable[[str], Mapping[str, Any]],
) -> str:
    if change.action == "remove":
        return ""
    now = new.source(change.name)
    there = types(now.name)
    for column in now.columns:
        held = there.get(column.name)
        wanted = lake_type(column.type, column.scale)
        if held is not None and held != wanted:
            return (
                f"the column {column.name} has data as {held} and is declared as {wanted}; give the new column another "
                f"name, or declare {column.name} as it was"
            )
    gone = {c.name for c in was.columns} - {c.name for c in now.columns} if was is not None else set()
    for ref, column_name in _read_by_versions(now.name, unit, packages) if gone else ():
        if column_name in gone:
            return (
                f"the column {column_name} is gone, and version {ref}, which serves or may be rolled back to, reads "
                "it; release versions that do not, then take it out"
            )
    return ""


def _read_by_versions(source: str, unit: Unit, packages: Packages) -> Iterator[tuple[str, str]]:
    """Each version that serves, or may again, with each column of the source that it reads."""
    for _, service in services(unit.projects.all()):
        rollout, served = unit.rollouts.open(service.name), unit.rollouts.served(service.name)
        for ref in (served.current, served.previous, *([rollout.version] if rollout else [])):
            if not ref:
                continue
            manifest = packages.manifest(version_digest(unit, ref))
            features = msgspec.convert(manifest.get("features") or [], tuple[FeatureSpec, ...])
            read = feature_columns(features, source, str(manifest.get("rows") or ""))
            for view in msgspec.convert(manifest.get("views") or [], tuple[ViewSpec, ...]):
                read |= view_columns(view) if view.source == source else set()
            yield from ((ref, name) for name in sorted(read))
