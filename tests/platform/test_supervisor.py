import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flyball.kernel.errors import ConflictError, DeniedError, UnavailableError
from flyball.kernel.files import read_document, write_document
from flyball.kernel.layout import Layout
from flyball.kernel.memory import KEEPING
from flyball.kernel.settings import Settings
from flyball.kernel.times import parse_time
from flyball.platform.ports import PROCESSES, check_free, choose_ports, client_ports, free_ports
from flyball.platform.state import open_clock
from flyball.platform.supervisor import Child, Supervisor, answers, command_line, last_words, pause, stop_orphans

SERVER = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
def stop(number, frame):
    with open(sys.argv[2], "a") as file: file.write(sys.argv[3] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def small(state: Path, said: list[str] | None = None) -> Supervisor:
    """A supervisor of three tiny servers, which write their names into `ended` when they stop."""

    def commands(supervisor: Supervisor) -> dict[str, list[str]]:
        return {
            name: [sys.executable, "-c", SERVER, str(port), str(state / "ended"), name]
            for name, port in supervisor.ports.items()
        }

    say = (said if said is not None else []).append
    return Supervisor(Settings(state=state, port=0), say=say, commands=commands)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def test_processes_start_and_are_published_and_stop_in_order(tmp_path: Path) -> None:
    with small(tmp_path) as supervisor:
        assert all(answers(f"{supervisor.url(name)}/healthz") for name in supervisor.ports)
        published = read_document(tmp_path / "endpoints.json", "flyball.endpoints")
        assert published["ingest"] == supervisor.url("ingest")
        assert {p["name"]: p["pid"] for p in published["processes"]} == {
            name: child.pid for name, child in supervisor.children.items()
        }
        assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
        token = supervisor.client_settings.token
        assert not any(token in line for line in supervisor.greeting())
    assert (tmp_path / "ended").read_text().split() == ["inference", "ingest", "control"]
    assert not (tmp_path / "endpoints.json").exists()


def test_a_killed_process_starts_again_alone(tmp_path: Path) -> None:
    said: list[str] = []
    with small(tmp_path, said) as supervisor:
        pids = {name: child.pid for name, child in supervisor.children.items()}
        killed = pids["ingest"]
        assert killed is not None
        os.kill(killed, signal.SIGKILL)

        def again() -> bool:
            supervisor.step(time.monotonic())
            return supervisor.children["ingest"].pid not in (None, killed)

        wait(again)
        assert "ingest ended (killed by SIGKILL)" in said[0]
        wait(lambda: answers(f"{supervisor.url('ingest')}/healthz"))
        now = {name: child.pid for name, child in supervisor.children.items()}
        assert now["control"] == pids["control"]
        published = read_document(tmp_path / "endpoints.json", "flyball.endpoints")
        assert {p["name"]: p["restarts"] for p in published["processes"]}["ingest"] == 1


def test_what_a_killed_supervisor_left_running_is_stopped_by_the_next_start(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path)])
    foreign = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        left = {"ingest": mine.pid, "control": foreign.pid, "inference": None}
        processes = [{"name": name, "pid": pid} for name, pid in left.items()]
        wait(lambda: bool(command_line(mine.pid)))  # the kernel tells it only some time after the program began
        write_document(layout.endpoints, "flyball.endpoints", {"processes": processes})
        waiter = threading.Thread(target=mine.wait)  # as init does for an orphan
        waiter.start()
        assert stop_orphans(layout) == [mine.pid]
        waiter.join(20)
        assert mine.returncode == -signal.SIGTERM
        assert foreign.poll() is None
        assert stop_orphans(layout) == []
    finally:
        for process in (mine, foreign):
            process.kill()
            process.wait()


def test_two_platforms_on_one_state_directory_are_refused(tmp_path: Path) -> None:
    with small(tmp_path), pytest.raises(ConflictError, match=f"in use by process {os.getpid()}") as caught:
        small(tmp_path).__enter__()
    assert caught.value.code == "state_in_use"


def test_a_process_that_ends_at_its_start_ends_all_and_its_last_words_are_told(tmp_path: Path) -> None:
    def commands(supervisor: Supervisor) -> dict[str, list[str]]:
        good = [sys.executable, "-c", SERVER, str(supervisor.ports["control"]), str(tmp_path / "ended"), "control"]
        bad = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
        return {"control": good, "ingest": bad, "inference": bad}

    supervisor = Supervisor(Settings(state=tmp_path, port=0), commands=commands)
    with pytest.raises(UnavailableError, match="no such thing") as caught:
        supervisor.__enter__()
    assert caught.value.code == "start_failed"
    assert supervisor.children == {}
    assert not answers(f"http://127.0.0.1:{supervisor.ports['control']}/healthz")


def test_a_taken_port_is_named_with_its_holder_and_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=rf"port {port} .* process {os.getpid()}") as caught:
            check_free("127.0.0.1", port, "ingest")
        assert caught.value.code == "port_in_use"
        assert "--port" in caught.value.hint
        with pytest.raises(ConflictError):
            choose_ports(Settings(port=port))


def test_free_ports_are_in_a_row_and_no_client_is_given_them() -> None:
    ports = list(free_ports("127.0.0.1").values())
    assert ports == [ports[0] + offset for offset in range(len(PROCESSES))]
    assert ports[-1] < client_ports()[0]


def test_a_taken_port_is_passed_over_and_none_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def is_free(host: str, port: int) -> bool:
        asked.append(port)
        return len(asked) > 2

    monkeypatch.setattr("flyball.platform.ports.is_free", is_free)
    first, _, third = free_ports("127.0.0.1").values()
    assert third == first + 2
    assert asked[2:] == [first, first + 1, third]
    monkeypatch.setattr("flyball.platform.ports.is_free", lambda host, port: False)
    with pytest.raises(ConflictError, match="no 3 free ports") as caught:
        free_ports("127.0.0.1")
    assert "--port" in caught.value.hint


def test_without_room_below_the_clients_ports_any_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.platform.ports.client_ports", lambda: (1_024, 65_535))
    assert free_ports("127.0.0.1")["control"] >= 10_000


def test_whoever_answers_without_http_does_not_count_as_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(4096))

        echoing = threading.Thread(target=echo)
        echoing.start()
        assert not answers(f"http://127.0.0.1:{server.getsockname()[1]}/healthz")
        echoing.join(20)


def test_any_address_but_loopback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeniedError, match="TLS and keys") as caught:
        Supervisor(Settings(state=tmp_path, host="0.0.0.0", port=0)).__enter__()
    assert caught.value.code == "not_loopback"


def test_domain_time_is_chosen_at_the_first_start_and_kept(tmp_path: Path) -> None:
    at = parse_time("2014-01-01")
    first = small(tmp_path)
    first.settings = Settings(state=tmp_path, port=0, replay_from=at)
    with first:
        assert open_clock(first.layout).now() == at
    with small(tmp_path) as again:
        assert open_clock(again.layout).now() == at
    (tmp_path / "clock").unlink()
    (tmp_path / "metadata.sqlite").touch()
    with pytest.raises(ConflictError) as caught:
        first.__enter__()
    assert caught.value.code == "clock_fixed"


def test_the_pause_doubles_with_failures_in_a_row_and_has_an_end(tmp_path: Path) -> None:
    assert [pause(n) for n in (1, 2, 3, 20)] == [0.2, 0.4, 0.8, 10.0]
    child = Child("x", [sys.executable, "-c", ""], tmp_path / "x.err")
    for expected in (0.2, 0.4):
        child.start(100.0)
        assert child.process is not None
        child.process.wait()
        assert child.ended(101.0) == 0
        assert child.due == pytest.approx(101.0 + expected)
        assert child.ended(102.0) is None
    child.start(200.0)
    assert child.process is not None
    child.process.wait()
    assert child.ended(900.0) == 0
    assert child.failures == 1
    child.close()


def test_last_words_are_the_message_of_an_error_of_ours_or_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "x.err"
    assert last_words(path) == ""
    path.write_text("a\nb\n\n")
    assert last_words(path) == "b"
    path.write_text(json.dumps({"error": {"message": "port 1 is in use"}}) + "\n")
    assert last_words(path) == "port 1 is in use"


@pytest.mark.parametrize(("name", "keeps"), [("ingest", True), ("control", False)])
def test_the_ingest_process_alone_keeps_memory(tmp_path: Path, name: str, keeps: bool) -> None:
    told = tmp_path / "told"
    tell = f"import os; open({str(told)!r}, 'w').write(os.environ.get('MALLOC_MMAP_THRESHOLD_', ''))"
    child = Child(name, [sys.executable, "-c", tell], tmp_path / "x.err")
    child.start(0.0)
    assert child.process is not None
    assert child.process.wait() == 0
    child.close()
    assert (told.read_text() == KEEPING["MALLOC_MMAP_THRESHOLD_"]) is keeps
