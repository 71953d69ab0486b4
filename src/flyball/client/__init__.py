"""The Python SDK: HTTP only."""

from flyball.client.client import Client

__all__ = ["Client"]
