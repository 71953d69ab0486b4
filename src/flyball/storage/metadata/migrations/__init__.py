"""Bringing a metadata database to the schema of this version."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from flyball.kernel.errors import ConflictError


def migrate(engine: Engine, *, revision: str = "head") -> None:
    """Upgrade to `revision`, in one transaction; a database of a newer Flyball is refused and left as it is."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise ConflictError(
                f"the metadata database has schema {current}; this Flyball knows schemas up to "
                f"{scripts.get_current_head()}",
                code="newer_database",
                hint="install the version of Flyball that wrote it, or use another directory with --state DIR",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
