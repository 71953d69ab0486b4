"""A PostgreSQL server of the tests' own: on a free port, with a data directory that goes with the session."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flyball.platform.ports import free_ports

PASSWORD = "s3cret:with@signs/and%25"
ENCODED = "s3cret%3Awith%40signs%2Fand%2525"
DEADLINE = 60.0


@dataclass
class Postgres:
    """A running server. `dsn` is its address, with the password."""

    port: int
    folder: Path
    binaries: Path
    user: str | None
    process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres:{ENCODED}@127.0.0.1:{self.port}/postgres"

    def run(self, sql: str, *rows: tuple[Any, ...]) -> None:
        """Run a statement, once, or for each row of parameters; commit."""
        with self.connect() as connection, connection.cursor() as cursor:
            for row in rows or ((),):
                cursor.execute(sql.encode(), row or None)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=PASSWORD, dbname="postgres", connect_timeout=5
        )

    def start(self) -> None:
        options = {
            "fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "20",
        }  # fmt: skip
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += [f"-c{name}={value}" for name, value in options.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **_as(self.user))
        until = time.monotonic() + DEADLINE
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # a fast shutdown
            self.process.wait(DEADLINE)
            self.process = None


def _as(user: str | None) -> dict[str, Any]:
    """How to start a process as a user; the server refuses to run as root."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parents[1].name))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's server; the test is skipped where PostgreSQL is not installed."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="flyball-postgres-"))
    server = Postgres(port=free_ports("127.0.0.1")["control"], folder=folder, binaries=binaries, user=user)
    try:
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        command = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "--auth=scram-sha-256"]
        command += [f"--pwfile={folder / 'password'}", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, **_as(user))
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
