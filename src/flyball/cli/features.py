"""`flyball features`: what is computed, how it is defined, who uses it; and the way out by SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flyball.cli.options import platform_options
from flyball.cli.output import show, table
from flyball.kernel.errors import NotFoundError, did_you_mean
from flyball.kernel.ids import short

if TYPE_CHECKING:
    from flyball.client import Client


@click.command(epilog="Examples: flyball features     flyball features --sql UserActivity > activity.sql")
@click.argument("views", nargs=-1, metavar="[VIEW]…")
@click.option("--sql", is_flag=True, help="Print the DuckDB query that computes each view from the lake.")
@click.option(
    "--from",
    "kind",
    type=click.Choice(["delta", "parquet", "table"]),
    default="delta",
    show_default=True,
    help="How the query reads events: DuckDB's delta extension, the table's Parquet files, or a table of yours.",
)
@click.option("--table", default="", help="The path or name to read; default: the lake's own.")
@platform_options
def features(views: tuple[str, ...], sql: bool, kind: str, table: str, client: Client, as_json: bool) -> None:
    """List views and their features: windows, definitions, and the models that use them."""
    known = {view["view"]: view for view in client.views()}
    for name in views:
        if name not in known:
            raise NotFoundError(f"there is no view {name!r}: {did_you_mean(name, known)}", code="view_not_found")
    chosen = [known[name] for name in views or known]
    if sql:
        queries = {view["view"]: client.view_sql(view["view"], kind=kind, table=table) for view in chosen}
        show(queries, as_json=as_json, text="\n".join(queries.values()).rstrip())
    else:
        show(chosen, as_json=as_json, text="\n\n".join(map(told, chosen)) or "no project has a view: flyball apply")


def told(view: dict[str, Any]) -> str:
    entity = ", ".join(view["entity"]) or "everything"
    head = (
        f"{view['view']}: {view['kind']} view over {view['source']} by {entity}, definition {short(view['definition'])}"
    )
    if view.get("ttl"):
        head += f", ttl {view['ttl']}"
    served = ", ".join(view.get("served_by") or []) or "no version"
    rows = [
        (f["name"], f["operator"], f.get("window", ""), f.get("hop", ""), ", ".join(f["used_by"]) or "–")
        for f in view["features"]
    ]
    return f"{head}; served by {served}\n" + table(("feature", "operator", "window", "hop", "used by"), rows)
