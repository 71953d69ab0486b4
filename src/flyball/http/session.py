"""How a browser gets in: a one-time address opens a session, a strict cookie keeps it, and it may only read."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flyball.kernel.errors import DeniedError
from flyball.kernel.files import write_atomic

COOKIE = "flyball_session"
LIFETIME = 12 * 3600  # seconds of real time


class OneTimeCode:
    """The code of the next `/open?code=…`, kept in a file that only the owner can read, so that commands can print it.

    A code opens one session; the next one takes its place at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._renew()

    def _renew(self) -> None:
        self._code = secrets.token_urlsafe(24)
        write_atomic(self._path, self._code.encode(), mode=0o600)

    def redeem(self, given: str) -> None:
        with self._lock:
            if not hmac.compare_digest(given.encode(), self._code.encode()):
                raise DeniedError(
                    "this address of the console was used before, or is not one",
                    code="bad_console_code",
                    hint="flyball status   (prints a fresh address)",
                )
            self._renew()


class Sessions:
    """Cookies that prove themselves: an expiry and its HMAC under the platform's secret; nothing is stored."""

    def __init__(self, secret: bytes, *, wall: Callable[[], float] = time.time) -> None:
        self._key = hashlib.sha256(b"flyball console session\0" + secret).digest()
        self._wall = wall

    def issue(self) -> str:
        expiry = str(int(self._wall()) + LIFETIME)
        return f"{expiry}.{self._sign(expiry)}"

    def valid(self, cookie: str) -> bool:
        expiry, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(expiry).encode()):
            return False
        return int(expiry) > self._wall()

    def _sign(self, expiry: str) -> str:
        return hmac.new(self._key, expiry.encode(), hashlib.sha256).hexdigest()


def session_cookie(header: str) -> str:
    """The console's cookie in a `Cookie` header; '' where there is none."""
    for part in header.split(";"):  # by hand: the standard parser drops all cookies at one that it does not know
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def set_cookie(session: str, *, secure: bool = False) -> str:
    """The `Set-Cookie` header of a session: unseen by scripts, never sent from another site's page."""
    flags = "; Secure" if secure else ""
    return f"{COOKIE}={session}; Path=/; Max-Age={LIFETIME}; HttpOnly; SameSite=Strict{flags}"
