"""A place for the new, and only a few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, profile
from pipeline.types import F32, F64, I64, Mask, Owner, Rows


@dataclass(frozen=True, slots=True)
class Newcomers:
    """One young item that fits its owner's taste stands at `place` or before it; of the first `depth` at most `most`
    are items that nobody has taken.

    Young is an item of which less than `young` (weight of events) was taken; it fits from `near` on, the product with
    the profile. Without such a place an item that nobody knows would stay unknown: nothing but its content speaks for
    it, and rankers trust what was taken. The bound is for the day when thousands are published at once.
    """

    name: str = "newcomers"
    place: int = 8  # from 1
    most: int = 2
    depth: int = 10
    young: float = 5.0
    near: float = 0.1  # one in six of what is young, on sets of films; half of what they take of it

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> I64:
        taken = model.trends.count[rows]
        order = np.arange(len(rows))
        if not (taken < self.young).any():
            return order
        fits = _fits(profile(queries, catalog), catalog.content, taken, self.young, self.near, rows, owner)
        _arrange(taken <= 0, fits, owner, self.place, self.most, self.depth, order)
        return order


@njit(cache=True, fastmath={"reassoc", "contract"})
def _fits(profile: F32, content: F32, taken: F64, young: float, near: float, rows: Rows, owner: Owner) -> Mask:
    """(c,) young, and near the owner's profile."""
    fits = np.zeros(len(rows), np.bool_)
    for at in range(len(rows)):
        if taken[at] < young:
            mine, other, nearness = profile[owner[at]], content[rows[at]], np.float32(0)
            for i in range(len(other)):
                nearness += mine[i] * other[i]
            fits[at] = nearness >= near
    return fits


@njit(cache=True)
def _arrange(new: Mask, fits: Mask, owner: Owner, place: int, most: int, depth: int, order: I64) -> None:
    """Lift one that fits, then bound the new, but for that one; `order` (c,) counts up, and is changed."""
    first = 0
    while first < len(owner):
        end, guest = first, -1
        while end < len(owner) and owner[end] == owner[first]:
            if guest < 0 and fits[end]:
                guest = end
            end += 1
        if guest >= 0:
            _lift(order, guest, min(guest, first + place - 1))
        news = 1 if guest >= 0 and new[guest] else 0
        for to in range(first, min(first + depth, end)):
            chosen = to
            while news >= most and chosen < end and new[order[chosen]] and order[chosen] != guest:
                chosen += 1
            _lift(order, chosen if chosen < end else to, to)  # nothing but the new is left: then so be it
            news += new[order[to]] and order[to] != guest
        first = end


@njit(cache=True)
def _lift(order: I64, at: int, to: int) -> None:
    """Move one entry forward; those between step back."""
    taken = order[at]
    for behind in range(at, to, -1):
        order[behind] = order[behind - 1]
    order[to] = taken
