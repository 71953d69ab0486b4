"""A ledger of versions on SQLite, and artifacts in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.storage.artifacts import LocalArtifacts
from flyball.storage.metadata.database import METADATA, open_database
from flyball.storage.metadata.registry import SqlVersionStore


@pytest.fixture
def version_store(tmp_path: Path) -> SqlVersionStore:
    engine = open_database(tmp_path / "metadata.sqlite")
    METADATA.create_all(engine)
    return SqlVersionStore(engine)


@pytest.fixture
def artifacts(tmp_path: Path) -> LocalArtifacts:
    return LocalArtifacts(tmp_path / "artifacts")
