"""The record of a prediction: everything that its receipt needs, and no pii value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flyball.define.expression import columns_of, leaves
from flyball.define.spec import FeatureSpec
from flyball.kernel.errors import FlyballError
from flyball.serving.manifest import Manifest
from flyball.serving.privacy import pii_digest

LARGE = 1024  # numbers of a tensor that a record keeps; of a larger one it keeps shape and type


@dataclass(frozen=True, kw_only=True, slots=True)
class Privacy:
    """Which request fields and features of a version hold pii, by name."""

    fields: frozenset[str]
    features: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest, pii: Iterable[str]) -> Privacy:
        fields = frozenset(pii) | {column.name for column in manifest.inputs if column.pii}
        columns = {s.name: {c.name for c in s.columns if c.pii} for s in manifest.sources}
        columns[manifest.rows] = columns.get(manifest.rows, set()) | fields
        private = {spec.name for spec in manifest.features if _reads_pii(spec, manifest, columns)}
        return cls(fields=fields, features=frozenset(private))

    def hide(self, values: Mapping[str, Any], key: bytes) -> dict[str, Any]:
        """Request fields with those that hold pii as keyed digests."""
        if self.fields.isdisjoint(values):
            return dict(values)
        return {name: pii_digest(key, v) if name in self.fields else v for name, v in values.items()}

    def digest(self, value: float, key: bytes) -> Any:
        """The digest of a feature's value; null for NaN."""
        return pii_digest(key, value) if math.isfinite(value) else None


def _reads_pii(spec: FeatureSpec, manifest: Manifest, columns: Mapping[str, set[str]]) -> bool:
    """Whether a feature shows a pii column: of the row itself, or through a view over one."""
    for leaf in leaves(spec.expr):
        if leaf[0] == "col" and leaf[2] in columns.get(leaf[1], set()):
            return True
        if leaf[0] == "view":
            view = next((v for v in manifest.views if v.name == leaf[1]), None)
            if view is None:
                continue
            shown = {latest.column for latest in view.latest if latest.name == leaf[2]}
            for aggregate in view.aggregates:
                if aggregate.name == leaf[2] and aggregate.op != "count" and aggregate.value is not None:
                    shown |= columns_of(aggregate.value, view.source)
            if shown & columns.get(view.source, set()):
                return True
    return False


def error_data(error: FlyballError) -> dict[str, str]:
    """What a record keeps of an error: messages of models may hold values, so theirs is left out."""
    return {"code": error.code, "kind": error.kind.value}


def tensor_data(value: Any) -> Any:
    """A tensor as a record keeps it."""
    if value.size > LARGE:
        return {"shape": list(value.shape), "datatype": str(value.dtype)}
    return value.tolist()
