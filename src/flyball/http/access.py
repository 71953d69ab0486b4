"""Who may call what: requests matched against the one table of routes, and tokens against its permissions.

Every process asks here before a handler runs; handlers never decide. Tokens are known by their SHA-256 only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote, urlsplit

from flyball.http.messages import Request
from flyball.http.routes import Permission, Process, Route, routes_of
from flyball.kernel.errors import DeniedError, InvalidError, NotFoundError, did_you_mean

Tokens = Mapping[str, Sequence[str]]  # SHA-256 of a token, in hex → its permissions

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Matched:
    """A route that may be called, its path's parameters decoded, and the SHA-256 of the caller's token ('': none)."""

    route: Route
    params: dict[str, str]
    caller: str = ""


def token_digest(token: str) -> str:
    """How a token is stored and compared."""
    return hashlib.sha256(token.encode()).hexdigest()


def authorize(process: Process, tokens: Tokens, request: Request, *, hosts: Iterable[str] = LOOPBACK_HOSTS) -> Matched:
    """The route of a request, once its host, origin and token have been checked.

    Args:
        hosts: names without port that the `Host` header may have.

    Raises:
        InvalidError: `method_not_allowed` (405).
        NotFoundError: no route has this path.
        DeniedError: `bad_host`, `cross_site`, `unauthenticated` (401), `permission_missing`.
    """
    _check_host(request, hosts)
    route, params = match(process, request.method, request.path)
    if route.permission is Permission.PUBLIC:
        return Matched(route, params)
    return Matched(route, params, _check_token(tokens, request, route))


def match(process: Process, method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route and decoded parameters of a path; HEAD is matched as GET."""
    table = _table(process)
    asked = "GET" if method == "HEAD" else method
    allowed: list[str] = []
    literal = table.literal.get(path)
    if literal is not None:
        route = literal.get(asked)
        if route is not None:
            return route, {}
        allowed.extend(literal)
    segments = path.split("/")
    for pattern in table.patterns.get(len(segments), ()):
        params = pattern.match(segments)
        if params is None:
            continue
        if pattern.route.method == asked:
            return pattern.route, params
        allowed.append(pattern.route.method)
    if allowed:
        methods = ", ".join(sorted(set(allowed)))
        raise InvalidError(f"{method} is not offered at {path}; it takes {methods}", code="method_not_allowed")
    known = [route.path for route in routes_of(process)]
    raise NotFoundError(f"there is nothing at {path}: {did_you_mean(path, known)}", code="no_such_path")


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A route's segments: each a fixed text, or a parameter followed by a fixed suffix such as `:predict`."""

    route: Route
    segments: tuple[tuple[str, str, str], ...]  # (text, "", "") or ("", parameter, suffix)

    def match(self, segments: list[str]) -> dict[str, str] | None:
        params: dict[str, str] = {}
        for given, (text, name, suffix) in zip(segments, self.segments, strict=True):
            if not name:
                if given != text:
                    return None
                continue
            if not given.endswith(suffix) or len(given) == len(suffix):
                return None
            params[name] = unquote(given.removesuffix(suffix) if suffix else given)
        return params


@dataclass(frozen=True, slots=True)
class _Table:
    literal: dict[str, dict[str, Route]]
    patterns: dict[int, list[_Pattern]]


@cache
def _table(process: Process) -> _Table:
    literal: dict[str, dict[str, Route]] = {}
    patterns: dict[int, list[_Pattern]] = {}
    for route in routes_of(process):
        if "{" not in route.path:
            literal.setdefault(route.path, {})[route.method] = route
            continue
        segments = tuple(_segment(text) for text in route.path.split("/"))
        patterns.setdefault(len(segments), []).append(_Pattern(route, segments))
    return _Table(literal, patterns)


def _segment(text: str) -> tuple[str, str, str]:
    if not text.startswith("{"):
        return text, "", ""
    name, _, suffix = text[1:].partition("}")
    return "", name, suffix


def _check_host(request: Request, hosts: Iterable[str]) -> None:
    """A page of another site that rebinds its name to this address still sends its own name as `Host`."""
    host = _hostname(request.headers.get("host", ""))
    if host not in hosts:
        raise DeniedError(
            f"the Host header names {host!r}, which this server is not known as",
            code="bad_host",
            hint="call it by the address it prints, such as http://127.0.0.1",
        )
    origin = request.headers.get("origin", "")
    if origin and request.method not in SAFE_METHODS and _origin_host(origin) not in hosts:
        raise DeniedError(f"requests from pages of {origin!r} are not taken", code="cross_site")


def _hostname(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


def _origin_host(origin: str) -> str:
    try:
        return _hostname(urlsplit(origin).netloc)
    except ValueError:
        return ""


def _check_token(tokens: Tokens, request: Request, route: Route) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise DeniedError(
            f"{request.method} {request.path} needs a token",
            code="unauthenticated",
            hint="send `Authorization: Bearer TOKEN`; the token is in STATE/token, or set FLYBALL_TOKEN",
        )
    given = token_digest(token.strip())
    permissions: Sequence[str] | None = None
    for known, granted in tokens.items():
        if hmac.compare_digest(known, given):
            permissions = granted
    if permissions is None:
        raise DeniedError(
            "the token is not known here",
            code="unauthenticated",
            hint="the token of a platform is in its STATE/token, or set FLYBALL_TOKEN",
        )
    if route.permission.value not in permissions and Permission.ADMIN.value not in permissions:
        raise DeniedError(
            f"the token lacks the permission {route.permission.value!r}, which {request.method} {request.path} needs",
            code="permission_missing",
            details={"permission": route.permission.value},
        )
    return given
