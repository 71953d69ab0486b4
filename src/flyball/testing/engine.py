"""An engine that trains in this process: what is launched has ended when `launch` returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flyball.engines.local import identity
from flyball.kernel.errors import UnavailableError
from flyball.kernel.files import read_document
from flyball.trainer import run_inline
from flyball.training.ports import SPEC_FORMAT, Handle, Poll, PollState, run_spec_from_data

TrainFunction = Callable[..., Any]


class InlineEngine:
    """`training.ports.Engine` without processes. Idempotent by run directory.

    Args:
        functions: the training function of each model; others are taken from their bundle.
    """

    def __init__(self, functions: Mapping[str, TrainFunction]) -> None:
        self._functions = functions
        self._done: dict[Path, Handle] = {}
        self.failure: BaseException | None = None  # of the last run, as the user's code raised it

    def launch(self, run_dir: Path) -> Handle:
        handle = identity(os.getpid())
        if handle is None:
            raise UnavailableError("/proc is not mounted", code="no_proc")
        if run_dir in self._done:
            return handle
        self._done[run_dir] = handle
        self.failure = None
        spec = run_spec_from_data(read_document(run_dir / "spec.json", SPEC_FORMAT))
        function = self._functions.get(spec.model.name) if spec.kind == "train" else None
        try:
            run_inline(spec, run_dir, function=function)
        except Exception as error:  # `error.json` has it for the platform; the test gets it as it was
            self.failure = error
        return handle

    def find(self, run_dir: Path) -> Handle | None:
        return self._done.get(run_dir)

    def poll(self, handle: Handle) -> Poll:
        return Poll(state=PollState.EXITED, code=0 if self.failure is None else 1)

    def stop(self, handle: Handle, *, grace: float = 10.0) -> Poll:
        return self.poll(handle)
