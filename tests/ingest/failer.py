"""Pushes onto a disk that fails now and then; prints which were acknowledged, then dies without closing anything."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from flyball.ingest.group import GroupCommit
from flyball.ingest.receipts import Push, Receipt
from flyball.kernel.errors import FlyballError
from tests.ingest.sources import make_ingest, payment


def main(folder: Path, what: str) -> None:
    ingest = make_ingest(folder)
    flag = Path(os.environ["FAIL_FLAG"])
    for number in range(1, 13):
        broken = number in (4, 5, 9, 12)
        if broken:
            flag.write_text(what)
        answers: list[Receipt | FlyballError] = []
        group = GroupCommit(ingest.append_many)
        for part in (0, 1):
            push = Push(source="Payments", rows=[payment(number * 10 + part)], idempotency_key=f"k{number}-{part}")
            group.submit(push, 1, answers.append)
        group.start()
        group.stop()
        flag.unlink(missing_ok=True)
        for part, answer in enumerate(answers):
            said = answer.code if isinstance(answer, FlyballError) else "ok"
            sys.stdout.write(f"{number * 10 + part} {said}\n")
            sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
