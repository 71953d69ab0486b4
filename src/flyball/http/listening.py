"""Ports: one that is taken is named, and one that several processes share is held."""

from __future__ import annotations

import errno
import socket

from flyball.kernel.errors import ConflictError


def listen_error(error: OSError, host: str, port: int) -> Exception:
    if error.errno != errno.EADDRINUSE:
        return error
    return ConflictError(
        f"port {port} on {host} is in use by another process",
        code="port_in_use",
        hint=f"stop that process (`ss -ltnp 'sport = :{port}'` names it), or choose another port with --port",
        details={"host": host, "port": port},
    )


def hold_port(host: str, port: int) -> tuple[socket.socket, int]:
    """Hold a port for the workers, who share it. A socket that does not listen gets no connections.

    Raises `port_in_use` where any other process listens there; sharing alone would not tell.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        raise listen_error(error, host, port) from None
    return held, int(held.getsockname()[1])
