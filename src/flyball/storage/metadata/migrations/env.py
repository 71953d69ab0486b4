"""Run by Alembic: `migrate` hands in a connection whose transaction holds the whole upgrade."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
