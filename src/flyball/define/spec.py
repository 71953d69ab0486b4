"""Declarations as data: what a compiled project is made of, what travels, and what every other room works from.

The user's language (`Source`, `WindowView`, `model`, …) compiles into these frozen structures; a process of the
platform never imports a user's project. All times and durations are integers in microseconds. Names are unique within
their kind across the platform.

Expressions are nested lists, `[op, argument, …]`, as `flyball.define.expression` documents.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from flyball.kernel.ids import digest

ExprData = list[Any]
ColumnType = Literal["string", "category", "decimal", "float", "integer", "boolean", "timestamp"]
ValueType = Literal["string", "category", "decimal", "float", "integer", "boolean", "timestamp"]
AggregateOp = Literal["count", "sum", "mean", "std", "min", "max", "first", "last", "nth_last", "distinct"]
Action = Literal["reject_row", "reject_batch", "warn"]

KERNEL_VERSION = 2  # part of every view's hash: raised when the kernel's meaning changes


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all declarations: immutable, equal by value, hashable by `hash`."""

    def to_data(self) -> dict[str, Any]:
        """Plain data without what equals its default, so that a new field with a default changes no digest."""
        return {
            field.name: _plain(value)
            for field in msgspec.structs.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    @property
    def hash(self) -> str:
        """SHA-256 of the declaration, in hex."""
        return digest(self.to_data())


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_data()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


class ColumnSpec(Spec, frozen=True, kw_only=True):
    """A column of a source. `scale` is a decimal's digits after the point; bounds are inclusive (`ge`, `le`) or not."""

    name: str
    type: ColumnType
    nullable: bool = False
    categories: tuple[str, ...] = ()
    scale: int = 0
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    pattern: str = ""
    max_length: int | None = None
    pii: bool = False
    sensitive: bool = False
    description: str = ""
    on_violation: Action = "reject_row"


class KnownSpec(Spec, frozen=True, kw_only=True):
    """When history was known: `live` (by its LSN only), `delay` after the event, or at a `column`'s time."""

    kind: Literal["live", "delay", "column"] = "live"
    delay: int = 0
    column: str = ""
    unit: Literal["s", "ms", "us", "iso"] = "us"


class RuleSpec(Spec, frozen=True, kw_only=True):
    """A rule of a source's contract beyond one column's type and bounds.

    `check`: `expr` is not false for a row (null passes). `unique`: no two rows of a batch are alike in `columns`.
    `fresh`: the newest event of a batch is at most `max_age` old when it comes. `volume`: a batch has `min_rows` to
    `max_rows` rows. A rule over a batch knows `reject_batch` and `warn` only.
    """

    name: str
    kind: Literal["check", "unique", "fresh", "volume"]
    expr: ExprData | None = None
    columns: tuple[str, ...] = ()
    max_age: int = 0
    min_rows: int = 0
    max_rows: int | None = None
    action: Action = "reject_row"


class OriginSpec(Spec, frozen=True, kw_only=True):
    """Where a source's events are pulled from: rows of `query` in a database, in the order of `cursor`.

    `dsn` names a secret, never its value. `lag` is how far behind the newest cursor value each pull starts again, for
    rows that were committed out of order; keys make that idempotent.
    """

    kind: Literal["sql"] = "sql"
    dsn: str = ""
    query: str = ""
    cursor: str = ""
    every: int = 60_000_000
    lag: int = 0


class DerivedColumnSpec(Spec, frozen=True, kw_only=True):
    """A column of a derived source: an expression over the parent's columns and latest views, as known."""

    name: str
    expr: ExprData


class DeriveSpec(Spec, frozen=True, kw_only=True):
    """A source computed from another: the events of `source` for which `where` holds, with more `columns`.

    A column reads latest views (as `["view", …]` leaves, by the names of `views`) as they were known when the parent's
    event was: of the view's events those with an event time before the parent's, known by the time it was known. So the
    result is a function of the log, and is built again by ranges of the parent's LSNs. The views stand here whole: a
    derivation is complete in itself, and its hash is in the name of its source (`BigTrips@1f2e3d4c`).
    """

    source: str
    where: ExprData | None = None
    columns: tuple[DerivedColumnSpec, ...] = ()
    views: tuple[ViewSpec, ...] = ()


class SourceSpec(Spec, frozen=True, kw_only=True):
    """A stream of events. `key` names the columns that identify an event; empty: a digest of the whole row.

    Of events with one key the first counts; with `corrections` a later one takes its place from when it is known, and
    one marked `_deleted` takes it away.
    """

    name: str
    columns: tuple[ColumnSpec, ...]
    event_time: str
    event_time_unit: Literal["s", "ms", "us", "iso"] = "us"
    key: tuple[str, ...] = ()
    known: KnownSpec = KnownSpec()
    skew: int = 5_000_000
    lateness: int = 86_400_000_000
    retention: int | None = None
    owner: str = ""
    description: str = ""
    corrections: bool = False
    rules: tuple[RuleSpec, ...] = ()
    origin: OriginSpec | None = None
    derive: DeriveSpec | None = None

    def column(self, name: str) -> ColumnSpec:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


class AggregateSpec(Spec, frozen=True, kw_only=True):
    """One window feature: `op` over `value` (None for count) of the events where `where` is true, within `window`.

    `type` is the type of the finished value; `default` is what a row gets when nothing was seen (None: null).
    `nth` is of `nth_last` (1: the newest value in the window); `cap` is of `distinct`, which counts exactly up to it.
    """

    name: str
    op: AggregateOp
    value: ExprData | None = None
    where: ExprData | None = None
    window: int
    hop: int
    type: ValueType = "float"
    scale: int = 0
    default: float | None = None
    nth: int = 1
    cap: int = 1000


class LatestSpec(Spec, frozen=True, kw_only=True):
    """One latest-value feature: the column's value in the entity's newest event by (event_time, lsn)."""

    name: str
    column: str
    type: ValueType
    scale: int = 0
    categories: tuple[str, ...] = ()
    default: float | str | None = None


class ViewSpec(Spec, frozen=True, kw_only=True):
    """A window view or a latest view over one source. `entity`: columns of the source; empty means global."""

    name: str
    kind: Literal["window", "latest"]
    source: str
    entity: tuple[str, ...] = ()
    aggregates: tuple[AggregateSpec, ...] = ()
    latest: tuple[LatestSpec, ...] = ()
    where: ExprData | None = None
    ttl: int | None = None
    description: str = ""

    @property
    def definition(self) -> str:
        """The hash under which online state is kept: the meaning of the view, not its name or description."""
        data = self.to_data()
        data.pop("name")
        data.pop("description", None)
        return digest([KERNEL_VERSION, data])

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.aggregates) + tuple(c.name for c in self.latest)


class FeatureSpec(Spec, frozen=True, kw_only=True):
    """One input of a model, as an expression over its leaves; `name` is its column in the matrix."""

    name: str
    expr: ExprData
    type: ValueType = "float"
    categories: tuple[str, ...] = ()


class AnyLabelSpec(Spec, frozen=True, kw_only=True):
    """True where `source` has an event whose `on` equals the row's `rows_on` within `within` after the row's time."""

    source: str
    on: str
    rows_on: str
    within: int
    where: ExprData | None = None


class LabelSpec(Spec, frozen=True, kw_only=True):
    """Exactly one of `expr` (over the row itself) and `any` is set. `matures`: how long after the row it is certain.

    `given` names the columns of `expr` that are known when a prediction is asked for, and may be features.
    """

    expr: ExprData | None = None
    any: AnyLabelSpec | None = None
    matures: int = 0
    given: tuple[str, ...] = ()


class TaskSpec(Spec, frozen=True, kw_only=True):
    kind: Literal["binary", "multiclass", "regression"]
    classes: tuple[str, ...] = ()
    metric: str = ""  # the one that gates and triggers use; empty: the task's own default
    threshold: float = 0.5


class SplitSpec(Spec, frozen=True, kw_only=True):
    kind: Literal["time"] = "time"
    test: float = 0.2


class ModelSpec(Spec, frozen=True, kw_only=True):
    """A trained model (`module` and `function` name the training function), a pretrained file (`pretrained`), one that
    is served elsewhere (`external`), or, with none of these, features alone.

    `rows` names the source, or the request, whose columns a request brings; `request` are the columns that no source
    has, under that name.
    """

    name: str
    task: TaskSpec | None = None
    rows: str = ""
    request: tuple[ColumnSpec, ...] = ()
    label: LabelSpec | None = None
    features: tuple[FeatureSpec, ...] = ()
    split: SplitSpec = SplitSpec()
    module: str = ""
    function: str = ""
    pretrained: str = ""  # the file's name
    pretrained_digest: str = ""  # its SHA-256; the bytes are an artifact
    external: bool = False
    owner: str = ""
    description: str = ""


class LoadSpec(Spec, frozen=True, kw_only=True):
    rps: float | None = None
    p99: int | None = None


class RolloutSpec(Spec, frozen=True, kw_only=True):
    """`full`, or `canary` by percentages; `hold` is domain time per step, `alpha` the rate of false aborts."""

    kind: Literal["full", "canary"] = "full"
    steps: tuple[float, ...] = ()
    hold: int = 600_000_000
    min_requests: int = 50
    alpha: float = 0.01


class TriggerSpec(Spec, frozen=True, kw_only=True):
    kind: Literal["every", "drift", "quality_drop"]
    every: int = 0
    metric: str = ""
    drop: float = 0.0


class RetrainSpec(Spec, frozen=True, kw_only=True):
    on: tuple[TriggerSpec, ...] = ()
    cooldown: int = 21_600_000_000
    review: Literal["auto", "manual"] = "auto"


class ServiceSpec(Spec, frozen=True, kw_only=True):
    """`max_staleness`: how far online state may be behind before replies say so. `views`: `required` answers the
    service's default, not the model's, where online state cannot be read. `max_skew`: the largest rate of served values
    that differ from their recomputation, at 95 % confidence, with which a version may be released; None: any.
    `deadline` in microseconds; None: it follows from the load's p99."""

    name: str
    model: str
    load: LoadSpec = LoadSpec()
    rollout: RolloutSpec = RolloutSpec()
    default: float | str | None = None
    retrain: RetrainSpec | None = None
    log: Literal["async", "durable"] = "async"
    max_staleness: int = 3_600_000_000
    views: Literal["optional", "required"] = "optional"
    owner: str = ""
    description: str = ""
    max_skew: float | None = None
    deadline: int | None = None
    max_batch: int = 1024
    cache: bool = False
    older: bool = False


class BatchSpec(Spec, frozen=True, kw_only=True):
    """Scores the rows of source `rows` with `model` every `every`, into the lake's table `output`."""

    name: str
    model: str
    rows: str
    every: int
    output: str
    owner: str = ""


class ProjectSpec(Spec, frozen=True, kw_only=True):
    """A whole compiled project. `bundle` is the digest of its training code; `secrets` are names, never values."""

    name: str
    sources: tuple[SourceSpec, ...] = ()
    views: tuple[ViewSpec, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    services: tuple[ServiceSpec, ...] = ()
    batches: tuple[BatchSpec, ...] = ()
    secrets: tuple[str, ...] = ()
    bundle: str = ""
    owner: str = ""

    def source(self, name: str) -> SourceSpec:
        return next(s for s in self.sources if s.name == name)

    def view(self, name: str) -> ViewSpec:
        return next(v for v in self.views if v.name == name)

    def model(self, name: str) -> ModelSpec:
        return next(m for m in self.models if m.name == name)

    def service(self, name: str) -> ServiceSpec:
        return next(s for s in self.services if s.name == name)


def project_from_data(data: dict[str, Any]) -> ProjectSpec:
    """Rebuild a project from `to_data()`; raises `msgspec.ValidationError` where it is not one."""
    return msgspec.convert(data, ProjectSpec)
