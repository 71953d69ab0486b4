"""The compiler: a project of the user's declarations becomes declarations as data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

from flyball.define.aggregate import Feature
from flyball.define.algebra import Expr
from flyball.define.column import Column
from flyball.define.derive import Derived, stem_of
from flyball.define.model import External, Model, Pretrained, Rows, expand, feature_specs
from flyball.define.module import module_of
from flyball.define.project import Project
from flyball.define.service import AnyModel, Batch, Service
from flyball.define.source import AnyEvent, Request, Source
from flyball.define.spec import (
    BatchSpec,
    ColumnSpec,
    FeatureSpec,
    ModelSpec,
    ProjectSpec,
    ServiceSpec,
    SourceSpec,
    Spec,
    ViewSpec,
)
from flyball.define.view import View
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import duration

T = TypeVar("T", bound=Spec)


def compile_project(project: Project, *, bundle: str = "") -> ProjectSpec:
    """Compile all that a project reaches.

    Args:
        bundle: the digest of its training code (`flyball.define.bundle`), where it was stored.

    Raises:
        InvalidError: two declarations share a name, or a pretrained file is missing.
    """
    return _Compiler().project(project, bundle)


def pretrained_files(project: Project) -> dict[str, Path]:
    """The files of pretrained models by their SHA-256: the artifacts that must be stored before a plan is applied."""
    models = [s.model for s in project.services] + [b.model for b in project.batches]
    return {_file_digest(m): m.path for m in models if isinstance(m, Pretrained)}


class _Compiler:
    """Collects what is reached, once each, and detects names that clash."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], object] = {}
        self._sources: dict[str, SourceSpec] = {}
        self._views: dict[str, ViewSpec] = {}
        self._models: dict[str, ModelSpec] = {}

    def project(self, project: Project, bundle: str) -> ProjectSpec:
        for source in project.sources:
            self._source(source)
        services = tuple(self._service(s) for s in project.services)
        batches = tuple(self._batch(b) for b in project.batches)
        return ProjectSpec(
            name=project.name,
            sources=_sorted(self._sources),
            views=_sorted(self._views),
            models=_sorted(self._models),
            services=tuple(sorted(services, key=lambda s: s.name)),
            batches=tuple(sorted(batches, key=lambda b: b.name)),
            secrets=tuple(sorted({s.name for s in project.secrets})),
            bundle=bundle,
            owner=project.owner,
        )

    def _claim(self, kind: str, name: str, declared: object) -> bool:
        """Whether a declaration is seen for the first time; two that share a name are refused."""
        known = self._objects.setdefault((kind, name), declared)
        if known is not declared:
            raise InvalidError(
                f"two {kind}s are called {name!r}: {_origin(known)} and {_origin(declared)}; rename one",
                code="duplicate_name",
            )
        return known is declared

    def _source(self, source: type[Source]) -> None:
        self._claim("source", source.__name__, source)
        self._sources[source.__name__] = source._spec
        if issubclass(source, Derived):
            self._claim("source", stem_of(source.__name__), source)  # two definitions under one name are a mistake
            self._source(source._parent)
            for leaf in (leaf for expr in source._reads for leaf in expr.leaves() if isinstance(leaf, Feature)):
                self._source(leaf.view._source)

    def _view(self, view: type[View]) -> None:
        self._claim("view", view.__name__, view)
        self._views[view.__name__] = view._spec
        self._source(view._source)

    def _expression(self, expr: Expr) -> None:
        for leaf in expr.leaves():
            if isinstance(leaf, Feature):
                self._view(leaf.view)
            elif isinstance(leaf, Column) and issubclass(leaf.owner, Source):
                self._source(leaf.owner)

    def _features(self, features: tuple[tuple[str, Expr], ...]) -> tuple[FeatureSpec, ...]:
        for _, expr in features:
            self._expression(expr)
        return feature_specs(features)

    def _rows(self, rows: Rows | None) -> str:
        if rows is None:
            return ""
        if issubclass(rows, Source):
            self._source(rows)
        return rows.__name__

    def _service(self, service: Service) -> ServiceSpec:
        self._claim("service", service.name, service)
        if service.model is None:
            model = self._features_only(service)
        else:
            model = self._model(service.model, service.name)
        return ServiceSpec(
            name=service.name,
            model=model,
            load=service.load,
            rollout=service.rollout,
            default=float(service.default) if isinstance(service.default, (int, float)) else service.default,
            retrain=service.retrain,
            log=service.log,
            max_staleness=duration(service.max_staleness),
            views=service.views,
            owner=service.owner,
            description=service.description,
            max_skew=None if service.max_skew is None else float(service.max_skew),
            deadline=None if service.deadline is None else duration(service.deadline),
            max_batch=service.max_batch,
            cache=service.cache,
            older=service.older,
        )

    def _batch(self, batch: Batch) -> BatchSpec:
        self._claim("batch", batch.name, batch)
        self._source(batch.rows)
        return BatchSpec(
            name=batch.name,
            model=self._model(batch.model, batch.name),
            rows=batch.rows.__name__,
            every=duration(batch.every),
            output=batch.output or batch.name.replace("-", "_"),
            owner=batch.owner,
        )

    def _features_only(self, service: Service) -> str:
        name = service.name.replace("-", "_")
        self._claim("model", name, service)
        features = expand(service.features, f"service {service.name!r}")
        self._models[name] = ModelSpec(
            name=name,
            rows=self._rows(service.rows),
            request=_request(service.rows, features),
            features=self._features(features),
            owner=service.owner,
        )
        return name

    def _model(self, model: AnyModel, service: str) -> str:
        if isinstance(model, Model):
            spec = self._trained(model)
        elif isinstance(model, Pretrained):
            spec = self._untrained(model, model.name)
        else:
            spec = self._untrained(model, model.name or service.replace("-", "_"))
        self._claim("model", spec.name, model)
        self._models[spec.name] = spec
        return spec.name

    def _trained(self, model: Model) -> ModelSpec:
        self._source(model.rows)
        if isinstance(model.label.of, AnyEvent):
            self._source(model.label.of.source)
        else:
            self._expression(model.label.of)
        known = model.rows._spec.known
        return ModelSpec(
            name=model.name,
            task=model.task,
            rows=model.rows.__name__,
            request=_request(None, model.features),
            label=model.label.to_spec(known.delay if known.kind == "delay" else 0),
            features=self._features(model.features),
            split=model.split,
            module=module_of(model.function),
            function=model.function.__qualname__,
            owner=model.owner,
            description=" ".join((model.function.__doc__ or "").strip().split("\n\n")[0].split()),
        )

    def _untrained(self, model: Pretrained | External, name: str) -> ModelSpec:
        features = expand(model.features, f"model {name!r}")
        file = isinstance(model, Pretrained)
        return ModelSpec(
            name=name,
            task=model.task,
            rows=self._rows(model.rows),
            request=_request(model.rows, features),
            features=self._features(features),
            pretrained=model.path.name if isinstance(model, Pretrained) else "",
            pretrained_digest=_file_digest(model) if isinstance(model, Pretrained) else "",
            external=not file,
            owner=model.owner,
            description=model.description,
        )


def _request(rows: Rows | None, features: tuple[tuple[str, Expr], ...]) -> tuple[ColumnSpec, ...]:
    """The columns that only a request has: all of a request that is the rows, else those that features read."""
    if rows is not None and issubclass(rows, Request):
        return tuple(c.spec for c in rows._columns.values())
    leaves = (leaf for _, expr in features for leaf in expr.leaves())
    found = {c.name: c.spec for c in leaves if isinstance(c, Column) and issubclass(c.owner, Request)}
    return tuple(found.values())


def _sorted(specs: dict[str, T]) -> tuple[T, ...]:
    return tuple(specs[name] for name in sorted(specs))


def _origin(declared: object) -> str:
    """Where a declaration stands, for the message about a clash."""
    function = getattr(declared, "function", None)
    module = getattr(function or declared, "__module__", "")
    name = getattr(function or declared, "__qualname__", None)
    return f"{module}.{name}" if name else repr(type(declared).__name__)


def _file_digest(model: Pretrained) -> str:
    try:
        return hashlib.sha256(model.path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidError(
            f"the pretrained model {model.name!r} cannot be read: {model.path}: {error.strerror}",
            code="pretrained_missing",
            hint="give the file relative to the file that declares it",
        ) from None
