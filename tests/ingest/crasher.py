"""A process for the crash test: appends, applies and flushes, and prints each key once it was acknowledged."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import polars as pl

from flyball.ingest.service import Ingest, IngestConfig
from flyball.storage import event_log
from tests.ingest.sources import make_ingest, payment


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def load(ingest: Ingest, folder: Path, number: int) -> int:
    """A file in chunks of 8, each a file of the log; with one bad row, and at times one key that comes again."""
    keys = [number + i for i in range(20)]
    keys[13] = keys[2] if number % 2 else keys[13]
    rows = [payment(key, amount="12.45") for key in keys] + [payment(number, amount="bad")]
    path = folder / f"load-{number}.parquet"
    pl.DataFrame(rows).with_columns(
        pl.lit(None).alias(n) for n in ("kind", "score", "items", "gift", "due")
    ).write_parquet(path)
    receipt = ingest.append_file("Payments", path)
    assert receipt.quarantined == 1
    fresh = sorted(set(keys))
    for key in fresh:
        say(f"loaded {key}")
    say("load 1")
    return len(keys)


def main(folder: Path, seed: int, first: int) -> None:
    chance = random.Random(seed)
    event_log.BULK_ROWS = 3
    ingest = make_ingest(folder, config=IngestConfig(apply_rows=7, commit_rows=20, chunk_rows=8))
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
        if chance.random() < 0.3:
            number += load(ingest, folder, number)
        if chance.random() < 0.4:
            ingest.flush()
            say("flushed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
