"""What is like the things that a user has had enough of stands further back, for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, I64, U64, Mask, Owner, Rows

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
        place = np.arange(len(rows))
        if not queries.blocked_times.any():
            return place
        who, what, weight = self._blocked(queries, model)
        mine = np.flatnonzero(np.bincount(who, minlength=len(queries))[owner])
        first = np.searchsorted(who, np.arange(len(queries) + 1))
        kinds = _kinds(catalog, model, np.concatenate((what, rows[mine])))
        kin = np.float32(self.category), np.float32(self.taste)
        tired = np.zeros(len(rows), np.float32)
        tired[mine] = _tired(first, weight, kinds, owner[mine], kin)
        order: I64 = np.lexsort((place + np.where(tired < self.off, self.places * tired, _END), owner))
        return order

    def _blocked(self, queries: Queries, model: Model) -> tuple[Owner, Rows, F32]:
        """Who blocked which rows lately, owners ascending, and how much it weighs today: (n,) each."""
        dated = np.flatnonzero(queries.blocked_times)
        who = np.searchsorted(queries.blocked.start, dated, "right") - 1
        age = np.maximum(queries.now[who] // 1000 - queries.blocked_times[dated].astype(np.int64), 0)
        step = np.searchsorted([days * _DAY_S for days, _ in self.steps], age, "right")
        weight = np.array([*(weight for _, weight in self.steps), 0.0], np.float32)[step]
        what = model.rows.find_marks(queries.blocked.marks[dated])
        live = np.flatnonzero((weight > 0) & (what >= 0))
        return who[live], what[live], weight[live]


class _Kinds(NamedTuple):
    """What n items are like."""

    creator: U64  # (n,) 0 = none
    categories: U64  # (n, w) zeros beyond the last
    described: Mask  # (n,) the catalogue says one of these
    cluster: I64  # (n,) of taste; -1 = none, or nobody needs it


def _kinds(catalog: Catalog, model: Model, rows: Rows) -> _Kinds:
    creator, categories = catalog.creator[rows], catalog.categories[rows]
    described = (creator > 0) | (categories[:, 0] > 0)
    if described.all():
        return _Kinds(creator, categories, described, np.full(len(rows), -1))
    return _Kinds(creator, categories, described, model.clusters.of(model.sequence.e_out[rows]))


@njit(cache=True)
def _tired(first: I64, weight: F32, kinds: _Kinds, owner: Owner, kin: tuple[np.float32, np.float32]) -> F32:
    """(c,) of candidates; `kinds` are of what was blocked, by query i first[i]:first[i+1], then of the candidates."""
    tired = np.zeros(len(owner), np.float32)
    for at in range(len(owner)):
        fresh = np.float32(1)
        for i in range(first[owner[at]], first[owner[at] + 1]):
            fresh *= 1 - weight[i] * _kin(kinds, i, len(weight) + at, kin)
        tired[at] = 1 - fresh
    return tired


@njit(cache=True)
def _kin(kinds: _Kinds, i: int, j: int, kin: tuple[np.float32, np.float32]) -> np.float32:
    if kinds.creator[i] != 0 and kinds.creator[i] == kinds.creator[j]:
        return np.float32(1)
    if not (kinds.described[i] and kinds.described[j]):
        alike = kinds.cluster[i] >= 0 and kinds.cluster[i] == kinds.cluster[j]
        return kin[1] if alike else np.float32(0)
    shared = either = 0
    for mine in kinds.categories[i]:
        if mine == 0:
            break
        either += 1
    for theirs in kinds.categories[j]:
        if theirs == 0:
            break
        common = 0
        for mine in kinds.categories[i]:
            common |= mine == theirs
        shared += common
        either += 1 - common
    return kin[0] * np.float32(shared) / np.float32(max(either, 1))
