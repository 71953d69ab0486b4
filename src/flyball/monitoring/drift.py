"""Input drift: served features of a period against the version's training profile.

Numbers: the largest difference between the two distribution functions on the profile's bins (Kolmogorov-Smirnov).
Categories: half the sum of the differences between shares (total variation distance). Nulls are a share of their own
in both. The rule is a threshold that someone chose: it states no false-alarm rate, and is labelled uncalibrated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.kernel.times import DAY
from flyball.monitoring.ports import DriftPeriod


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftRule:
    """`period`: domain time in which served rows are counted together; `threshold` of the distance from which a
    feature has drifted; `min_rows` of a period, below which nothing is said."""

    period: int = DAY
    threshold: float = 0.2
    min_rows: int = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureDrift:
    feature: str
    distance: float
    test: str  # "ks" or "tvd"
    drifted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftReport:
    """The verdict on one period; `features` with the largest distance first."""

    start: int
    rows: int
    enough: bool
    features: tuple[FeatureDrift, ...]

    @property
    def drifted(self) -> bool:
        return any(feature.drifted for feature in self.features)

    @property
    def reason(self) -> str:
        """The verdict in words: what moved most, and by how much."""
        if not self.enough or not self.features:
            return f"{self.rows} rows are too few to say"
        top = self.features[0]
        moved = sum(feature.drifted for feature in self.features)
        more = f", and {moved - 1} more" if moved > 1 else ""
        return f"{top.feature} moved by {top.distance:.2f} ({top.test}){more}, on {self.rows} rows"

    def to_data(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "start": self.start,
            "rows": self.rows,
            "enough": self.enough,
            "drifted": self.drifted,
            "uncalibrated": True,
            "features": [
                {"feature": f.feature, "distance": round(f.distance, 6), "test": f.test, "drifted": f.drifted}
                for f in self.features
            ],
        }


def ks(reference: Sequence[float], served: Sequence[float]) -> float:
    """The largest difference between two cumulative shares over the same ordered bins.

    >>> ks([10, 10, 0], [0, 10, 10])
    0.5
    """
    a = b = 0.0
    largest = 0.0
    total_a, total_b = sum(reference), sum(served)
    if not total_a or not total_b:
        return 0.0
    for x, y in zip(reference, served, strict=True):
        a, b = a + x / total_a, b + y / total_b
        largest = max(largest, abs(a - b))
    return largest


def tvd(reference: Sequence[float], served: Sequence[float]) -> float:
    """Half the sum of the differences between shares.

    >>> tvd([1, 1], [1, 0])
    0.5
    """
    total_a, total_b = sum(reference), sum(served)
    if not total_a or not total_b:
        return 0.0
    return sum(abs(x / total_a - y / total_b) for x, y in zip(reference, served, strict=True)) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Binned:
    """A feature's counts: per bin (numbers) or per category, and of nulls."""

    counts: tuple[float, ...]
    nulls: float = 0.0
    categorical: bool = False

    def distance(self, other: Binned) -> float:
        """Between 0 and 1; a change in the share of nulls counts as a distance of its own."""
        total_a, total_b = sum(self.counts) + self.nulls, sum(other.counts) + other.nulls
        if not total_a or not total_b:
            return 0.0
        if self.categorical:
            return tvd([*self.counts, self.nulls], [*other.counts, other.nulls])
        return max(ks(self.counts, other.counts), abs(self.nulls / total_a - other.nulls / total_b))


def judge(
    reference: Mapping[str, Binned], served: Mapping[str, Binned], period: DriftPeriod, rule: DriftRule
) -> DriftReport:
    """Compare one period's counts with the reference, feature by feature. Pure."""
    enough = period.rows >= rule.min_rows
    found = []
    for name, expected in reference.items():
        if name not in served:
            continue
        distance = expected.distance(served[name])
        drifted = enough and distance >= rule.threshold
        test = "tvd" if expected.categorical else "ks"
        found.append(FeatureDrift(feature=name, distance=distance, test=test, drifted=drifted))
    ranked = sorted(found, key=lambda feature: (-feature.distance, feature.feature))
    return DriftReport(start=period.start, rows=period.rows, enough=enough, features=tuple(ranked))


def newest(reports: Sequence[DriftReport]) -> DriftReport | None:
    """The newest period with enough rows to say something; it may still be filling."""
    return max((report for report in reports if report.enough), key=lambda report: report.start, default=None)


def binned_features(profile: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Binned]:
    """The features' counts in the bins of a profile, as `monitoring.profile` lays them out (nulls first)."""
    features: Mapping[str, Sequence[float]] = counts.get("features") or {}
    return {
        name: Binned(counts=tuple(features[name][1:]), nulls=features[name][0], categorical=bins["kind"] == "category")
        for name, bins in (profile.get("features") or {}).items()
        if name in features
    }
