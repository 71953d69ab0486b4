"""How far an erasure reaches: the columns in which a value may stand, of the sources that it may have come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from flyball.define.derive import inputs_of
from flyball.define.spec import ExprData, SourceSpec
from flyball.kernel.errors import NotFoundError, did_you_mean
from flyball.loop.ports import Unit

Sources = Mapping[str, SourceSpec]
_PASSING = ("coalesce", "minimum", "maximum", "abs", "neg", "floor")  # operators that may give one of their arguments


def declared(unit: Unit) -> Sources:
    """The sources that there are or were, by their names, each with all the columns that it ever had: what they took
    stays in their tables."""
    found: dict[str, SourceSpec] = {}
    for source in (*unit.projects.declarations(), *(s for project in unit.projects.all() for s in project.sources)):
        names = {column.name for column in source.columns}
        before = found[source.name].columns if source.name in found else ()
        former = tuple(column for column in before if column.name not in names)
        found[source.name] = msgspec.structs.replace(source, columns=(*source.columns, *former))
    return found


def with_derived(columns: Sequence[tuple[str, str]], sources: Sources) -> list[tuple[str, str]]:
    """The columns, and those that derived sources have them in: of their parent, and of what they look up.

    Each source comes after those that it is derived from: erased in this order, nothing brings a value back.

    Raises `NotFoundError` (`source_not_found`, `column_not_found`).
    """
    found = dict.fromkeys(columns)
    for name, column in found:
        spec = source_named(sources, name)
        names = [c.name for c in spec.columns]
        if column not in names:
            raise NotFoundError(
                f"source {name} has no column {column!r}: {did_you_mean(column, names)}", code="column_not_found"
            )
    depth = {name: _depth(name, sources) for name in sources}
    for spec in sorted(sources.values(), key=lambda spec: (depth[spec.name], spec.name)):
        for source, column in list(found):
            found |= dict.fromkeys((spec.name, name) for name in _copies(spec, source, column))
    return sorted(found, key=lambda place: depth[place[0]])


def source_named(sources: Sources, name: str) -> SourceSpec:
    if name not in sources:
        raise NotFoundError(f"there is no source {name!r}: {did_you_mean(name, sources)}", code="source_not_found")
    return sources[name]


def _depth(name: str, sources: Sources) -> int:
    spec = sources.get(name)
    return 0 if spec is None or spec.derive is None else 1 + max(_depth(one, sources) for one in inputs_of(spec))


def _copies(spec: SourceSpec, source: str, column: str) -> Iterator[str]:
    """The columns of a derived source that values of `column` may come to."""
    if spec.derive is None:
        return
    added = {one.name: one.expr for one in spec.derive.columns}
    if spec.derive.source == source and column not in added and column in {c.name for c in spec.columns}:
        yield column
    looked_up = {
        (view.name, feature.name)
        for view in spec.derive.views
        for feature in view.latest
        if view.source == source and feature.column == column
    }
    for name, expr in added.items():
        for leaf in _passed(expr):
            here = leaf[0] == "col" and (leaf[1], leaf[2]) == (spec.derive.source, column) and leaf[1] == source
            if here or (leaf[0] == "view" and (leaf[1], leaf[2]) in looked_up):
                yield name


def _passed(expr: ExprData) -> Iterator[ExprData]:
    """The leaves whose values an expression may give as they are."""
    if expr[0] in ("col", "view"):
        yield expr
    elif expr[0] in _PASSING or expr[0] == "where":
        for argument in expr[2 if expr[0] == "where" else 1 :]:
            yield from _passed(argument)
