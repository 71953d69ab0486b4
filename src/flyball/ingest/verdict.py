"""The verdict on a batch: the first rule that each row broke, and what was seen and let pass."""

from __future__ import annotations

import numpy as np

from flyball.ingest.parsing import Mask
from flyball.ingest.rejection import Rule

Places = np.ndarray[tuple[int], np.dtype[np.intp]]


class Verdict:
    """The first rule that each row broke (0: none) and the column it broke it in.

    `deleted`: the rows that delete an event and so have nothing but a key; None: the source takes no corrections.
    """

    def __init__(self, height: int, deleted: Mask | None = None) -> None:
        self.rule = np.zeros(height, dtype=np.int16)
        self.column = np.full(height, -1, dtype=np.int16)
        self.deleted = deleted
        self._rules: list[Rule | str] = []
        self._columns: list[str] = []
        self._warnings: list[tuple[str, Mask]] = []

    def mark(self, rows: Mask, rule: Rule | str, column: str) -> None:
        """These rows broke the rule, and are quarantined where they broke none before."""
        new = rows & (self.rule == 0)
        if new.any():
            self.rule[new] = _place(self._rules, rule) + 1
            self.column[new] = _place(self._columns, column)

    def warn(self, rows: Mask, rule: str) -> None:
        """These rows broke the rule and are accepted all the same, if they break no other."""
        if rows.any():
            self._warnings.append((rule, rows))

    @property
    def warns(self) -> bool:
        """Whether any row broke a rule that only warns."""
        return bool(self._warnings)

    @property
    def good(self) -> Mask:
        good: Mask = self.rule == 0
        return good

    def of(self, places: Places) -> list[tuple[Rule | str, str]]:
        """The rule and the column of each of these rows, which are quarantined."""
        rules, columns = self.rule[places].tolist(), self.column[places].tolist()
        return [(self._rules[rule - 1], self._columns[column]) for rule, column in zip(rules, columns, strict=True)]

    def warned(self, start: int, end: int) -> dict[str, int]:
        """Rule → good rows among these that broke it."""
        good = self.rule[start:end] == 0
        counts = {rule: int(np.count_nonzero(rows[start:end] & good)) for rule, rows in self._warnings}
        return {rule: count for rule, count in counts.items() if count}


def _place(items: list[str], item: str) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)
