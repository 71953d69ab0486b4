"""`flyball up`: the platform on this machine, until Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import click

from flyball.cli.options import drain_option, interrupt_on_sigterm, state_option, workers_option
from flyball.kernel.settings import DEFAULT_PORT, Settings
from flyball.kernel.times import parse_time


@click.command(epilog="Example: flyball up --port 7700 --workers 2")
@state_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback only, until TLS and keys exist.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="Of control; ingest +1, inference +2; 0: any.")
@workers_option
@drain_option
@click.option("--replay-from", metavar="TIME", help="At first start: domain time is a replay clock that begins here.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info", show_default=True)
@click.option(
    "--audit-share",
    type=click.FloatRange(0, 1),
    default=Settings().audit_share,
    show_default=True,
    help="Of the entities, whose predictions the skew audit recomputes: to begin with; it adapts to the load. 0: none.",
)
def up(
    state: Path,
    host: str,
    port: int,
    workers: str,
    drain_window: float,
    replay_from: str | None,
    log_level: str,
    audit_share: float,
) -> None:
    """Start the platform: control, ingest and workers, each restarted alone. Ctrl-C stops; a second one forces."""
    from flyball.platform.supervisor import Supervisor

    interrupt_on_sigterm()
    supervisor = Supervisor(
        Settings(
            state=state,
            host=host,
            port=port,
            workers=workers,
            drain_window=drain_window,
            replay_from=parse_time(replay_from) if replay_from else None,
            log_level=log_level,
            audit_share=audit_share,
        ),
        say=lambda line: click.echo(line, err=True),
    )
    with supervisor:
        for line in supervisor.greeting():
            click.echo(line)
        supervisor.run()
    click.echo("stopped")
