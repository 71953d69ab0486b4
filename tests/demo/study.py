"""What the simulated story must show, computed without any of the platform: NumPy windows, LightGBM, scikit-learn.

`python -m tests.demo.study [SEED]` prints the figures; `test_study.py` holds them to the bars.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from flyball.demo.simulate import Payments, Scenario, simulate
from flyball.kernel.times import DAY, HOUR, SECOND, hop

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

WITHIN = 3  # days after which a payment without a chargeback counts as honest
TEST = 0.03  # the part of the training rows, by time, that is held out
ROW_COLUMNS = ("amount", "channel", "country")


class Windows:
    """Events by entity and time; a lookup at t covers floor((t − W) / h)·h ≤ event_time < t."""

    def __init__(self, entity: Ints, time: Ints) -> None:
        self._entity, self._time = entity, time
        self._origin = int(time.min()) - 40 * DAY
        self._order = np.argsort(self._keys(time), kind="stable")
        self._sorted = self._keys(time)[self._order]

    def _keys(self, time: Ints) -> Ints:
        return (self._entity << 32) + (time - self._origin) // SECOND

    def sum(self, values: Floats, window: int) -> Floats:
        start = (self._time - window) // hop(window) * hop(window)
        low = np.searchsorted(self._sorted, self._keys(start), side="left")
        high = np.searchsorted(self._sorted, self._keys(self._time), side="left")
        total = np.concatenate([[0.0], np.cumsum(values[self._order])])
        seen: Floats = total[high] - total[low]
        return seen

    def count(self, window: int) -> Floats:
        return self.sum(np.ones(len(self._time)), window)

    def distinct(self, values: Ints, window: int) -> Floats:
        """How many different values: two pointers over the sorted events of each entity."""
        start = (self._time - window) // hop(window) * hop(window)
        low = np.searchsorted(self._sorted, self._keys(start), side="left")[self._order]
        high = np.searchsorted(self._sorted, self._keys(self._time), side="left")[self._order]
        ordered, found = values[self._order], np.zeros(len(values))
        seen: Counter[int] = Counter()
        left = right = 0
        for place, row in enumerate(self._order):
            if low[place] >= right:  # nothing in common with what was counted: another entity, or a long pause
                seen, left, right = Counter(), int(low[place]), int(low[place])
            while right < high[place]:
                seen[int(ordered[right])] += 1
                right += 1
            while left < low[place]:
                gone = int(ordered[left])
                seen[gone] -= 1
                if not seen[gone]:
                    del seen[gone]
                left += 1
            found[row] = len(seen)
        return found

    def nth_last(self, values: Floats, nth: int, window: int) -> Floats:
        start = (self._time - window) // hop(window) * hop(window)
        low = np.searchsorted(self._sorted, self._keys(start), side="left")
        at = np.searchsorted(self._sorted, self._keys(self._time), side="left") - nth
        ordered = values[self._order]
        return np.where(at >= low, ordered[np.maximum(at, 0)], np.nan)

    def mean(self, values: Floats, window: int) -> Floats:
        count = self.count(window)
        return np.where(count > 0, self.sum(values, window) / np.maximum(count, 1), np.nan)


def features(payments: Payments) -> dict[str, Floats]:
    """The features that `flyball.demo.project` declares, by other means."""
    amount = payments.amount / 100.0
    small = (amount < 5).astype(np.float64)
    card = Windows(payments.card, payments.time)
    merchant = Windows(payments.merchant, payments.time)
    pair = Windows(payments.card * 1_000 + payments.merchant, payments.time)
    usual, price = card.mean(amount, 14 * DAY), merchant.mean(amount, 7 * DAY)
    return {
        "card_payments_1h": card.count(HOUR),
        "card_payments_24h": card.count(DAY),
        "card_amount_mean_14d": usual,
        "card_small_payments_3d": card.sum(small, 3 * DAY),
        "card_merchants_24h": card.distinct(payments.merchant, DAY),
        "card_amounts_1": card.nth_last(amount, 1, 7 * DAY),
        "card_amounts_2": card.nth_last(amount, 2, 7 * DAY),
        "merchant_payments_24h": merchant.count(DAY),
        "merchant_amount_mean_7d": price,
        "merchant_small_rate_3d": merchant.mean(small, 3 * DAY),
        "pair_payments_14d": pair.count(14 * DAY),
        "amount_against_usual": amount / usual,
        "amount_against_merchant": amount / price,
        "amount": amount,
        "channel": payments.channel.astype(np.float64),
        "country": payments.country.astype(np.float64),
    }


def train(matrix: Floats, label: Flags) -> lightgbm.Booster:
    settings = {
        "objective": "binary",
        "learning_rate": 0.1,
        "num_leaves": 31,
        "min_data_in_leaf": 40,
        "num_threads": 2,
        "verbose": -1,
        "deterministic": True,
        "seed": 1,
    }
    return lightgbm.train(settings, lightgbm.Dataset(matrix, label.astype(np.float64)), num_boost_round=80)


def kolmogorov_smirnov(reference: Floats, current: Floats, *, bins: int = 20) -> float:
    """The largest distance of the two distribution functions, on bins of equal weight in `reference`; null is a bin."""
    edges = np.unique(np.nanquantile(reference, np.linspace(0, 1, bins + 1)))

    def cumulative(values: Floats) -> Floats:
        known = values[~np.isnan(values)]
        counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
        shares: Floats = np.concatenate([[np.isnan(values).sum()], counts]) / len(values)
        return np.cumsum(shares)

    return float(np.abs(cumulative(reference) - cumulative(current)).max())


@dataclass(frozen=True, kw_only=True)
class Study:
    """AUCs on payments whose label is mature. `drift` is the largest KS of a window feature, one figure a live day."""

    history: int
    live: int
    fraud: float
    held_out_fraud: int
    auc_with_windows: float
    auc_without_windows: float
    auc_before_shift: float
    auc_after_shift: float
    auc_recovered: float
    auc_old_after_recovery: float
    shifted_rows_trained_on: int
    drift: tuple[float, ...]
    rows_a_day: int


def study(scenario: Scenario, *, retrain_day: int = 90, released_after: int = 1) -> Study:
    """Train on the history; serve it live; train again on `retrain_day` with the labels known then; compare."""
    payments = simulate(scenario)
    columns = features(payments)
    matrix = np.column_stack(list(columns.values()))
    day = (payments.time - scenario.start) // DAY
    label = payments.fraud & (payments.charged_back <= payments.time + WITHIN * DAY)
    window_names = [name for name in columns if name not in ROW_COLUMNS]
    rows_only = [index for index, name in enumerate(columns) if name in ROW_COLUMNS]
    live_days = range(scenario.history_days, scenario.history_days + scenario.live_days)

    def training_rows(at_day: int) -> tuple[slice, slice]:
        mature = int(np.searchsorted(day, at_day - WITHIN))
        cut = int(mature * (1 - TEST))
        return slice(0, cut), slice(cut, mature)

    def auc(rows: slice | Flags, model: lightgbm.Booster, used: Floats) -> float:
        return float(roc_auc_score(label[rows], model.predict(used[rows])))

    first, held_out = training_rows(scenario.history_days)
    old = train(matrix[first], label[first])
    bare = train(matrix[first][:, rows_only], label[first])
    again, _ = training_rows(retrain_day)
    new = train(matrix[again], label[again])
    served = (day >= scenario.history_days) & (day < live_days[-1] + 1 - WITHIN)
    recovered = served & (day >= retrain_day + released_after)
    profile = {name: columns[name][: held_out.stop] for name in window_names}
    return Study(
        history=int(np.sum(day < scenario.history_days)),
        live=int(np.sum(day >= scenario.history_days)),
        fraud=float(label[first].mean()),
        held_out_fraud=int(label[held_out].sum()),
        auc_with_windows=auc(held_out, old, matrix),
        auc_without_windows=auc(held_out, bare, matrix[:, rows_only]),
        auc_before_shift=auc(served & (day < scenario.shift_day), old, matrix),
        auc_after_shift=auc(served & (day >= scenario.shift_day) & (day < retrain_day), old, matrix),
        auc_recovered=auc(recovered, new, matrix),
        auc_old_after_recovery=auc(recovered, old, matrix),
        shifted_rows_trained_on=int(np.sum(day[again] >= scenario.shift_day)),
        drift=tuple(
            max(kolmogorov_smirnov(profile[name], columns[name][day == one]) for name in window_names)
            for one in live_days
        ),
        rows_a_day=min(int(np.sum(day == one)) for one in live_days),
    )


if __name__ == "__main__":
    for name, value in asdict(study(Scenario(seed=int((sys.argv[1:] or ["8"])[0])))).items():
        shown = " ".join(f"{entry:.2f}" for entry in value) if isinstance(value, tuple) else f"{value:.4g}"
        sys.stdout.write(f"{name:28} {shown}\n")
