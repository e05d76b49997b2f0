"""The items of the synthetic world: what they are, when they appear, what they are worth to everybody at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.world.titles import SHELVES

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

DAY_MS = 86_400_000
DIMENSION = 16
STYLES = 4  # a shelf
SEQUELS = 0.4  # share of new items that continue a series, on shelves that have series
PARTS = 3
SPREAD = 1.1  # of the log-odds of popularity
TIDES, TIDE = 0.2, 3.0  # share of items that have a tide; its height
FRESH_MS = DAY_MS / 2  # how long the charm of the new lasts
UNSAFE, UNAVAILABLE = 0.015, 0.02  # shares
AWAY = -30.0  # the appeal of what is not to be had


class Assortment:
    """Items 0, 1, 2 .., each made from the seed, its number and the items before it; made when asked for.

    The first `size` were published in the two months before `start` (ms), the others one every `every` ms after it.
    """

    def __init__(self, seed: int, size: int, start: int, every: float) -> None:
        self._seed, self._size, self._start, self._every = seed, size, start, every
        rng = np.random.default_rng([seed, 0])
        self.shelves = unit(rng.standard_normal((len(SHELVES), DIMENSION)))  # (shelves, d)
        own = unit(rng.standard_normal((len(SHELVES), STYLES, DIMENSION)))
        self.styles = unit(self.shelves[:, None] + 0.8 * own)  # (shelves, styles, d)
        self.vectors: F32 = np.zeros((size, DIMENSION), np.float32)  # (capacity, d) unit vectors, where items are
        self._columns: F64 = np.zeros((5, size))  # (5, capacity) base appeal, published, tide's height, period, phase
        self._data: list[dict[str, Any]] = []
        self._place: list[tuple[int, int, int, int]] = []  # shelf, number on it, style, part of the series
        self._next: dict[int, int] = {}  # item -> the one that continues it
        self._open: list[list[int]] = [[] for _ in SHELVES]  # items a shelf that may be continued
        self._on_shelf = [0] * len(SHELVES)
        self.grow(size)

    def grow(self, count: int) -> None:
        """Make the items up to `count`."""
        while len(self.vectors) < count:
            self.vectors = np.concatenate([self.vectors, np.zeros_like(self.vectors)])
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], 1)
        while len(self._data) < count:
            self._make(len(self._data))

    def data(self, item: int) -> dict[str, Any]:
        """The data of the item's `items` record."""
        self.grow(item + 1)
        return dict(self._data[item])

    def published(self, item: int) -> int:
        """When the item appeared or will appear, ms."""
        self.grow(item + 1)
        return int(self._columns[1, item])

    def for_sale(self, item: int) -> bool:
        """Whether the item can be bought, rather than seen, heard or read."""
        return "price" in self._data[item]

    def sequel(self, item: int, count: int) -> int:
        """The item that continues `item`, if it is among the first `count` and to be had; else -1."""
        after = self._next.get(item, -1)
        return after if after < count and self._data[after]["available"] else -1

    def appeal(self, count: int, time: int) -> F64:
        """(count,) log-odds that everybody gives the first `count` items at `time`."""
        self.grow(count)
        base, published, height, period, phase = self._columns[:, :count]
        tide = height * np.cos(np.pi * (time / period + phase)) ** 8  # a few hours high, days low
        charm: F64 = base + tide + 1.5 * np.exp(-np.maximum(time - published, 0.0) / FRESH_MS)
        return charm

    def _make(self, item: int) -> None:
        rng = np.random.default_rng([self._seed, 3, item])
        chance = rng.random(9).tolist()
        shelf, number, style, part = self._settle(item, chance)
        centre = self.styles[shelf, style]
        self.vectors[item] = unit(centre + 0.5 * unit(rng.standard_normal(DIMENSION)))
        unsafe, available = chance[3] < UNSAFE, chance[4] >= UNAVAILABLE
        published = self._appears(item, chance[5])
        base = SPREAD * rng.standard_normal() - (1.0 if unsafe else 0.0) if available else AWAY
        height = TIDE if chance[6] < TIDES else 0.0
        self._columns[:, item] = base, published, height, (1.5 + 3.5 * chance[7]) * DAY_MS, chance[8]
        self._data.append(
            {
                "item_id": item_id(item),
                **SHELVES[shelf].item(number, style, part),
                "available": available,
                "unsafe": ["nsfw" if item % 2 else "violence"] if unsafe else [],
                "published_at": published,
            }
        )

    def _settle(self, item: int, chance: list[float]) -> tuple[int, int, int, int]:
        """Where the item belongs: on with a series, or new on some shelf."""
        shelf = int(chance[0] * len(SHELVES))
        may_continue = self._open[shelf]
        if may_continue and chance[1] < SEQUELS:
            before = may_continue.pop(int(chance[2] * len(may_continue)))
            self._next[before] = item
            _, number, style, part = self._place[before]
            place = shelf, number, style, part + 1
        else:
            place = shelf, self._on_shelf[shelf], int(chance[2] * STYLES), 0
            self._on_shelf[shelf] += 1
        self._place.append(place)
        if SHELVES[shelf].series and place[3] + 1 < PARTS:
            may_continue.append(item)
        return place

    def _appears(self, item: int, chance: float) -> int:
        if item < self._size:
            return self._start - int((1 + 60 * chance) * DAY_MS)
        return self._start + int((item - self._size + 0.2 + 0.6 * chance) * self._every)


def unit(vectors: F64) -> F64:
    """The vectors at length one."""
    scaled: F64 = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def item_id(number: int) -> str:
    """The id of item `number`, from 0."""
    return f"i-{number + 1:04}"


def number_of(an_id: str) -> int:
    """The number in a user's or item's id, from 0."""
    return int(an_id[2:]) - 1
