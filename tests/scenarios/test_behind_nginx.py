"""Two pools behind nginx, as the docs say it: restarted one after the other, then one is killed; no request is lost."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from flyball.kernel.layout import Layout
from flyball.platform.ports import free_ports
from flyball.serving.plan import publish
from flyball.serving.standalone import Standalone
from flyball.worker import prepare_model
from tests.serving.onnx_models import affine
from tests.serving.test_pool import Load
from tests.serving.test_process import environment, eventually

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)"),
]
DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
MAIN = """
daemon off;
master_process off;
error_log stderr crit;
pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
access_log off;
client_body_temp_path {folder}/body;
proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi;
scgi_temp_path {folder}/scgi;
{recipe}
}}
"""


@dataclass
class Pool:
    """A zygote and its workers in a process group of their own, on a port that stays."""

    state: Path
    port: int
    popen: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "flyball.worker", "--state", str(self.state), "--port", str(self.port)]
        command += ["--workers", "2", "--drain-window", "0.5"]
        out = subprocess.DEVNULL
        self.popen = subprocess.Popen(command, stdout=out, env=environment(), start_new_session=True)

    def is_ready(self) -> bool:
        return httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200

    def restart(self) -> None:
        self.popen.terminate()
        assert self.popen.wait(60) == 0
        self.start()
        eventually(self.is_ready)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(60)


@dataclass
class Site:
    """What a client knows: nginx' port, and the model behind it."""

    port: int
    model: Standalone
    pools: list[Pool]

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    model = tmp_path / "affine.onnx"
    model.write_bytes(affine())
    ports = free_ports("127.0.0.1")
    pools = [Pool(tmp_path / name, ports[name]) for name in ("control", "ingest")]
    first, second = (prepare_model(model, pool.state) for pool in pools)
    publish(Layout(pools[1].state), {**second.plan, "tokens": first.plan["tokens"]})
    recipe = re.findall(r"```nginx\n(.*?)```", DOCS.read_text(), re.DOTALL)[0]
    for written, port in (("7702", pools[0].port), ("7712", pools[1].port), ("8080", ports["inference"])):
        assert written in recipe
        recipe = recipe.replace(f":{written}", f":{port}")
    config = tmp_path / "nginx.conf"
    config.write_text(MAIN.format(folder=tmp_path, recipe=recipe))
    made = Site(ports["inference"], first, pools)
    nginx = None
    try:
        for pool in pools:
            pool.start()
        for pool in pools:
            eventually(pool.is_ready)
        nginx = subprocess.Popen([str(NGINX), "-e", "stderr", "-c", str(config)])
        eventually(made.answers)
        yield made
    finally:
        for pool in pools:
            pool.kill()
        if nginx is not None:
            nginx.terminate()
            nginx.wait(30)


def test_pools_are_restarted_one_by_one_and_one_is_killed_and_no_request_is_lost(site: Site) -> None:
    load = Load(site, 8)

    def more(before: int) -> bool:
        return load.seen["200"] > before + 200

    try:
        eventually(partial(more, 0))
        for pool in site.pools:
            pool.restart()
            eventually(partial(more, load.seen["200"]))
        site.pools[0].kill()
        eventually(partial(more, load.seen["200"]))
    finally:
        seen = load.stop()
    assert set(seen) == {"200"}
