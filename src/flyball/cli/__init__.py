"""The command line. One module per command; a module is imported when its command is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

import flyball
from flyball.cli.errors import report

COMMANDS: dict[str, tuple[str, str]] = {  # command → module, one line of help; in the order of a day's work
    "init": ("init", "Write a small working project."),
    "check": ("check", "Validate a project, without a platform."),
    "plan": ("plan", "Show what applying a project would change."),
    "apply": ("plan", "Apply a project, or a saved plan."),
    "up": ("up", "Start the platform on this machine."),
    "serve": ("serve", "Serve one model file, with no project."),
    "ingest": ("ingest", "Load a file of history, or push live events."),
    "quarantine": ("quarantine", "List, show, retry or drop rows that broke their contract."),
    "infer": ("infer", "Write a first contract from a file."),
    "train": ("train", "Train a model and register its version."),
    "release": ("release", "Roll a version out to a service."),
    "approve": ("release", "Let a version that waits for review go out."),
    "rollback": ("release", "Give a service its previous version back."),
    "predict": ("predict", "Ask a service for predictions."),
    "features": ("features", "List views and features, or print a view as SQL."),
    "explain": ("explain", "Show what is behind a feature's value."),
    "skew": ("skew", "Tell how far served values differ from training, and why."),
    "status": ("status", "Tell what runs, what is behind, what is wrong."),
    "erase": ("erase", "Erase all rows of one value, such as a card's."),
    "logs": ("logs", "Show the logs of a run or a process."),
    "demo": ("demo", "Run the whole loop on simulated card payments."),
}


class Commands(click.Group):
    """Finds commands by the table above, so that `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"flyball.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `flyball init` and `flyball up`, or see everything at once with `flyball demo`.",
)
@click.version_option(flyball.__version__, message="flyball %(version)s")
def cli() -> None:
    """The whole loop of a production model: ingest, features, train, register, roll out, serve, monitor, retrain."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process with its status (see `flyball.cli.errors`)."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run a command; gives the exit status. Every error is told here, in one way."""
    as_json = "--json" in arguments
    try:
        result = cli.main(arguments, prog_name="flyball", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except BaseException as error:
        return report(error, as_json=as_json)


__all__ = ["cli", "main", "run"]
