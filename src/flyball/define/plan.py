"""The plan between two projects: what is added, changed and removed, and what each change will cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from flyball.define import effect, evolution
from flyball.define.spec import ProjectSpec, Spec

Action = Literal["add", "change", "remove"]
Kind = Literal["project", "source", "view", "model", "service", "batch"]

KINDS: tuple[tuple[Kind, str], ...] = (
    ("source", "sources"),
    ("view", "views"),
    ("model", "models"),
    ("service", "services"),
    ("batch", "batches"),
)


class FieldChange(Spec, frozen=True, kw_only=True):
    """One field, by its path (`columns.fare.le`); None where it was not, or is no more."""

    field: str
    before: Any = None
    after: Any = None


class Change(Spec, frozen=True, kw_only=True):
    """One declaration that differs. A change that cannot be made says why in `refused`."""

    action: Action
    kind: Kind
    name: str
    fields: tuple[FieldChange, ...] = ()
    causes: tuple[str, ...] = ()
    refused: str = ""


class Plan(Spec, frozen=True, kw_only=True):
    """What `apply` will do: `base` is the hash of the project it starts from, empty where there is none."""

    project: str
    base: str
    spec: ProjectSpec
    changes: tuple[Change, ...] = ()

    @property
    def refused(self) -> tuple[Change, ...]:
        return tuple(c for c in self.changes if c.refused)


def make_plan(old: ProjectSpec | None, new: ProjectSpec) -> Plan:
    """The plan from what is applied to what is declared; pure."""
    return Plan(project=new.name, base=old.hash if old else "", spec=new, changes=tuple(diff(old, new)))


def plan_from_data(data: dict[str, Any]) -> Plan:
    """Rebuild a plan from `to_data()`; raises `msgspec.ValidationError` where it is not one."""
    return msgspec.convert(data, Plan)


def diff(old: ProjectSpec | None, new: ProjectSpec) -> list[Change]:
    """What differs: the project, then what is added or changed from sources to batches, then what is removed, back."""
    before = old or ProjectSpec(name=new.name)
    changes = _project(before, new) if old else []
    removed: list[Change] = []
    for kind, field in KINDS:
        was = {item.name: item for item in getattr(before, field)}
        now = {item.name: item for item in getattr(new, field)}
        for name, item in now.items():
            change = _compared(kind, was.get(name), item, before, new)
            if change is not None:
                changes.append(change)
        gone = [name for name in was if name not in now]
        removed[:0] = [_removed(kind, name, was[name]) for name in gone]
    return changes + removed


def _project(old: ProjectSpec, new: ProjectSpec) -> list[Change]:
    fields = tuple(
        FieldChange(field=name, before=getattr(old, name), after=getattr(new, name))
        for name in ("owner", "secrets", "bundle")
        if getattr(old, name) != getattr(new, name)
    )
    if not fields:
        return []
    code = any(f.field == "bundle" for f in fields)
    causes = ("later training runs execute the new code",) if code else ()
    return [Change(action="change", kind="project", name=new.name, fields=fields, causes=causes)]


def _compared(kind: Kind, was: Any, now: Any, old: ProjectSpec, new: ProjectSpec) -> Change | None:
    if was is None:
        return Change(action="add", kind=kind, name=now.name, causes=_ADDED[kind](now, new))
    fields = tuple(fields_of(was.to_data(), now.to_data()))
    causes = _CHANGED[kind](was, now, old, new)
    refused = evolution.refusal(was, now, old) if kind == "source" else ""
    if not (fields or causes):
        return None
    return Change(action="change", kind=kind, name=now.name, fields=fields, causes=causes, refused=refused)


def _removed(kind: Kind, name: str, was: Any) -> Change:
    return Change(action="remove", kind=kind, name=name, causes=(effect.removed(kind, was),))


_ADDED: dict[Kind, Callable[[Any, ProjectSpec], tuple[str, ...]]] = {
    "source": effect.source_added,
    "view": effect.view_added,
    "model": effect.model_added,
    "service": effect.service_added,
    "batch": effect.batch_added,
}
_CHANGED: dict[Kind, Callable[[Any, Any, ProjectSpec, ProjectSpec], tuple[str, ...]]] = {
    "source": effect.source_changed,
    "view": effect.view_changed,
    "model": effect.model_changed,
    "service": effect.service_changed,
    "batch": effect.batch_changed,
}


def fields_of(before: Any, after: Any, path: str = "") -> Iterable[FieldChange]:
    """Where two pieces of plain data differ; lists of named things are compared by name."""
    if before == after:
        return
    left, right = _by_name(before), _by_name(after)
    if left is None or right is None:
        yield FieldChange(field=path, before=before, after=after)
        return
    for name in [*left, *(n for n in right if n not in left)]:
        inner = f"{path}.{name}" if path else name
        if name in left and name in right:
            yield from fields_of(left[name], right[name], inner)
        else:
            yield FieldChange(field=inner, before=left.get(name), after=right.get(name))
    if list(left) != list(right) and set(left) == set(right):
        yield FieldChange(field=f"{path}.order" if path else "order", before=list(left), after=list(right))


def _by_name(data: Any) -> dict[str, Any] | None:
    if isinstance(data, dict):
        return data
    if isinstance(data, (list, tuple)) and data and all(isinstance(i, dict) and "name" in i for i in data):
        return {item["name"]: item for item in data}
    return None
