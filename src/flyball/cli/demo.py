"""`flyball demo`: everything at once, on simulated card payments."""

from __future__ import annotations

from pathlib import Path

import click

from flyball.cli.options import interrupt_on_sigterm
from flyball.kernel.settings import Settings


@click.command(epilog="Example: flyball demo --exit")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".flyball-demo"),
    show_default=True,
    help="The demonstration's state directory; resumed if it is there.",
)
@click.option("--port", default=0, help="Of control; ingest +1, inference +2. Default: free ones.")
@click.option("--exit", "leave", is_flag=True, help="End after the summary, instead of staying up until Ctrl-C.")
def demo(state: Path, port: int, leave: bool) -> None:
    """Run the whole loop on a simulated stream of card payments, in under two minutes."""
    from flyball.client import Client
    from flyball.demo.run import AUDITED, START, run
    from flyball.platform.supervisor import Supervisor

    interrupt_on_sigterm()
    settings = Settings(state=state, port=port, replay_from=START, audit_share=AUDITED)
    supervisor = Supervisor(settings, say=lambda line: click.echo(line, err=True))
    with supervisor, Client(supervisor.client_settings) as client:
        supervisor.watch()
        run(client, supervisor, exit=leave)
        if not leave:
            for line in supervisor.greeting():
                click.echo(line)
            supervisor.run()
