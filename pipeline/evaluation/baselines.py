"""Plain methods, answered in the same pass: all-time popularity, trending, co-visitation alone, sequence model alone.

Each orders every item that the recipe's filters allow, by one score; what has no score (never counted, not known, no
evidence) is not in its list. The chosen item's place follows from counting, without sorting.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import HALF_LIVES_MS
from pipeline.queries import Queries, evidence, logits
from pipeline.retrieval import Recipe
from pipeline.types import F32, F64, I32, I64, Mask, Rows

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"))


def span(ms: int) -> str:
    """A half-life as the figures name it: 15min, 6h, 3d."""
    unit, name = next((one for one in _UNITS if ms % one[0] == 0), (1, "ms"))
    return f"{ms // unit}{name}"


NAMES = ("popularity", *(f"trending_{span(ms)}" for ms in HALF_LIVES_MS), "covisitation", "sequence")

_HALF_LIVES = np.array(HALF_LIVES_MS, np.float64)
_FIRST_TREND, _COVISITATION, _SEQUENCE = 1, len(NAMES) - 2, len(NAMES) - 1


class Baselines:
    """Keeps what it takes to compare trends without decaying every item at every query.

    All counts decay alike, so x 2^((reference - now) / H) orders as log2 x + reference / H, which only an event of the
    item changes.
    """

    def __init__(self, model: Model, catalog: Catalog, recipe: Recipe) -> None:
        self._model, self._catalog = model, catalog
        self._filters = (*recipe.filters, *recipe.guards)
        self._levels = model.rows.column((len(HALF_LIVES_MS),), np.float64, -np.inf)

    def places(self, queries: Queries, chosen: int) -> F64:
        """The rank of row `chosen` by each of NAMES in the one query given; infinity = not in its list."""
        model, n = self._model, len(self._model.rows)
        out = np.full(len(NAMES), np.inf)
        allowed = self._allowed(queries, n)
        if chosen < 0 or not allowed[chosen]:
            return out
        out[:_COVISITATION] = _counted(allowed, model.trends.count[:n], self._levels.data[:n], chosen)
        found = evidence(queries, model)
        out[_COVISITATION] = _sparse(allowed, found.rows, found.cov, chosen)
        out[_SEQUENCE] = _dense(allowed & model.sequence.known[:n], logits(queries, model)[0], chosen)
        return out

    def count(self, row: int) -> None:
        """The trends have counted an event of `row`."""
        trends = self._model.trends
        with np.errstate(divide="ignore"):
            levels = np.log2(trends.decayed[row].astype(np.float64)) + trends.reference[row] / _HALF_LIVES
        self._levels.data[row] = levels

    def _allowed(self, queries: Queries, n: int) -> Mask:
        rows, owner = np.arange(n), np.zeros(n, np.int64)
        allowed: Mask = self._catalog.present()
        for part in self._filters:
            allowed &= part(queries, self._catalog, rows, owner)
        return allowed


@njit(cache=True)
def _place(better: int, equal: int) -> float:
    """The middle of the ranks that equal scores share; `equal` counts the chosen item too."""
    return 1 + better + (equal - 1) / 2


@njit(cache=True)
def _counted(allowed: Mask, count: F64, levels: F64, chosen: int) -> F64:
    """By all-time count, then by each column of `levels` (n, H)."""
    out, kinds = np.full(1 + levels.shape[1], np.inf), levels.shape[1]
    if count[chosen] <= 0:
        return out
    better, equal = np.zeros(1 + kinds, np.int64), np.zeros(1 + kinds, np.int64)
    for row in range(len(allowed)):
        if allowed[row] and count[row] > 0:
            better[0] += count[row] > count[chosen]
            equal[0] += count[row] == count[chosen]
            for h in range(kinds):
                better[1 + h] += levels[row, h] > levels[chosen, h]
                equal[1 + h] += levels[row, h] == levels[chosen, h]
    for kind in range(1 + kinds):
        if kind == 0 or levels[chosen, kind - 1] > -np.inf:
            out[kind] = _place(better[kind], equal[kind])
    return out


@njit(cache=True)
def _sparse(allowed: Mask, rows: I32, values: F32, chosen: int) -> float:
    """Among `rows` (e,) with a value above 0."""
    mine = np.float32(0)
    for at in range(len(rows)):
        if rows[at] == chosen:
            mine = values[at]
    if not mine > 0:
        return np.inf
    better = equal = 0
    for at in range(len(rows)):
        if allowed[rows[at]]:
            better += values[at] > mine
            equal += values[at] == mine
    return _place(better, equal)


@njit(cache=True)
def _dense(allowed: Mask, values: F32, chosen: int) -> float:
    if not allowed[chosen] or np.isnan(values[chosen]):
        return np.inf
    better = equal = 0
    for row in range(len(allowed)):
        if allowed[row]:
            better += values[row] > values[chosen]
            equal += values[row] == values[chosen]
    return _place(better, equal)


def rank_of(rows: Rows, scores: F32, chosen: int) -> float:
    """The rank of row `chosen` among candidates (c,); infinity = it is none of them."""
    at: I64 = np.flatnonzero(rows == chosen)
    if not len(at):
        return np.inf
    mine = scores[at[0]]
    return float(_place(int((scores > mine).sum()), int((scores == mine).sum())))
