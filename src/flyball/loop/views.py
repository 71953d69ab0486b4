"""What can be asked about views: what there is and who uses it, what is behind a value, and how to leave with SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from flyball.define.expression import leaves
from flyball.define.spec import ColumnSpec, ModelSpec, ProjectSpec, SourceSpec, ViewSpec
from flyball.features.arrival import SEALED
from flyball.features.explain import Moment, explain
from flyball.features.ports import EventSlices
from flyball.features.recompute import Seal
from flyball.features.request import physical
from flyball.features.sql import From, table_expression, view_sql
from flyball.kernel.errors import InvalidError, NotFoundError, did_you_mean
from flyball.kernel.times import show_duration
from flyball.loop.ports import IngestClient, Packages, Unit
from flyball.loop.publish import services, version_digest
from flyball.registry.manifest import request_columns

OnlineValue = Callable[[ViewSpec, SourceSpec, str, Mapping[str, Any], int], dict[str, Any]]
FROM: tuple[From, ...] = ("delta", "parquet", "table")


def views_data(unit: Unit, packages: Packages) -> list[dict[str, Any]]:
    """Every view of every project, with its features and where it is used."""
    projects = unit.projects.all()
    served = served_definitions(unit, packages, projects)
    return [
        view_data(view, project) | {"served_by": sorted(served.get(view.definition, set()))}
        for project in projects
        for view in project.views
    ]


def view_data(view: ViewSpec, project: ProjectSpec) -> dict[str, Any]:
    users = [model for model in project.models if _uses(model, view.name)]
    features: list[dict[str, Any]] = [
        {
            "name": a.name,
            "operator": a.op,
            "window": show_duration(a.window),
            "hop": show_duration(a.hop),
            "used_by": sorted(m.name for m in users if _uses(m, view.name, a.name)),
        }
        for a in view.aggregates
    ]
    features += [
        {"name": c.name, "operator": "latest", "used_by": sorted(m.name for m in users if _uses(m, view.name, c.name))}
        for c in view.latest
    ]
    return {
        "view": view.name,
        "project": project.name,
        "kind": view.kind,
        "source": view.source,
        "entity": list(view.entity),
        "ttl": None if view.ttl is None else show_duration(view.ttl),
        "definition": view.definition,
        "description": view.description,
        "features": features,
        "models": sorted(model.name for model in users),
    }


def served_definitions(unit: Unit, packages: Packages, projects: list[ProjectSpec]) -> dict[str, set[str]]:
    """Definition → the versions that are served with it; a version keeps the one it was trained with."""
    found: dict[str, set[str]] = {}
    for _, service in services(projects):
        served, rollout = unit.rollouts.served(service.name), unit.rollouts.open(service.name)
        for ref in filter(None, {served.current, rollout.version if rollout else ""}):
            for view in packages.manifest(version_digest(unit, ref)).get("views") or []:
                found.setdefault(msgspec.convert(view, ViewSpec).definition, set()).add(ref)
    return found


def view_of(unit: Unit, name: str) -> tuple[ProjectSpec, ViewSpec]:
    pairs = {view.name: (project, view) for project in unit.projects.all() for view in project.views}
    if name not in pairs:
        raise NotFoundError(
            f"there is no view {name!r}: {did_you_mean(name, pairs)}",
            code="view_not_found",
            hint="flyball features lists them",
        )
    return pairs[name]


def sql_of(unit: Unit, name: str, *, kind: str, table: str, lake: str) -> dict[str, Any]:
    """The query of a view. `table` is where its events are; empty: the lake's own table."""
    project, view = view_of(unit, name)
    if kind not in FROM:
        raise InvalidError(f"from is {kind!r}; {did_you_mean(kind, FROM)}", code="bad_from")
    if kind == "table" and not table:
        raise InvalidError("from=table needs the table's name", code="bad_from", hint="--from table --table NAME")
    place = table or f"{lake}/{view.source}"
    expression = table_expression(place, next(known for known in FROM if known == kind))
    return {"view": name, "sql": view_sql(view, project.source(view.source), table=expression)}


def explained(
    unit: Unit,
    name: str,
    feature: str,
    *,
    entity: Mapping[str, Any],
    at: int,
    record: Mapping[str, Any] | None,
    history: EventSlices,
    ingest: IngestClient,
    seal: Seal,
    online: OnlineValue | None,
) -> dict[str, Any]:
    """`features.explain` of a view by its name, for a time or for a prediction, with what online state says of it."""
    project, view = view_of(unit, name)
    source = project.source(view.source)
    columns: list[ColumnSpec] = []
    moment = Moment(at=at)
    if record is not None:
        model = project.model(str(record["version"]).rpartition("/")[0])
        by = _looked_up_by(model, name, feature)
        brought = {column.name: column for column in request_columns(model, project)}
        columns = [brought[column] for column in by]
        entity = entity or {column: (record.get("inputs") or {}).get(column) for column in by}
        lsn, through = record.get("lsn") or {}, record.get("known_through") or {}
        moment = Moment(at=int(record["at"]), lsn=lsn.get(source.name), known_through=through.get(source.name))
    check_entity(columns or [source.column(column) for column in view.entity], entity, name)
    ingest.flush([source.name])
    found = explain(view, source, feature, entity, moment, history, columns=columns, seal=seal)
    if record is not None:
        return found | {"prediction": record["id"]}
    return found | {"online": online(view, source, feature, entity, at) if online is not None else None}


def check_entity(columns: Sequence[ColumnSpec], entity: Mapping[str, Any], view: str) -> None:
    """Refuse an entity with other columns (`bad_entity`), or with values that are none of theirs (`bad_field`)."""
    names = [column.name for column in columns]
    unknown = [name for name in entity if name not in names]
    if unknown:
        raise InvalidError(
            f"the entity of {view} has no column {unknown[0]!r}: {did_you_mean(unknown[0], names)}", code="bad_entity"
        )
    missing = [name for name in names if name not in entity]
    if missing:
        needed = " ".join(f"--entity {name}=…" for name in names)
        raise InvalidError(f"the entity of {view} lacks {missing[0]!r}", code="bad_entity", hint=f"say {needed}")
    for column in columns:
        value = entity[column.name]
        sealed = column.pii and isinstance(value, str) and value.startswith(SEALED)
        if value is not None and not sealed:
            physical(column, value)


def _looked_up_by(model: ModelSpec, view: str, feature: str) -> list[str]:
    found = [leaf for f in model.features for leaf in leaves(f.expr) if leaf[0] == "view" and leaf[1] == view]
    mine = next((leaf for leaf in found if leaf[2] == feature), found[0] if found else None)
    if mine is None:
        raise InvalidError(f"the model {model.name} does not read the view {view}", code="view_not_read")
    return list(mine[3])


def _uses(model: ModelSpec, view: str, feature: str = "") -> bool:
    found = [leaf for f in model.features for leaf in leaves(f.expr) if leaf[0] == "view" and leaf[1] == view]
    return any(feature in ("", leaf[2]) for leaf in found)
