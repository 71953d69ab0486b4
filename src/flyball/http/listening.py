"""The port: one that is taken is named, and one that several processes share is one socket, which loses nothing.

Workers inherit the socket that the zygote listens on. A connection that nobody accepted yet belongs to the socket, not
to a worker, so it outlives the worker that is killed or drained; with a socket a worker (SO_REUSEPORT) the kernel
resets what waited for the one that goes.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

from flyball.kernel.errors import ConflictError

BACKLOG = 4096  # the kernel takes no more than net.core.somaxconn
SO_ATTACH_FILTER = 26  # Linux; see socket(7)
DROP_SYN = (  # classic BPF over the TCP header: whether SYN is set in the flags at byte 13
    (0x30, 0, 0, 13),  # ldb [13]
    (0x45, 0, 1, 0x02),  # jset #SYN, drop, keep
    (0x06, 0, 0, 0),  # drop: ret #0
    (0x06, 0, 0, 0xFFFFFFFF),  # keep: ret #-1
)


def listen_error(error: OSError, host: str, port: int) -> Exception:
    if error.errno != errno.EADDRINUSE:
        return error
    return ConflictError(
        f"port {port} on {host} is in use by another process",
        code="port_in_use",
        hint=f"stop that process (`ss -ltnp 'sport = :{port}'` names it), or choose another port with --port",
        details={"host": host, "port": port},
    )


def open_listener(host: str, port: int) -> socket.socket:
    """Listen on `host:port` (0: any free port). Raises `port_in_use` where any other process listens there."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise listen_error(error, host, port) from None
    listener.setblocking(False)
    return listener


def refuse_new(listener: socket.socket) -> None:
    """Let a listening socket take no new connection, while those that it took can still be accepted.

    The kernel drops their SYN, which the client sends again a second later, when the socket is closed and says so.
    Idempotent; holds for all processes that share the socket.
    """
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in DROP_SYN)
    program = ctypes.create_string_buffer(code, len(code))
    listener.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(DROP_SYN), ctypes.addressof(program))
    )
