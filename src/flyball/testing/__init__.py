"""For users' tests: the whole platform in one process, with a clock that the test moves.

with fb.testing.platform(project, at="2026-02-01T00:00:00Z") as p:
    p.load(Trips, "trips.csv")
    version = p.train(tip)
    assert p.predict("tip", company="Sun", fare="12.50")["score"] > 0.1
"""

from __future__ import annotations

from flyball.testing.platform import TestPlatform, platform

__all__ = ["TestPlatform", "platform"]
