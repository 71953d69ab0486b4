"""Ports of a machine: which are free, and who holds one that is not."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from flyball.kernel.errors import ConflictError, DeniedError, InvalidError
from flyball.kernel.settings import Settings

PROCESSES = ("control", "ingest", "inference")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FIRST, LAST = 10_000, 65_535  # where free ports are looked for
TRIES = 200


def check_host(host: str) -> None:
    """Only the loopback address is taken until TLS and keys can be configured."""
    if host not in LOOPBACK:
        raise DeniedError(
            f"listening on {host} is refused: beyond the loopback address a platform needs TLS and keys, "
            "which this version cannot be given yet",
            code="not_loopback",
            hint="use --host 127.0.0.1, and a tunnel (ssh -L 7700:127.0.0.1:7700 …) to reach it from elsewhere",
        )


def choose_ports(settings: Settings) -> dict[str, int]:
    """The port of each process: `port`, `port + 1`, `port + 2`, or free ones for 0. Taken ones are named."""
    if settings.port == 0:
        return free_ports(settings.host)
    ports = {name: settings.port + offset for offset, name in enumerate(PROCESSES)}
    for name, port in ports.items():
        check_free(settings.host, port, name)
    return ports


def free_ports(host: str) -> dict[str, int]:
    """Three free ports in a row, below those that the kernel gives to clients where there is room.

    A port of the clients' range may be taken between two starts of its process, and a client that looks whether
    anybody listens on it yet can be given that very port and then speaks to itself.
    """
    first, last = FIRST, min(client_ports()[0], LAST) - len(PROCESSES)
    if last <= first:
        first, last = FIRST, LAST - len(PROCESSES)
    for base in random.SystemRandom().sample(range(first, last + 1), TRIES):
        ports = {name: base + offset for offset, name in enumerate(PROCESSES)}
        if all(is_free(host, port) for port in ports.values()):
            return ports
    raise ConflictError(
        f"no {len(PROCESSES)} free ports in a row were found on {host} in {TRIES} tries",
        code="port_in_use",
        hint="choose the first of three with --port",
        details={"host": host, "first": first, "last": last},
    )


def client_ports() -> tuple[int, int]:
    """The first and the last port that the kernel gives to a client's end of a connection."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return 32_768, 60_999  # Linux's own
    return int(first), int(last)


def is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def check_free(host: str, port: int, what: str) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if isinstance(error, PermissionError):
            raise InvalidError(
                f"port {port} needs more rights than this user has", code="bad_port", hint="use --port 1024 or higher"
            ) from None
        holder = holder_of(port)
        raise ConflictError(
            f"port {port} on {host}, which {what} needs, is in use{f' by {holder}' if holder else ''}",
            code="port_in_use",
            hint="stop what uses it, or choose other ports with --port (0 picks free ones)",
            details={"host": host, "port": port},
        ) from None


def holder_of(port: int) -> str:
    """The process that listens on a port of this machine, where the kernel tells us; '' where it does not."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            parts = row.split()
            if parts[3] == "0A" and int(parts[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{parts[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                name = (process / "comm").read_text().strip()
                return f"process {process.name} ({name})"
        except OSError:
            continue
    return ""
