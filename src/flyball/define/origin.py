"""Origins: where a source's events are pulled from, by name and query, never with the secret itself."""

from __future__ import annotations

from dataclasses import dataclass

from flyball.define.mistake import mistake
from flyball.define.secret import Secret
from flyball.define.spec import OriginSpec
from flyball.kernel.times import SECOND, duration

SHORTEST_EVERY = SECOND


@dataclass(frozen=True, slots=True, init=False)
class Sql:
    """Rows of a query, pulled by the platform again and again in the order of a column that only grows.

    The first pull takes all rows. Where the source declares when its history was known (`known=`), they are history;
    else, and in every later pull, rows are live: known from the commit that took them in.
    """

    spec: OriginSpec

    def __init__(self, dsn: Secret, query: str, *, cursor: str, every: str = "1m", lag: str = "0s") -> None:
        """
        Args:
            dsn: the secret that holds the database's address, such as `postgresql://user:password@host/database`.
            query: one SELECT; its columns are the source's by name, others are ignored.
            cursor: a column of the query that is never null and, for a row that is new or changed, not below those
                of rows that were there before: a time of change or a serial number.
            every: how long between two pulls.
            lag: how far behind the newest cursor value each pull looks again, for transactions that committed late.
                Rows that were taken already are known by their content and left out.
        """
        if not isinstance(dsn, Secret):
            # What was given may be the secret itself, so it is not repeated.
            raise mistake(
                "the first argument of fb.Sql is a reference to a secret, not the address itself",
                hint='write fb.Sql(fb.secret("PG_DSN"), "SELECT …", cursor=…) and set PG_DSN where the platform starts',
                code="secret_value",
            )
        text = _one_statement(query)
        if not cursor.strip():
            raise mistake(
                f"fb.Sql: cursor is {cursor!r}; name the column of the query that rows are pulled in order of"
            )
        pause, back = duration(every), duration(lag)
        if pause < SHORTEST_EVERY:
            raise mistake(f"fb.Sql: every={every!r} is too often; the shortest is one second")
        if back < 0:
            raise mistake(f"fb.Sql: lag={lag!r}; a length of time is not negative")
        spec = OriginSpec(dsn=dsn.name, query=text, cursor=cursor, every=pause, lag=back)
        object.__setattr__(self, "spec", spec)


def _one_statement(query: object) -> str:
    text = query.strip().rstrip(";").rstrip() if isinstance(query, str) else ""
    if text.split(maxsplit=1)[:1] == [] or text.split(maxsplit=1)[0].lower() not in ("select", "with"):
        raise mistake(f"fb.Sql takes one SELECT, not {query!r:.60}")
    return text
