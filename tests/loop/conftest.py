"""A metadata database for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.storage.metadata.database import open_database
from flyball.storage.metadata.migrations import migrate
from flyball.storage.metadata.unit import SqlMetadata


@pytest.fixture
def metadata(tmp_path: Path) -> SqlMetadata:
    engine = open_database(tmp_path / "metadata.sqlite")
    migrate(engine)
    return SqlMetadata(engine)
