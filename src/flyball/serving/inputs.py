"""The fields of a request: which ones a version takes. Their values are read, by type, where features are computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flyball.define.spec import ColumnSpec
from flyball.kernel.errors import InvalidError, did_you_mean

Row = dict[str, Any]


class RowCheck:
    """The check of a version's rows. A row that has every column, no null and no other field passes as it is."""

    __slots__ = ("_columns", "_ignore", "_keep", "_names")

    def __init__(self, columns: Sequence[ColumnSpec], *, keep: Collection[str], ignore: Collection[str]) -> None:
        self._columns = tuple(columns)
        self._names = frozenset(column.name for column in columns)
        self._keep = frozenset(keep)
        self._ignore = frozenset(ignore)

    def __call__(self, row: Any) -> Row:
        """Raises what `check_row` raises, and `bad_rows` for what is no object."""
        check_object(row)
        if type(row) is dict and row.keys() == self._names and _PLAIN.issuperset(map(type, row.values())):
            return row
        return check_row(self._columns, row, keep=self._keep, ignore=self._ignore)


_PLAIN = frozenset((str, int, float, bool))


def check_object(row: Any) -> None:
    """Raises `bad_rows` for a row that is none."""
    if not isinstance(row, Mapping):
        raise InvalidError("a row must be an object of fields and values", code="bad_rows")


def check_row(
    columns: Sequence[ColumnSpec],
    row: Mapping[str, Any],
    *,
    keep: Collection[str] = (),
    ignore: Collection[str] = (),
) -> Row:
    """The row with every declared column, None for null.

    `keep` names plain fields that may stand beside the columns, `ignore` those that are dropped. Messages name fields,
    never values. Raises InvalidError: `missing_field`, `unknown_field`, `bad_field`.
    """
    checked: Row = {}
    for column in columns:
        value = row.get(column.name)
        if value is None and not column.nullable:
            raise _error(
                f"the field {column.name!r} ({column.type}) is missing; it may not be null",
                "missing_field",
                column.name,
            )
        checked[column.name] = value
    for name, value in row.items():
        if name in checked or name in keep:
            if isinstance(value, list | dict):
                raise _error(f"the field {name!r} must be a plain value", "bad_field", name)
            checked[name] = value
        elif name not in ignore:
            known = {column.name for column in columns} | set(keep)
            raise _error(f"the request has no field {name!r}: {did_you_mean(name, known)}", "unknown_field", name)
    return checked


def _error(message: str, code: str, name: str) -> InvalidError:
    return InvalidError(message, code=code, details={"field": name})
