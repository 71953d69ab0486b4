"""`flyball train`: a run, watched to its end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import progress, show
from flyball.kernel.errors import InvalidError, from_data

if TYPE_CHECKING:
    from flyball.client import Client

FINAL = ("succeeded", "failed", "stopped")
PAUSE = 0.25  # seconds between two looks at a run


@click.command(epilog="Example: flyball train fraud --param rounds=200")
@click.argument("model")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="For the training function; repeatable.")
@click.option(
    "--asof",
    type=click.Choice(["known", "event", "served"]),
    help="Features as they were known at each row's time (default), by event time alone, or as they were served.",
)
@click.option("--reason", default="", help="Recorded with the run.")
@click.option("--no-wait", is_flag=True, help="Queue the run and come back.")
@click.option("--inline", is_flag=True, help="Train in this process, for breakpoints; registers nothing.")
@click.option("--project", default="project.py", show_default=True, help="With --inline: where the model is declared.")
@platform_options
def train(
    model: str,
    params: tuple[str, ...],
    asof: str | None,
    reason: str,
    no_wait: bool,
    inline: bool,
    project: str,
    client: Client,
    as_json: bool,
) -> None:
    """Train MODEL on the platform, in a process of its own, and register what comes out as a new version."""
    given = dict(parse_param(text) for text in params) | ({"asof": asof} if asof else {})
    if inline:
        from flyball.cli.inline import train_inline

        result = train_inline(client, project, model, given)
        show(result, as_json=as_json, text=f"{model} trained inline, nothing registered: {numbers(result)}")
        return
    run = client.train(model, reason=reason or "flyball train", params=given)
    if not no_wait:
        run = follow(client, run["run"], quiet=as_json)
    show(run, as_json=as_json, text=summary(run))


def parse_param(text: str) -> tuple[str, Any]:
    """`name=value`; the value is JSON where it reads as JSON, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidError(f"--param {text!r} is not NAME=VALUE", code="bad_param", hint="--param rounds=200")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def follow(client: Client, run: str, *, quiet: bool) -> dict[str, Any]:
    """Show a run's log lines and progress until it ends; a failed run is raised as its own error."""
    seen = 0
    with progress(f"train {run}", quiet=quiet) as bar:
        while True:
            record = client.run(run)
            lines = client.run_logs(run, after=seen)
            seen += len(lines)
            if not quiet:
                for line in lines:
                    click.echo(str(line.get("message", "")), err=True)
            stages = (record.get("progress") or {}).get("stages") or [{}]
            if stages[-1].get("total"):
                bar(float(stages[-1].get("done") or 0), float(stages[-1]["total"]))
            if record.get("state") in FINAL:
                break
            time.sleep(PAUSE)
    if record["state"] != "succeeded":
        error = record.get("error") or {}
        ended = {"message": f"run {run} {record['state']}", "kind": "conflict", "code": f"run_{record['state']}"}
        raise from_data(error if isinstance(error, dict) and error else ended)
    return record


def summary(run: dict[str, Any]) -> str:
    text = f"{run['run']} {run.get('model')} {run.get('state')}"
    return f"{text}  {numbers(run.get('result') or {})}".rstrip()


def numbers(result: dict[str, Any]) -> str:
    metrics = (result.get("metrics") or {}).items()
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics) if isinstance(value, int | float))
