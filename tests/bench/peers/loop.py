"""The loop for peers: for each event of a known user the chosen item's place in their list, then learn from the event.

As in `pipeline.evaluation`: nothing is known that came later, consumed items are not in the list unless repeats are
allowed, equal scores share the middle of their ranks, an item that nobody took before is a miss. What a peer cannot
score (NaN) stands behind what it can, by how often it was taken: no one shows an empty place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.model.sequence import draw
from pipeline.types import F64, I64
from tests.bench.peers.deeds import Deeds

_DICE = np.uint64(0xB0A7)  # of a sample of queries
_LOOK_EVERY = 200  # events between two looks at the clock


class Peer(Protocol):
    """A library's recommender, with what it takes to keep it up to date."""

    def scores(self, user: int, n: int) -> F64 | None:
        """(n,) scores of the items 0..n-1 for a user with history, greater is better, NaN = cannot say; None = of none.
        The array may be changed by the caller."""

    def learn(self, user: int, item: int) -> None:
        """`user` took `item`; a number not met before is the next one."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """What became of q queries."""

    event: I64  # (q,) place in the stream
    user: I64  # (q,)
    rank: F64  # (q,) inf = a miss
    events: int  # learned from: fewer than there are if time ran out
    learn_us: float  # CPU an event
    query_us: float  # CPU a query


def run(
    peer: Peer,
    deeds: Deeds,
    clock: Callable[[], float],
    *,
    repeats: bool = False,
    sample: int = 1,
    limit_s: float = np.inf,
) -> Ranks:
    """One pass, querying one event in `sample`. `clock` gives seconds of CPU; at `limit_s` of them it stops."""
    walk = _Walk(peer, clock, repeats)
    event: list[int] = []
    rank: list[float] = []
    begun, at = clock(), 0
    for at, (user, item, history) in enumerate(_told(deeds), 1):
        if history and draw(_DICE, at) % np.uint64(sample) == 0:
            event.append(at - 1)
            rank.append(walk.query(user, item))
        walk.learn(user, item)
        if at % _LOOK_EVERY == 0 and clock() - begun > limit_s:
            break
    return Ranks(
        event=deeds.event[event],
        user=deeds.user[event],
        rank=np.array(rank, np.float64),
        events=at,
        learn_us=1e6 * walk.learn_s / max(at, 1),
        query_us=1e6 * walk.query_s / max(len(event), 1),
    )


def _told(deeds: Deeds) -> zip[tuple[int, int, int]]:
    return zip(deeds.user.tolist(), deeds.item.tolist(), deeds.history.tolist(), strict=True)


class _Walk:
    """Where the loop stands."""

    def __init__(self, peer: Peer, clock: Callable[[], float], repeats: bool) -> None:
        self.learn_s = self.query_s = 0.0
        self._peer, self._clock, self._repeats = peer, clock, repeats
        self._taken = np.zeros(1024)  # how often each item was, and room for more
        self._n = 0  # items
        self._consumed: dict[int, dict[int, None]] = {}

    def query(self, user: int, item: int) -> float:
        begun = self._clock()
        scores = self._peer.scores(user, self._n)
        self.query_s += self._clock() - begun
        if item >= self._n:
            return np.inf
        consumed = np.array(list(self._consumed[user]), np.int64) if not self._repeats else _NONE
        return place(filled(scores, self._taken[: self._n]), item, consumed)

    def learn(self, user: int, item: int) -> None:
        begun = self._clock()
        self._peer.learn(user, item)
        self.learn_s += self._clock() - begun
        self._n = max(self._n, item + 1)
        if self._n > len(self._taken):
            self._taken = np.concatenate((self._taken, np.zeros_like(self._taken)))
        self._taken[item] += 1
        self._consumed.setdefault(user, {})[item] = None


_NONE: I64 = np.empty(0, np.int64)


def filled(scores: F64 | None, taken: F64) -> F64:
    """Scores (n,) with what is NaN behind all others, ordered by `taken` (n,)."""
    if scores is None:
        return taken
    unknown = np.isnan(scores)
    if unknown.any():
        least = float(scores[~unknown].min(initial=np.inf))
        behind = (least if np.isfinite(least) else 0.0) - 2
        scores[unknown] = behind + taken[unknown] / (1 + taken.max())
    return scores


def place(scores: F64, item: int, consumed: I64) -> float:
    """The rank of `item` among the items that are not in `consumed` (distinct), from 1; infinity = it is one of them.
    Equal scores share the middle of their ranks."""
    if (consumed == item).any():
        return np.inf
    mine, gone = scores[item], scores[consumed]
    better = int((scores > mine).sum()) - int((gone > mine).sum())
    equal = int((scores == mine).sum()) - int((gone == mine).sum())
    return 1 + better + (equal - 1) / 2
