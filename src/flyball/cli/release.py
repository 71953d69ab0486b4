"""`flyball release`, `approve` and `rollback`: which version answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show

if TYPE_CHECKING:
    from flyball.client import Client


@click.command(epilog="Example: flyball release fraud 7 --strategy canary")
@click.argument("service")
@click.argument("version", required=False)
@click.option("--strategy", type=click.Choice(["full", "canary"]), help="Default: the service's own.")
@platform_options
def release(service: str, version: str | None, strategy: str | None, client: Client, as_json: bool) -> None:
    """Roll VERSION (default: the newest) of its model out to SERVICE."""
    rollout = client.release(service, version=version, strategy=strategy)
    show(rollout, as_json=as_json, text=told(service, "rolls out", rollout))


@click.command(epilog="Example: flyball approve fraud 7")
@click.argument("service")
@click.argument("version", required=False)
@platform_options
def approve(service: str, version: str | None, client: Client, as_json: bool) -> None:
    """Let VERSION (default: the one that waits) of SERVICE go out; for services with review="manual"."""
    rollout = client.approve(service, version=version)
    show(rollout, as_json=as_json, text=told(service, "approved", rollout))


@click.command(epilog="Example: flyball rollback fraud")
@click.argument("service")
@platform_options
def rollback(service: str, client: Client, as_json: bool) -> None:
    """Give SERVICE its previous version back, at once and for all traffic."""
    rollout = client.rollback(service)
    show(rollout, as_json=as_json, text=told(service, "rolled back", rollout))


def told(service: str, verb: str, rollout: dict[str, Any]) -> str:
    version = rollout.get("version") or rollout.get("candidate") or ""
    state = rollout.get("state") or rollout.get("phase") or ""
    return f"{service}: {verb} {version}" + (f" ({state})" if state else "")
