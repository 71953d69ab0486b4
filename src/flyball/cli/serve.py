"""`flyball serve`: one model file over HTTP, with no project and no platform."""

from __future__ import annotations

from pathlib import Path

import click

from flyball.kernel.errors import NotFoundError
from flyball.kernel.settings import DEFAULT_PORT


@click.command(epilog="Example: flyball serve model.onnx, then POST /v2/models/model/infer")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--name", help="The model's name in addresses; default: the file's.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=DEFAULT_PORT + 2, show_default=True)
@click.option("--state", type=click.Path(path_type=Path), default=Path(".flyball-serve"), show_default=True)
def serve(model: Path, name: str | None, host: str, port: int, state: Path) -> None:
    """Serve MODEL (.onnx, or LightGBM's .txt) by the Open Inference Protocol, until Ctrl-C."""
    if not model.is_file():
        raise NotFoundError(f"no file {model}", code="file_not_found")
    from flyball.platform.ports import check_free, check_host

    check_host(host)
    check_free(host, port, "the server")
