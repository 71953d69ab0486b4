"""`flyball plan` and `flyball apply`: what would change, and changing it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flyball.cli.errors import PLAN_HAS_CHANGES
from flyball.cli.options import platform_options, project_argument
from flyball.cli.output import show

if TYPE_CHECKING:
    from flyball.client import Client
    from flyball.client.project import Packed

MARKS = {"add": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}
LONGEST = 60  # characters of a value


@click.command(epilog="Example: flyball plan --out change.plan && flyball apply change.plan. Ends with 2 on changes.")
@project_argument
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the plan, to apply exactly it later."
)
@platform_options
def plan(project: str, out: Path | None, client: Client, as_json: bool) -> int:
    """Show what applying PROJECT would add, change and remove, and what each change will cause."""
    from flyball.client.project import pack, save_plan

    packed = pack(project)
    warn(packed, as_json)
    made = client.plan(packed.spec.to_data())
    if out is not None:
        save_plan(out, packed, made)
    changes = made.get("changes") or []
    shown = {key: value for key, value in made.items() if key != "spec"} | {"changes": changes}
    show(shown, as_json=as_json, text=told(made))
    return PLAN_HAS_CHANGES if changes else 0


@click.command(epilog="Examples: flyball apply     flyball apply change.plan")
@click.argument("project", metavar="[PROJECT|PLAN]", default="project.py")
@platform_options
def apply(project: str, client: Client, as_json: bool) -> None:
    """Apply PROJECT, or exactly the PLAN that `flyball plan --out` saved; a stale plan is refused."""
    from flyball.client.project import apply as apply_packed
    from flyball.client.project import pack, read_plan

    if is_plan(Path(project)):
        packed, saved = read_plan(Path(project))
        done = apply_packed(client, packed, saved)
    else:
        packed = pack(project)
        warn(packed, as_json)
        done = apply_packed(client, packed)
    changes = done.get("changes") or []
    text = f"{told(done)}\n\napplied {packed.spec.name}" if changes else f"{packed.spec.name} is as it should be"
    show({"project": packed.spec.name, "changes": changes}, as_json=as_json, text=text)


def is_plan(path: Path) -> bool:
    """Whether a file is a saved plan: JSON, where a project is Python."""
    if path.suffix == ".py" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1) == b"{"


def warn(packed: Packed, quiet: bool) -> None:
    if not quiet:
        for problem in packed.warnings:
            click.echo(str(problem), err=True)


def told(plan: Mapping[str, Any]) -> str:
    """A plan for people: one line for each declaration, its fields and what the change will cause below it."""
    changes = plan.get("changes") or []
    if not changes:
        return "no changes"
    lines = []
    for change in changes:
        mark, color = MARKS[change["action"]]
        lines.append(click.style(f"{mark} {change['kind']} {change['name']}", fg=color, bold=True))
        if change["action"] == "change":
            lines += [
                f"    {f['field']}: {value(f.get('before'))} → {value(f.get('after'))}"
                for f in change.get("fields") or []
            ]
        lines += [f"    → {cause}" for cause in change.get("causes") or []]
        if change.get("refused"):
            lines.append(click.style(f"    refused: {change['refused']}", fg="red"))
    counts = [(action, sum(c["action"] == action for c in changes)) for action in MARKS]
    lines.append(", ".join(f"{n} to {action}" for action, n in counts))
    return "\n".join(lines)


def value(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
