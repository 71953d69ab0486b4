"""Ours: a file validated, quarantined, logged (fsynced), applied and committed to Delta. Argument: the file.

As the ingest process does it: a pump applies and flushes what is in the log while the file is still being read.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.features.view import SOURCE
from benchmarks.report import Measured
from flyball.ingest.pump import Pump
from flyball.kernel.memory import settle
from flyball.kernel.settings import Settings
from flyball.platform.wiring import open_ingest


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-files-") as folder:
        ingest = open_ingest(Settings(state=Path(folder)))
        ingest.load_plan({"epoch": 1, "digest": "bench", "sources": [SOURCE.to_data()], "views": []})
        settle()
        with Measured() as measured:
            pump = Pump(ingest)
            pump.start()
            receipt = ingest.append_file("Payments", path)
            pump.stop()
            horizon = ingest.flush(["Payments"])["Payments"]
        measured.done(good=horizon.rows, bad=receipt.received - horizon.rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
