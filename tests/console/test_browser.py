"""The console in a real browser: drawn, refreshed without reloading, and asking no other host for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from flyball import console
from flyball.http.access import token_digest
from flyball.http.control import Shell, application
from flyball.http.session import OneTimeCode, Sessions
from tests.console.example import BUSY
from tests.http.core import FakeCore

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,1100",
]
PATIENCE = 30.0


class Site:
    """The control API on a socket, counting what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        self.code = OneTimeCode(folder / "console")
        core = FakeCore()
        shell = Shell(
            pages=console,
            core=core,
            status=lambda: dict(BUSY),
            tokens={token_digest("owner"): ("admin",)},
            names={token_digest("owner"): "owner"},
            sessions=Sessions(b"secret"),
            code=self.code,
            endpoints=lambda: None,
        )
        app = application(shell)

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.asked[scope.get("path", "")] += 1
            await app(scope, receive, send)

        self.server = uvicorn.Server(uvicorn.Config(counted, port=0, log_config=None, lifespan="off"))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> Site:
        self.thread.start()
        deadline = time.monotonic() + PATIENCE
        while not self.server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()

    @property
    def url(self) -> str:
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with Site(tmp_path) as running:
        yield running


def browse(site: Site, folder: Path, *flags: str) -> str:
    """Open the console by its one-time address and let four seconds of the page's time pass; the document."""
    assert CHROMIUM is not None
    address = f"{site.url}/open?code={(folder / 'console').read_text().strip()}"
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, "--virtual-time-budget=4000", *flags, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout


def test_the_console_is_drawn_and_refreshed_without_reloading(site: Site, tmp_path: Path) -> None:
    document = browse(site, tmp_path, "--dump-dom")
    for stage in ("Ingest", "Features", "Train", "Register", "Roll out", "Serve", "Monitor", "Retrain"):
        assert stage in document
    assert re.search(r'id="live"[^>]*>live<', document)
    assert site.asked["/"] == 1
    assert site.asked["/console/loop"] >= 2
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', document)
