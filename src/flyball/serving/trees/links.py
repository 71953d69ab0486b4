"""From a sum of leaves to a prediction: what the libraries call an objective's transformation or inverse link."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class LinkKind(IntEnum):
    """The numbers are those that the kernel compares with."""

    IDENTITY = 0
    SIGMOID = 1  # 1 / (1 + exp(-scale * x))
    EXP = 2
    SOFTMAX = 3  # over the classes of a row
    LOG1P_EXP = 4
    SIGNED_SQUARE = 5
    STEP = 6  # 1 where x > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    kind: LinkKind = LinkKind.IDENTITY
    scale: float = 1.0
