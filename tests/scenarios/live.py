"""A real platform in processes of its own, for scenarios: started by the command line, killed by SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flyball.client import Client
from flyball.kernel.errors import FlyballError
from flyball.kernel.files import read_document
from flyball.kernel.layout import Layout
from flyball.kernel.settings import ClientSettings
from flyball.platform.ports import free_ports

T = TypeVar("T")
PATIENCE = 60.0  # seconds until a condition counts as never


def eventually(condition: Callable[[], T | None], what: str, *, within: float = PATIENCE) -> T:
    """Wait until `condition` gives something true; errors of the platform count as "not yet"."""
    deadline = time.monotonic() + within
    last: object = None
    while time.monotonic() < deadline:
        try:
            found = condition()
            if found:
                return found
            last = found
        except FlyballError as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {within:g} s; last: {last!r}")


class LivePlatform:
    """`flyball up` on a state directory; `kill` ends every process of it at once, without a word."""

    def __init__(self, state: Path) -> None:
        self.layout = Layout(state)
        self.port = free_ports("127.0.0.1")["control"]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        place = ["--state", str(self.layout.root), "--port", str(self.port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flyball", "up", *place, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        eventually(self._answers, "the platform's start")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            assert self._process.stdout is not None
            raise AssertionError(f"flyball up ended: {self._process.stdout.read().decode()}")
        if not (self.layout.endpoints.exists() and self._supervisor() == self._process.pid):
            return False
        with self.client() as client:
            return bool(client.status())

    def client(self) -> Client:
        token = self.layout.token.read_text().strip()
        return Client(ClientSettings(url=self.url, token=token), timeout=10.0)

    def _supervisor(self) -> int:
        return int(read_document(self.layout.endpoints, "flyball.endpoints")["supervisor"])

    def kill(self) -> None:
        """SIGKILL to the supervisor and to the whole group of each process."""
        assert self._process is not None
        self._process.kill()
        for child in read_document(self.layout.endpoints, "flyball.endpoints")["processes"]:
            if child.get("pid"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(child["pid"]), signal.SIGKILL)
        self._reap()

    def stop(self) -> int:
        """SIGTERM, as an operator would; the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._reap()

    def _reap(self) -> int:
        assert self._process is not None
        status = self._process.wait(timeout=PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        return status

    def __enter__(self) -> LivePlatform:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
