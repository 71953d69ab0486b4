"""`flyball serve`: one model file over HTTP, with no project and no platform."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flyball.cli.options import drain_option, workers_option
from flyball.kernel.settings import DEFAULT_PORT


@click.command(epilog="Example: flyball serve model.onnx, then the curl line that it prints")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--port", default=DEFAULT_PORT + 2, show_default=True)
@workers_option
@drain_option
@click.option("--state", type=click.Path(path_type=Path), default=Path(".flyball-serve"), show_default=True)
def serve(model: Path, port: int, workers: str, drain_window: float, state: Path) -> None:
    """Serve MODEL by the Open Inference Protocol on the loopback address, until Ctrl-C.

    It is an ONNX file (.onnx), a LightGBM model as text (.txt) or an XGBoost model as JSON (.json).
    """
    from flyball.kernel import logs
    from flyball.kernel.layout import Layout
    from flyball.platform.ports import check_free, free_ports
    from flyball.worker import WorkerSettings, prepare_model, run

    settings = WorkerSettings(
        state=state, port=port or free_ports("127.0.0.1")["inference"], workers=workers, drain_window=drain_window
    )
    check_free(settings.host, settings.port, "the server")
    prepared = prepare_model(model, state)
    logs.configure("workers", folder=Layout(state).logs)
    url = f"http://{settings.host}:{settings.port}/v2/models/{prepared.service}"
    body = json.dumps(prepared.example)
    click.echo(f"{model} serves at {url}\ntoken in {Layout(state).token}; Ctrl-C ends\n")
    click.echo(f"curl {url}/infer -H \"Authorization: Bearer $(cat {Layout(state).token})\" -d '{body}'")
    run(settings)
