"""What can be asked about views: what there is and who uses it, what is behind a value, and how to leave with SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from flyball.define.expression import leaves
from flyball.define.spec import ColumnSpec, ModelSpec, ProjectSpec, SourceSpec, ViewSpec
from flyball.features.arrival import SEALED
from flyball.features.explain import HIDDEN, Moment, explain
from flyball.features.ports import EventSlices
from flyball.features.recompute import Definition, Seal
from flyball.features.request import physical
from flyball.features.sql import From, table_expression, view_sql
from flyball.kernel.errors import InvalidError, NotFoundError, did_you_mean
from flyball.kernel.times import show_duration
from flyball.loop.ports import IngestClient, Packages, Unit
from flyball.loop.publish import services, version_digest

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
    packages: Packages,
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
    """`features.explain` of a view by its name: for a time by today's definition, with what online state says of it; or
    for a prediction by the definition that its version was served with, with the value that its reply logged."""
    if record is None:
        project, view = view_of(unit, name)
        source = project.source(view.source)
        check_entity([source.column(column) for column in view.entity], entity, name)
        ingest.flush([source.name])
        found = explain(view, source, feature, entity, Moment(at=at), history, seal=seal)
        return found | {"online": online(view, source, feature, entity, at) if online is not None else None}
    definition = _served_with(unit, packages, record, name)
    view = definition.view(name)
    source = definition.source(view.source)
    by = _looked_up_by(definition, name, feature, str(record["version"]))
    brought = {column.name: column for column in definition.columns}
    columns = [brought[column] for column in by]
    entity = entity or {column: (record.get("inputs") or {}).get(column) for column in by}
    lsn, through = record.get("lsn") or {}, record.get("known_through") or {}
    moment = Moment(at=int(record["at"]), lsn=lsn.get(source.name), known_through=through.get(source.name))
    check_entity(columns, entity, name)
    if any(known.name == source.name for project in unit.projects.all() for known in project.sources):
        ingest.flush([source.name])  # of one that left its project, the lake has what there was
    found = explain(view, source, feature, entity, moment, history, columns=columns, seal=seal)
    value = logged_value(definition, record, name, feature) | found["value"]
    return found | {"value": value, "prediction": record["id"], "version": record["version"]}


def _served_with(unit: Unit, packages: Packages, record: Mapping[str, Any], view: str) -> Definition:
    """What the version of a prediction computes its features from, if it reads the view."""
    ref = str(record["version"])
    if not ref.rpartition("/")[2].isdigit():
        raise InvalidError(
            f"the prediction {record['id']} was answered without a version, so no feature was read for it",
            code="prediction_without_version",
            hint="without --prediction, --at explains the value at that time",
        )
    definition = Definition.of(packages.manifest(version_digest(unit, ref)))
    names = [known.name for known in definition.views]
    if view not in names:
        near = did_you_mean(view, names) if names else "it reads no view"
        raise InvalidError(f"the version {ref} does not read a view {view!r}: {near}", code="view_not_read")
    return definition


def logged_value(definition: Definition, record: Mapping[str, Any], view: str, feature: str) -> dict[str, Any]:
    """`logged`: the value as the reply's record has it; empty where it has it only as a part of other features."""
    logged = record.get("features") or {}
    for spec in definition.features:
        if spec.expr[:3] == ["view", view, feature] and spec.name in logged:
            value = logged[spec.name]
            if isinstance(value, str) and value.startswith(SEALED):
                return {"logged": HIDDEN}
            code = int(value) if spec.categories and value is not None else -1
            return {"logged": spec.categories[code] if 0 <= code < len(spec.categories) else value}
    return {}


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


def _looked_up_by(definition: Definition, view: str, feature: str, version: str) -> list[str]:
    found = [leaf for f in definition.features for leaf in leaves(f.expr) if leaf[0] == "view" and leaf[1] == view]
    mine = next((leaf for leaf in found if leaf[2] == feature), found[0] if found else None)
    if mine is None:
        raise InvalidError(f"the version {version} does not read the view {view}", code="view_not_read")
    return list(mine[3])


def _uses(model: ModelSpec, view: str, feature: str = "") -> bool:
    found = [leaf for f in model.features for leaf in leaves(f.expr) if leaf[0] == "view" and leaf[1] == view]
    return any(feature in ("", leaf[2]) for leaf in found)
