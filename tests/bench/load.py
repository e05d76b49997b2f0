"""Events to measure with: users with tastes, items with a long tail, every event with an id and a time of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workers.importers.dataset import Data

ACTIONS = np.array(["view", "click", "like", "purchase"])
MIX = (0.4, 0.45, 0.1, 0.05)
TASTES = 50  # groups of items; a user has one
FAITHFUL = 0.8  # chance that an event is of the user's taste
TAIL = 1.1  # Zipf exponent of the items of a taste
BLOCK = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """How many users and items there are. The same seed, the same events but for their ids and times."""

    users: int
    items: int
    seed: int = 1

    def events(self, count: int, run: str) -> Iterator[Data]:
        """`count` events, times within the last minute, ids beginning with `run`. The first touch every item once."""
        rng = np.random.default_rng(self.seed)
        first = rng.permutation(self.items)
        now = int(time.time() * 1000) - 60_000
        for begin in range(0, count, BLOCK):
            n = min(BLOCK, count - begin)
            users = rng.integers(self.users, size=n)
            items = self._items(rng, users)
            untouched = first[begin : begin + n]
            items[: len(untouched)] = untouched
            actions = rng.choice(ACTIONS, size=n, p=MIX)
            for at in range(n):
                number = begin + at
                yield {
                    "user_id": f"user-{users[at]}",
                    "item_id": f"item-{items[at]}",
                    "action": str(actions[at]),
                    "time": now + number * 60_000 // count,
                    "event_id": f"{run}-{number}",
                    "session_id": f"s-{users[at]}-{number // 100_000}",
                }

    def _items(self, rng: np.random.Generator, users: np.ndarray) -> np.ndarray:
        taste = np.where(rng.random(len(users)) < FAITHFUL, users % TASTES, rng.integers(TASTES, size=len(users)))
        per_taste = self.items // TASTES
        rank = np.minimum(rng.zipf(TAIL, size=len(users)) - 1, rng.integers(per_taste, size=len(users)))
        items: np.ndarray = taste * per_taste + rank
        return items
