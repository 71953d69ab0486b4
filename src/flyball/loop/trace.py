"""Which predictions hold an erased value: those whose request named it, or whose features show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.define.expression import columns_of, leaves
from flyball.define.subject import Matcher, Seal
from flyball.governance.erasure import Erasure, Target
from flyball.kernel.errors import FlyballError
from flyball.loop.ports import Packages, Unit
from flyball.loop.publish import version_digest
from flyball.loop.reach import Sources, declared, source_named

Hit = Callable[[dict[str, Any]], bool]
Holds = Callable[[Any], bool]
LOOKED_AT = ("key", "inputs", "features")  # the columns of a prediction that a `Hit` asks for; any may be missing


@dataclass(frozen=True, kw_only=True, slots=True)
class _Version:
    """The fields of requests to a version, and its features, that may hold the value; each with how to tell."""

    fields: tuple[tuple[str, Holds], ...] = ()
    features: tuple[tuple[str, Holds], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Tells the predictions of an erasure."""

    packages: Packages
    seal: Seal

    def hit(self, unit: Unit, erasure: Erasure, found: Sequence[str] = ()) -> Hit:
        """Whether a prediction is among the `found` (ids), or holds the value."""
        sources, ids = declared(unit), set(found)
        versions: dict[str, _Version] = {}

        def hit(row: dict[str, Any]) -> bool:
            brought = {**(row.get("key") or {}), **(row.get("inputs") or {})}
            shown = row.get("features") or {}
            if row["id"] in ids or any(isinstance(v, str) and v in erasure.digests for v in brought.values()):
                return True
            ref = str(row["version"])
            if ref not in versions:
                versions[ref] = self._version(unit, ref, erasure, sources)
            version = versions[ref]
            return any(holds(brought.get(name)) for name, holds in version.fields) or any(
                holds(shown.get(name)) for name, holds in version.features
            )

        return hit

    def _version(self, unit: Unit, ref: str, erasure: Erasure, sources: Sources) -> _Version:
        model, _, number = ref.rpartition("/")
        if not number.isdigit():
            return _Version()
        try:
            manifest = self.packages.manifest(version_digest(unit, f"{model}/{number}"))
        except FlyballError:
            return _Version()
        fields: list[tuple[str, Holds]] = []
        features: list[tuple[str, Holds]] = []
        for target in erasure.targets:
            matcher = Matcher(source_named(sources, target.source).column(target.column), erasure.digests, self.seal)
            fields += [(name, matcher.raw) for name in sorted(set(_fields(manifest, target)))]
            features += [(feature["name"], self._holds(feature, matcher)) for feature in _features(manifest, target)]
        return _Version(fields=tuple(fields), features=tuple(features))

    def _holds(self, feature: Mapping[str, Any], matcher: Matcher) -> Holds:
        """A feature is kept as a number: of a category, its place among the declared ones. Of pii it is sealed."""
        if not feature.get("categories"):
            return matcher.raw
        codes = [float(code) for code, text in enumerate(feature["categories"]) if matcher.raw(text)]
        wanted = {*codes, *(self.seal(code) for code in codes)}
        return lambda value: value in wanted


def _fields(manifest: Mapping[str, Any], target: Target) -> Iterator[str]:
    """The request fields of a version that hold a column: of its rows, or by which it looks up a view."""
    if manifest.get("rows") == target.source:
        yield target.column
    for view, leaf in _looked_up(manifest, target, manifest.get("features") or []):
        for by, column in zip(leaf[3], view.get("entity") or [], strict=False):
            if column == target.column:
                yield by


def _features(manifest: Mapping[str, Any], target: Target) -> Iterator[Mapping[str, Any]]:
    """The features of a version that are computed from a column: of one event alone, many are its value."""
    for feature in manifest.get("features") or []:
        shown = any(
            target.column == one.get("column")
            or target.column in columns_of(one.get("value") or ["lit"], target.source)
            for view, leaf in _looked_up(manifest, target, [feature])
            for one in (*(view.get("latest") or ()), *(view.get("aggregates") or ()))
            if one["name"] == leaf[2]
        )
        if shown or target.column in columns_of(feature["expr"], target.source):
            yield feature


def _looked_up(
    manifest: Mapping[str, Any], target: Target, features: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], list[Any]]]:
    """The views over a target's source that features read, each with the leaf that does."""
    views = {view["name"]: view for view in manifest.get("views") or []}
    for leaf in (leaf for feature in features for leaf in leaves(feature["expr"]) if leaf[0] == "view"):
        view = views.get(leaf[1])
        if view is not None and view["source"] == target.source:
            yield view, leaf
