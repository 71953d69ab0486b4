"""What the registry needs from elsewhere: a ledger of versions, a store of bytes, and a check of the tree kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Score = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionRecord:
    """A registered version: `model/number`. Immutable. `digest` names its directory below `artifacts/versions`.

    `metrics` are those of the held-out part; `evaluation` adds champion, baseline and row counts; `gate` is the
    verdict at registration as data. `created` is domain time.
    """

    model: str
    number: int
    digest: str
    run: str
    created: int
    metrics: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        return f"{self.model}/{self.number}"


class VersionStore(Protocol):
    """The ledger of versions and aliases. What a method returned has been committed."""

    def register(
        self,
        model: str,
        *,
        digest: str,
        run: str,
        at: int,
        metrics: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        gate: dict[str, Any] | None = None,
    ) -> VersionRecord:
        """Give the version the model's next number, from 1. Idempotent by `run`: the same run and digest give the
        number they got; the same run with another digest is `run_registered` (conflict)."""
        ...

    def get(self, model: str, number: int) -> VersionRecord:
        """`version_not_found` where there is none."""
        ...

    def find(self, digest: str) -> list[VersionRecord]:
        """The versions with this digest: none, or one for each run that gave the same content."""
        ...

    def list(self, model: str, *, limit: int = 100) -> list[VersionRecord]:
        """Newest first."""
        ...

    def aliases(self, model: str) -> dict[str, int]: ...

    def set_alias(self, model: str, alias: str, number: int, *, expected: int | None, at: int) -> None:
        """Compare and set: `alias_changed` (conflict) unless the alias is at `expected` (None: not set)."""
        ...


class ArtifactStore(Protocol):
    """Bytes by their SHA-256. Idempotent; verifies on read (`artifact_corrupt`)."""

    def put(self, data: bytes) -> str: ...

    def get(self, digest: str) -> bytes:
        """`artifact_not_found` or `artifact_corrupt`."""
        ...

    def has(self, digest: str) -> bool: ...

    def path(self, digest: str) -> Path:
        """Where the bytes lie, after verifying them."""
        ...


class KernelModel(Protocol):
    """A model on the tree kernel."""

    def predict(self, matrix: Matrix) -> Score: ...

    def leaves(self, matrix: Matrix) -> npt.NDArray[Any]:
        """The leaf of each row in each tree, by the library's numbers: `(n, trees)`."""
        ...


class TreeVerifier(Protocol):
    """Opens a file on the tree kernel, in the format `lightgbm`, `xgboost` or `flyball.forest`; raises an
    `InvalidError` (`tree_unsupported`, `bad_tree_model`) where the kernel cannot run the model."""

    def __call__(self, format: str, data: bytes) -> KernelModel: ...
