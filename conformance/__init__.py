"""Conformance kits that run against any server; each depends on nothing of this repository."""
