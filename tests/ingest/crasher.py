"""A process for the crash test: appends, applies and flushes, and prints each key once it was acknowledged."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from flyball.ingest.service import IngestConfig
from tests.ingest.sources import make_ingest, payment


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(folder: Path, seed: int, first: int) -> None:
    chance = random.Random(seed)
    ingest = make_ingest(folder, config=IngestConfig(apply_rows=7, commit_rows=20))
    say("ready")
    number = first
    while True:
        size = chance.randint(1, 5)
        rows = [payment(number + i) for i in range(size)]
        rows += [payment(chance.randrange(number + size)), payment(number, amount="bad")]
        key = f"push-{number}" if chance.random() < 0.7 else ""
        receipt = ingest.append("Payments", rows, idempotency_key=key)
        assert receipt.quarantined == 1
        say(f"acknowledged {number} {size}")
        if key and chance.random() < 0.3:
            assert ingest.append("Payments", rows, idempotency_key=key).replayed
        number += size
        if chance.random() < 0.4:
            ingest.flush()
            say("flushed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
