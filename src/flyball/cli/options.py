"""What commands share: where the platform is, and how results are shown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from flyball.kernel.settings import client_settings

if TYPE_CHECKING:
    from flyball.client import Client

P = ParamSpec("P")
R = TypeVar("R")

state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="FLYBALL_STATE",
    default=Path(".flyball"),
    show_default=True,
    help="The platform's state directory.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts.")
workers_option = click.option(
    "--workers",
    default="1",
    show_default=True,
    metavar="N|MIN:MAX",
    help="Inference processes: a number, or bounds between which the load decides.",
)
drain_option = click.option(
    "--drain-window",
    type=click.FloatRange(0, 600),
    default=0.0,
    show_default=True,
    help="Seconds for which workers that are asked to end go on, while readiness says so: for proxies to look.",
)
project_argument = click.argument("project", default="project.py")


def platform_options(command: Callable[P, R]) -> Callable[..., R]:
    """`--url`, `--state` and `--json`; the command gets `client` and `as_json`."""

    @click.option("--url", default="", help="The platform's address; also FLYBALL_URL.")
    @state_option
    @json_option
    @functools.wraps(command)
    def with_client(*args: Any, url: str, state: Path, **kwargs: Any) -> R:
        with connect(state, url) as client:
            return command(*args, client=client, **kwargs)  # type: ignore[arg-type]

    return with_client


def connect(state: Path, url: str = "") -> Client:
    """A client of the platform at `url`, at FLYBALL_URL, of the one on `state`, or at the default address."""
    from flyball.client import Client

    settings = client_settings(state=state)
    if url:
        settings = replace(settings, url=url.rstrip("/"))
    elif settings.url == type(settings)().url:
        settings = replace(settings, url=address_of(state) or settings.url)
    return Client(settings)


def address_of(state: Path) -> str:
    """The control address that the platform on `state` wrote at its start; '' where there is none."""
    from flyball.kernel.errors import FlyballError
    from flyball.kernel.files import read_document
    from flyball.kernel.layout import Layout

    try:
        return str(read_document(Layout(state).endpoints, "flyball.endpoints").get("control", ""))
    except (OSError, FlyballError):
        return ""


def interrupt_on_sigterm() -> None:
    """SIGTERM as Ctrl-C, so that a command that started processes stops them before it ends."""
    import signal

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
