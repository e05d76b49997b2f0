"""What is like the things that a user has had enough of stands further back, for a while."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, I64, U64, Owner, Rows

_DAY_S = 86_400
_END = 1e9  # places: more than a list has


@dataclass(frozen=True, slots=True)
class Fatigue:
    """A disliked or hidden item pushes its kind down: off at first, then back in steps. Itself it is blocked for good.

        tired_j = 1 - prod_i (1 - s(age_i) kin(i, j))         i: what the user blocked lately, where its time is known

    s falls with the age: up to so many days it is so much, by `steps`, and 0 after the last of them. kin is 1 for items
    of one creator, else `category` times the categories that both have over those that either has (Jaccard 1912);
    where no catalogue says either it is `taste` within one taste cluster.

    An item steps back by `places` x tired_j. From `off` on it goes behind all others: out of any feed that other
    candidates can fill.
    """

    name: str = "fatigue"
    steps: tuple[tuple[float, float], ...] = ((0.125, 1.0), (1, 0.5), (7, 0.2))
    category: float = 0.5
    taste: float = 0.5
    off: float = 0.8
    places: float = 40.0

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> I64:
        order = np.arange(len(rows))
        if not queries.blocked_times.any():
            return order
        who, what, weight = self._blocked(queries, model)
        mine = np.flatnonzero(np.bincount(who, minlength=len(queries))[owner])
        asking, some = owner[mine], rows[mine]
        first = np.searchsorted(who, np.arange(len(queries) + 1))
        known = catalog.creator, catalog.categories, *_tastes(catalog, model, what, some)
        tired = _tired(first, what, weight, asking, some, known, (np.float32(self.category), np.float32(self.taste)))
        back = np.where(tired < self.off, self.places * tired, _END)
        order[mine] = mine[np.lexsort((mine + back, asking))]
        return order

    def _blocked(self, queries: Queries, model: Model) -> tuple[Owner, Rows, F32]:
        """Who blocked which rows lately, owners ascending, and how much it weighs today: (n,) each."""
        dated = np.flatnonzero(queries.blocked_times)
        who = np.searchsorted(queries.blocked.start, dated, "right") - 1
        age = queries.now[who] // 1000 - queries.blocked_times[dated].astype(np.int64)  # below 0: as at once
        step = np.searchsorted([days * _DAY_S for days, _ in self.steps], age, "right")
        weight = np.array([*(weight for _, weight in self.steps), 0.0], np.float32)[step]
        what = model.rows.find_marks(queries.blocked.marks[dated])
        live = np.flatnonzero((weight > 0) & (what >= 0))
        return who[live], what[live], weight[live]


def _tastes(catalog: Catalog, model: Model, blocked: Rows, rows: Rows) -> tuple[I64, I64]:
    """The taste clusters of what was blocked (n,) and of candidates (c,), where they count; else, and of none, -1."""
    both = np.concatenate((blocked, rows))
    silent = (catalog.creator[both] == 0) & (catalog.categories[both, 0] == 0)
    tastes = np.full(len(both), -1)
    if silent.any():
        needed = np.flatnonzero(silent | silent[: len(blocked)].any() | (np.arange(len(both)) < len(blocked)))
        tastes[needed] = model.clusters.of(model.sequence.e_out[both[needed]])
    return tastes[: len(blocked)], tastes[len(blocked) :]


@njit(cache=True)
def _tired(
    first: I64, blocked: Rows, weight: F32, owner: Owner, rows: Rows, known: tuple[U64, U64, I64, I64],
    kin: tuple[np.float32, np.float32],
) -> F32:  # fmt: skip
    """(c,) of candidates; what query i blocked is blocked[first[i]:first[i+1]]."""
    tired, (creator, categories, dislike, taste) = np.zeros(len(rows), np.float32), known
    for at in range(len(rows)):
        row, fresh = rows[at], np.float32(1)
        for i in range(first[owner[at]], first[owner[at] + 1]):
            other = blocked[i]
            silent = creator[row] == 0 and categories[row, 0] == 0
            if silent or (creator[other] == 0 and categories[other, 0] == 0):
                like = kin[1] if dislike[i] >= 0 and dislike[i] == taste[at] else np.float32(0)
            elif creator[row] != 0 and creator[row] == creator[other]:
                like = np.float32(1)
            else:
                like = kin[0] * _shared(categories, row, other)
            fresh *= 1 - weight[i] * like
        tired[at] = 1 - fresh
    return tired


@njit(cache=True)
def _shared(categories: U64, one: int, other: int) -> np.float32:
    """The categories that two rows have in common, over those that either has: 0..1, also if one is told twice."""
    mine, theirs, both = _length(categories, one), _length(categories, other), 0
    for at in range(mine):
        for place in range(theirs):
            both += categories[one, at] == categories[other, place]
    both = min(both, mine, theirs)
    return np.float32(both) / np.float32(max(mine + theirs - both, 1))


@njit(cache=True)
def _length(categories: U64, row: int) -> int:
    n = 0
    while n < categories.shape[1] and categories[row, n] != 0:
        n += 1
    return n
