"""The web console: pages drawn by the server from what `Control.status()` tells."""

from flyball.console.page import SECURITY_HEADERS, loop_picture, page, static

__all__ = ["SECURITY_HEADERS", "loop_picture", "page", "static"]
