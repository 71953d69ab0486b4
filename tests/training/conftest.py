"""A small project, its training rows, and a ledger on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.storage.metadata.database import METADATA, open_database
from flyball.storage.metadata.training import SqlRunStore


@pytest.fixture
def run_store(tmp_path: Path) -> SqlRunStore:
    engine = open_database(tmp_path / "metadata.sqlite")
    METADATA.create_all(engine)
    return SqlRunStore(engine)
