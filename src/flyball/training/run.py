"""What the user's function is given beside the data: parameters, a seed, and ways to report and to return a model."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import canonical
from flyball.kernel.times import show_time
from flyball.training.ports import PackedModel, Packer
from flyball.training.progress import Progress

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Package:
    """What a training function returns: a model in a form that can be packed, and what else the user says of it."""

    model: PackedModel
    extra: dict[str, Any] = field(default_factory=dict)


class Run:
    """One execution of a training function.

    `params` come from whoever started the run, `seed` makes it repeatable. All of what is reported lies in the run
    directory and survives the process.
    """

    def __init__(
        self,
        *,
        folder: Path,
        params: Mapping[str, Any],
        seed: int,
        pack: Packer,
        progress: Progress,
        prefix: str = "",
    ) -> None:
        self.params = dict(params)
        self.seed = seed
        self._folder = folder
        self._pack = pack
        self._progress = progress
        self._prefix = prefix

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers, such as the loss of a step. Not finite ones are recorded as null."""
        line = {
            "time": show_time(time.time_ns() // 1_000),
            "step": step,
            "metrics": {self._prefix + name: _number(name, value) for name, value in metrics.items()},
        }
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say how far the training is; cheap enough to be called at every step."""
        self._progress.report(done=done, total=total, note=note)

    def artifact(self, name: str, data: bytes | str) -> None:
        """Keep a file with the run, such as a plot. `name` is one path segment; the same name replaces it."""
        if not _NAME.fullmatch(name):
            raise InvalidError(
                f"{name!r} is no name for an artifact; use letters, digits, '.', '_' and '-', such as 'roc.png'",
                code="bad_artifact_name",
            )
        folder = self._folder / "artifacts" / self._prefix.rstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    def package(self, model: Any, **extra: Any) -> Package:
        """Make a model returnable: a LightGBM booster or estimator, a scikit-learn estimator, an ONNX model or path.

        `extra` is kept in the version's manifest and must be plain data. A model in no form that can be packed is
        refused here, with what is possible.
        """
        try:
            canonical(extra)
        except (TypeError, ValueError):
            raise InvalidError(
                f"what run.package is told beside the model ({', '.join(sorted(extra))}) must be plain JSON data",
                code="bad_package_extra",
            ) from None
        return Package(model=self._pack(model), extra=extra)


def _number(name: str, value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidError(f"the metric {name!r} is {type(value).__name__}, not a number", code="bad_metric") from None
    return number if math.isfinite(number) else None
