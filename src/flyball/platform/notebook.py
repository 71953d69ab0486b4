"""For notebooks: a project beside a running platform. `fb.open` is `open_platform`.

p = fb.open(project)
p.training_set(tip).to_pandas()
p.features("tip", company="Sun")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from flyball.client import Client
from flyball.client.rows import name_of
from flyball.define.compile import compile_project
from flyball.define.load import load_project
from flyball.define.project import Project
from flyball.define.spec import ColumnSpec, FeatureSpec, ModelSpec, ProjectSpec, project_from_data
from flyball.features import training_set
from flyball.features.assemble import leaf_requirements
from flyball.features.online import OnlineReader
from flyball.features.serving import FeatureServer
from flyball.features.training_set import AsOf
from flyball.kernel.errors import InvalidError, NotFoundError, UnavailableError, did_you_mean
from flyball.kernel.layout import Layout
from flyball.kernel.settings import ClientSettings, client_settings
from flyball.storage.events import LakeEvents
from flyball.storage.lake import DeltaLake
from flyball.storage.online import LmdbStore
from flyball.storage.predictions import LakeServed

if TYPE_CHECKING:
    import pandas as pd


def open_platform(project: Project | str | Path, *, state: str | Path = ".flyball") -> Notebook:
    """Look at a running platform, read only.

    Args:
        project: the declared project, its file, or a platform's address (`http://…`) to take what is applied there.
        state: the platform's state directory, for its token; its data is read from where the platform says it lies.

    Raises:
        UnavailableError: nothing answers, or the platform's data is on another machine.
    """
    settings = client_settings(state=Path(state))
    if isinstance(project, str) and project.startswith(("http://", "https://")):
        client = Client(ClientSettings(url=project.rstrip("/"), token=settings.token))
        return Notebook(client, applied(client))
    declared = project if isinstance(project, Project) else load_project(project)
    return Notebook(Client(settings), compile_project(declared))


def applied(client: Client) -> ProjectSpec:
    """The one project that a platform has; with several, the caller says which by its file."""
    names = client.status().get("projects") or []
    if len(names) != 1:
        raise InvalidError(
            f"the platform has {len(names)} projects; give the one that is meant as fb.open(project)",
            code="which_project",
            hint="flyball apply" if not names else "",
        )
    return project_from_data(client.project(names[0])["spec"])


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as a frame of the library that is at hand."""

    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height

    def to_polars(self) -> pl.DataFrame:
        return self.frame

    def to_pandas(self) -> pd.DataFrame:
        return self.frame.to_pandas()


class Notebook:
    """A project beside a running platform; may be used in a `with`."""

    def __init__(self, client: Client, project: ProjectSpec) -> None:
        self.client = client
        self.project = project
        folder = Path(str(client.status()["state"]))
        if not folder.is_dir():
            raise UnavailableError(
                f"the platform keeps its data in {folder}, which is not on this machine",
                code="state_elsewhere",
                hint="open the notebook on the platform's machine",
            )
        self._layout = Layout(folder)
        self._store: LmdbStore | None = None

    def __enter__(self) -> Notebook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    def training_set(self, model: Any, *, asof: AsOf = "known") -> Table:
        """The training set of a model as a run would build it now: rows, features, `label`, `_event_time`.

        `asof`: features as they were `known` at each row's time, as if nothing had been late (`event`), or as they were
        `served`, of the rows that a prediction was asked for and collected.
        """
        spec = self._model(name_of(model))
        horizons = self.client.flush([source.name for source in self.project.sources])
        horizon = {name: int(found["lsn"]) for name, found in horizons.items()}
        lake = DeltaLake(self._layout.lake)
        served = None
        if asof == "served":
            served = LakeServed(lake, self._layout.artifacts / "versions", self.client.version_digests(spec.name))
        built = training_set.build(
            spec,
            self.project,
            LakeEvents(lake, self.project, horizon),
            horizon=horizon,
            at=int(self.client.status()["at"]),
            asof=asof,
            served=served,
        )
        return Table(built.frame)

    def features(self, of: Any, **fields: Any) -> dict[str, Any]:
        """What a service or model would read now for these fields: every feature that they determine, by name.

        With an entity alone (`company="Sun"`) these are the features of its views; with all fields of a request, all.
        """
        spec = self._model(name_of(of))
        columns = {column.name: column for column in request_columns(spec, self.project)}
        unknown = next((name for name in fields if name not in columns), None)
        if unknown is not None:
            raise NotFoundError(
                f"{spec.name} has no field {unknown!r}: {did_you_mean(unknown, columns)}", code="unknown_field"
            )
        determined = [feature for feature in spec.features if needed(feature) <= set(fields)]
        server = FeatureServer(
            determined,
            self.project.views,
            self.project.sources,
            rows=spec.rows,
            columns=list(columns.values()),
            reader=OnlineReader(self._online()),
        )
        found = server.compute([fields], int(self.client.status()["at"]))
        for error in found.errors.values():
            raise error
        pairs = zip(determined, found.matrix[0], strict=True)
        return {feature.name: readable(feature, float(value)) for feature, value in pairs}

    def _online(self) -> LmdbStore:
        if self._store is None:
            self._store = LmdbStore(self._layout.online, readonly=True)
        return self._store

    def _model(self, name: str) -> ModelSpec:
        """A model by its name, or by that of a service that uses it."""
        models = {model.name: model for model in self.project.models}
        services = {service.name: service.model for service in self.project.services}
        found = models.get(services.get(name, name))
        if found is None:
            raise NotFoundError(f"no model or service {name!r}: {did_you_mean(name, [*models, *services])}")
        return found


def request_columns(model: ModelSpec, project: ProjectSpec) -> tuple[ColumnSpec, ...]:
    """What a request of a model may bring: the columns of its rows, and those that only a request has."""
    source = next((source for source in project.sources if source.name == model.rows), None)
    return (*(source.columns if source is not None else ()), *model.request)


def needed(feature: FeatureSpec) -> set[str]:
    """The fields that a feature is computed from."""
    found = leaf_requirements([feature])
    return {name for _, name in found.columns} | {name for role in found.views for name in role.by}


def readable(feature: FeatureSpec, value: float) -> Any:
    """None for null, a category's text for its code, truth for a condition."""
    if np.isnan(value):
        return None
    if feature.categories:
        return feature.categories[int(value)]
    return bool(value) if feature.type == "boolean" else value
