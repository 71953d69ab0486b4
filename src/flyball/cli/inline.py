"""Training in the foreground: the function of the user's own file, on the data of a running platform."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flyball.define.compile import compile_project
from flyball.define.load import load_project
from flyball.define.model import Model
from flyball.define.project import Project
from flyball.kernel.errors import NotFoundError, UnavailableError, did_you_mean
from flyball.kernel.ids import new_id
from flyball.kernel.layout import Layout

if TYPE_CHECKING:
    from flyball.client import Client


def train_inline(client: Client, project: str, model: str, params: dict[str, Any]) -> dict[str, Any]:
    """Run a model's function here, with breakpoints that hold; gives the run's result. Nothing is registered.

    The training set is read from the platform's state directory, so this works on the platform's machine only.
    """
    from flyball.trainer import run_inline
    from flyball.training.ports import Horizon, RunSpec

    declared = load_project(project)
    function = find_model(declared, model)
    spec = compile_project(declared)
    status = client.status()
    state = Path(str(status["state"]))
    if not state.is_dir():
        raise UnavailableError(
            f"the platform's state directory {state} is not on this machine, and --inline reads it",
            code="state_elsewhere",
            hint=f"flyball train {model}   (trains on the platform)",
        )
    horizons = client.flush([source.name for source in spec.sources])
    run = new_id("inline")
    run_spec = RunSpec(
        run=run,
        model=spec.model(model),
        project=spec,
        horizon={name: Horizon(**found) for name, found in horizons.items()},
        at=int(status["at"]),
        params=params,
        versions=client.version_digests(model) if params.get("asof") == "served" else {},
    )
    return run_inline(run_spec, Layout(state).runs / run, function=cast(Any, function.function))


def find_model(project: Project, name: str) -> Model:
    """The declared model of this name; one without a function is not among them."""
    used = [service.model for service in project.services] + [batch.model for batch in project.batches]
    models = {model.name: model for model in used if isinstance(model, Model)}
    if name not in models:
        raise NotFoundError(f"no model {name!r} to train: {did_you_mean(name, models)}", code="model_not_found")
    return models[name]
