"""A reproducible stream of card payments, with fraud, late chargebacks, and a shift in how fraud is done.

Cards and merchants have habits: a card has its usual amount, hours and favourite merchants; a merchant its popularity,
price level and share of online payments. Fraud comes in two kinds:

* **bursts** (mostly before the shift): a stolen card is used within an hour or two for several large payments, minutes
  apart, at merchants that it does not usually visit;
* **tests** (after it): rings try many card numbers with small payments, hours apart, each at another merchant, to learn
  which cards are alive.

Who is a fraud is told only by chargebacks, which arrive hours to days later. No single column tells a fraud from an
honest payment: large, small, foreign and online payments are all common. All randomness comes from one seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.kernel.times import DAY, HOUR, MINUTE, SECOND, show_time

CHANNELS = ("chip", "contactless", "online")
COUNTRIES = ("domestic", "neighbour", "overseas")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """What is simulated. Days are counted from `start` (microseconds UTC); `shift_day` is when fraud changes.

    `history_days` are loaded at once, `live_days` are replayed. Rates are payments a day; `chargeback_median` is in
    microseconds, and delays are lognormal with `chargeback_sigma`.
    """

    seed: int = 8
    start: int = 1_704_067_200 * SECOND  # 2024-01-01, a Monday
    history_days: int = 80
    live_days: int = 17
    shift_day: int = 82
    cards: int = 900
    merchants: int = 240
    payments_per_day: int = 700
    bursts_per_day: float = 4.0
    bursts_after_shift: float = 2.0
    tests_after_shift: float = 5.5
    chargeback_median: int = 18 * HOUR
    chargeback_sigma: float = 0.7

    @property
    def live_from(self) -> int:
        """When the history ends and the live stream begins."""
        return self.start + self.history_days * DAY

    @property
    def shift_at(self) -> int:
        return self.start + self.shift_day * DAY

    @property
    def ends_at(self) -> int:
        return self.start + (self.history_days + self.live_days) * DAY


@dataclass(frozen=True, kw_only=True, slots=True)
class Payments:
    """Payments in time order, one array a column; `amount` in cents, `time` in microseconds UTC.

    `charged_back` is when the chargeback arrives, 0 where none does. It is what a chargeback event tells, and no column
    of the payment.
    """

    card: Ints
    merchant: Ints
    amount: Ints
    channel: Ints
    country: Ints
    time: Ints
    charged_back: Ints

    def __len__(self) -> int:
        return len(self.time)

    @property
    def fraud(self) -> Flags:
        return self.charged_back > 0

    def take(self, rows: Ints | slice) -> Payments:
        return Payments(**{name: getattr(self, name)[rows] for name in _COLUMNS})

    def row(self, index: int) -> dict[str, str]:
        """Payment `index` as an event of the source `Payments`."""
        return {
            "id": payment_id(index),
            "card": f"card-{self.card[index]:04d}",
            "merchant": f"m-{self.merchant[index]:03d}",
            "amount": f"{self.amount[index] / 100:.2f}",
            "channel": CHANNELS[self.channel[index]],
            "country": COUNTRIES[self.country[index]],
            "time": show_time(int(self.time[index])),
        }

    def chargeback(self, index: int) -> dict[str, str]:
        """The chargeback of payment `index` as an event of the source `Chargebacks`."""
        return {"payment": payment_id(index), "time": show_time(int(self.charged_back[index]))}


_COLUMNS = ("card", "merchant", "amount", "channel", "country", "time", "charged_back")


def payment_id(index: int) -> str:
    return f"p{index:06d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _World:
    """The habits: arrays by card (`usual`, `hour`, `weight`, `favourites` (cards, 6)) and by merchant."""

    usual: Floats  # log of a card's usual amount in cents
    hour: Floats
    weight: Floats
    favourites: Ints
    price: Floats  # log of a merchant's price level
    online: Floats
    popularity: Floats


def simulate(scenario: Scenario) -> Payments:
    """All payments of history and live stream, in time order. Same scenario, same payments."""
    rng = np.random.default_rng(scenario.seed)
    world = _world(rng, scenario)
    parts = [_honest(rng, scenario, world), _bursts(rng, scenario, world), _tests(rng, scenario, world)]
    together = Payments(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})
    inside = together.take(np.flatnonzero(together.time < scenario.ends_at))
    return inside.take(np.argsort(inside.time, kind="stable"))


def _world(rng: np.random.Generator, scenario: Scenario) -> _World:
    popularity = rng.lognormal(0.0, 1.0, scenario.merchants)
    popularity /= popularity.sum()
    weight = rng.gamma(2.0, 1.0, scenario.cards)
    return _World(
        usual=rng.normal(np.log(2_400), 0.8, scenario.cards),
        hour=rng.normal(14.0, 3.0, scenario.cards),
        weight=weight / weight.sum(),
        favourites=rng.choice(scenario.merchants, (scenario.cards, 6), p=popularity),
        price=rng.normal(0.0, 0.4, scenario.merchants),
        online=rng.beta(0.8, 1.2, scenario.merchants),
        popularity=popularity,
    )


def _honest(rng: np.random.Generator, scenario: Scenario, world: _World) -> Payments:
    """Everyday payments: mostly at favourite merchants, near the card's usual amount, with errands of several stops."""
    days = scenario.history_days + scenario.live_days
    count = int(rng.poisson(scenario.payments_per_day * days))
    card = rng.choice(scenario.cards, count, p=world.weight)
    time = _times(rng, scenario, world, card, rng.integers(0, days, count))
    stops = np.where(rng.random(count) < 0.06, rng.integers(1, 4, count), 0)  # an errand: more stops after the first
    origin = np.repeat(np.arange(count), stops)
    rank = np.arange(len(origin)) - np.repeat(np.cumsum(stops) - stops, stops) + 1
    card = np.concatenate([card, card[origin]])
    time = np.concatenate([time, time[origin] + (rank * rng.uniform(6, 25, len(origin)) * MINUTE).astype(np.int64)])
    count = len(card)
    favourite = world.favourites[card, rng.integers(0, 6, count)]
    explores = np.concatenate([rng.random(count - len(origin)) < 0.25, rng.random(len(origin)) < 0.6])
    merchant = np.where(explores, rng.choice(scenario.merchants, count, p=world.popularity), favourite)
    spread = np.where(rng.random(count) < 0.15, 1.1, 0.45)  # now and then a big purchase, or a very small one
    amount = np.exp(world.usual[card] + world.price[merchant] + rng.normal(0.0, 1.0, count) * spread)
    return _payments(rng, world, card, merchant, amount, time, online_more=0.0, abroad=0.06)


def _bursts(rng: np.random.Generator, scenario: Scenario, world: _World) -> Payments:
    """A stolen card: four to nine payments, minutes apart, larger than its owner's, wherever they go through."""
    before = _incidents(rng, scenario.start, scenario.shift_at, scenario.bursts_per_day)
    after = _incidents(rng, scenario.shift_at, scenario.ends_at, scenario.bursts_after_shift)
    card, time = _series(rng, scenario, np.concatenate([before, after]), sizes=(4, 10), gap=9 * MINUTE)
    merchant = rng.integers(0, scenario.merchants, len(card))
    amount = np.exp(world.usual[card] + rng.normal(0.75, 0.5, len(card)))
    return _payments(rng, world, card, merchant, amount, time, online_more=0.15, abroad=0.12, chargebacks=scenario)


def _tests(rng: np.random.Generator, scenario: Scenario, world: _World) -> Payments:
    """A card being tested: many small payments, hours apart, each at another merchant, few of them popular."""
    starts = _incidents(rng, scenario.shift_at, scenario.ends_at, scenario.tests_after_shift)
    card, time = _series(rng, scenario, starts, sizes=(8, 17), gap=3 * HOUR)
    merchant = rng.choice(scenario.merchants, len(card), p=world.popularity)
    amount = np.exp(np.log(260) + 0.2 * (world.usual[card] - 7.8) + rng.normal(0.0, 0.5, len(card)))
    return _payments(rng, world, card, merchant, amount, time, online_more=0.15, abroad=0.08, chargebacks=scenario)


def _incidents(rng: np.random.Generator, start: int, stop: int, per_day: float) -> Ints:
    count = int(rng.poisson(per_day * (stop - start) / DAY))
    return np.sort(rng.integers(start, stop, count))


def _series(
    rng: np.random.Generator, scenario: Scenario, starts: Ints, *, sizes: tuple[int, int], gap: int
) -> tuple[Ints, Ints]:
    """For each incident a card and its payments: the first at `starts`, the rest after exponential gaps."""
    size = rng.integers(*sizes, len(starts))
    card = np.repeat(rng.integers(0, scenario.cards, len(starts)), size)
    steps = rng.exponential(gap, len(card)).astype(np.int64)
    first = np.cumsum(size) - size
    elapsed = np.cumsum(steps)
    elapsed -= np.repeat(elapsed[first], size) if len(starts) else elapsed
    return card, np.repeat(starts, size) + elapsed


def _times(rng: np.random.Generator, scenario: Scenario, world: _World, card: Ints, day: Ints) -> Ints:
    """Around the card's own hour, and a few at any hour."""
    hour = np.where(
        rng.random(len(card)) < 0.15, rng.uniform(0, 24, len(card)), rng.normal(world.hour[card], 2.5) % 24.0
    )
    return scenario.start + day.astype(np.int64) * DAY + (hour * HOUR).astype(np.int64)


def _payments(
    rng: np.random.Generator,
    world: _World,
    card: Ints,
    merchant: Ints,
    amount: Floats,
    time: Ints,
    *,
    online_more: float,
    abroad: float,
    chargebacks: Scenario | None = None,
) -> Payments:
    count = len(card)
    online = rng.random(count) < np.minimum(world.online[merchant] + online_more, 0.95)
    channel = np.where(online, 2, rng.integers(0, 2, count))
    country = np.where(rng.random(count) < abroad, rng.integers(1, 3, count), 0)
    charged_back = np.zeros(count, dtype=np.int64)
    if chargebacks is not None:
        delay = chargebacks.chargeback_median * rng.lognormal(0.0, chargebacks.chargeback_sigma, count)
        charged_back = time + delay.astype(np.int64)
    cents = np.maximum(np.round(amount), 50).astype(np.int64)
    return Payments(
        card=card.astype(np.int64),
        merchant=merchant.astype(np.int64),
        amount=cents,
        channel=channel.astype(np.int64),
        country=country.astype(np.int64),
        time=time // SECOND * SECOND,
        charged_back=charged_back // SECOND * SECOND,
    )
