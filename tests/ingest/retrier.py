"""A process for the crash test of the quarantine: pushes rows that a narrow contract refuses, and retries them."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec

from flyball.ingest import quarantine
from flyball.ingest.service import IngestConfig
from tests.ingest.crasher import say
from tests.ingest.sources import PAYMENTS, make_ingest, payment

WIDER = msgspec.structs.replace(
    PAYMENTS,
    columns=tuple(
        msgspec.structs.replace(c, categories=(*c.categories, "barter")) if c.name == "kind" else c
        for c in PAYMENTS.columns
    ),
)


def main(folder: Path, seed: int, first: int) -> None:
    chance = random.Random(seed)
    quarantine.RETRY_ROWS = 3
    ingest = make_ingest(folder, config=IngestConfig(apply_rows=7, commit_rows=20), sources=[PAYMENTS])
    say("ready")
    number = first
    while True:
        ingest.load_plan({"sources": [PAYMENTS], "views": []})
        size = chance.randint(1, 7)
        receipt = ingest.append("Payments", [payment(number + i, kind="barter") for i in range(size)])
        assert receipt.quarantined == size
        say(f"acknowledged {number} {size}")
        number += size
        if chance.random() < 0.5:
            ingest.flush()
            say("flushed")
        ingest.load_plan({"sources": [WIDER], "views": []})
        ingest.retry("Payments")
        say("retried")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
