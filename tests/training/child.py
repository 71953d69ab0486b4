"""What the tests launch in place of `flyball.trainer`: the same, with rooms that read no lake."""

from __future__ import annotations

import sys

from flyball import trainer
from tests.training.project import fake_rooms

trainer.rooms = fake_rooms

if __name__ == "__main__":
    sys.exit(trainer.main(sys.argv[1:]))
