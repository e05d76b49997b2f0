"""implicit (https://github.com/benfred/implicit): factors by alternating least squares, and item neighbours.

It learns in batches. Between refits a user is folded in: the factors are computed anew from what the user took, at each
query; and factors of items that were taken are updated, with their users', every few events (`partial_fit_*`).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from implicit.utils import ParameterWarning
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from pipeline.types import F64

_FIRST = 100  # events before the first fit
_GROWTH = 1.1  # the next fit waits until there are this many times as many events, as long as that is sooner


class _Taken:
    """Who took what, as the library wants it."""

    def __init__(self, decay: float) -> None:
        self.users: list[int] = []
        self.items: list[int] = []
        self.n_users = self.n_items = 0
        self.of_user: dict[int, list[int]] = {}
        self.by_item: dict[int, list[int]] = {}
        self._decay = decay

    def add(self, user: int, item: int) -> None:
        self.users.append(user)
        self.items.append(item)
        self.n_users, self.n_items = max(self.n_users, user + 1), max(self.n_items, item + 1)
        self.of_user.setdefault(user, []).append(item)
        self.by_item.setdefault(item, []).append(user)

    def matrix(self) -> Any:
        """(users, items) how often."""
        ones = np.ones(len(self.users), np.float32)
        return csr_matrix((ones, (self.users, self.items)), shape=(self.n_users, self.n_items))

    def row(self, user: int, n: int) -> Any:
        """(1, n) what the user took of the items below n, the newest first in weight: decay^(d-1)."""
        items = [item for item in self.of_user.get(user, ()) if item < n]
        weights = (self._decay ** np.arange(len(items) - 1, -1, -1)).astype(np.float32)
        row = csr_matrix((weights, items, [0, len(items)]), shape=(1, n))
        row.sum_duplicates()
        return row


class _Schedule:
    """When a fit is due: soon while there is little, then every so many events."""

    def __init__(self, every: int) -> None:
        self._every, self._due = every, _FIRST

    def __call__(self, events: int) -> bool:
        if events < self._due:
            return False
        self._due = min(int(events * _GROWTH) + 1, events + self._every)
        return True


class Als:
    """Alternating least squares on implicit feedback (Hu, Koren and Volinsky 2008), kept fresh."""

    def __init__(
        self, factors: int, regularization: float, alpha: float, decay: float, refit: int, partial: int, seed: int
    ) -> None:
        threadpool_limits(1, "blas")
        self._model = AlternatingLeastSquares(
            factors=factors, regularization=regularization, alpha=alpha, num_threads=1, random_state=seed
        )
        self._taken, self._refit, self._partial = _Taken(decay), _Schedule(refit), partial
        self._new_users: dict[int, None] = {}
        self._new_items: dict[int, None] = {}
        self._rng = np.random.default_rng(seed)

    def learn(self, user: int, item: int) -> None:
        self._taken.add(user, item)
        self._new_users[user] = self._new_items[item] = None
        events = len(self._taken.users)
        if self._refit(events):
            self._fit()
        elif self._model.item_factors is not None and events % self._partial == 0:
            self._catch_up()

    def scores(self, user: int, n: int) -> F64 | None:
        model = self._model
        if model.item_factors is None:
            return None
        known = len(model.item_factors)
        row = self._taken.row(user, known)
        if not row.nnz:
            return None
        out = np.full(n, np.nan)
        out[:known] = model.item_factors @ model.recalculate_user(0, row)
        out[:known][~model.item_factors.any(axis=1)] = np.nan  # of these nothing is known yet
        return out

    def _fit(self) -> None:
        """All factors, from where they stand: fewer steps are enough after the first fit."""
        model = self._model
        if model.item_factors is not None:
            model.user_factors = self._grown(model.user_factors, self._taken.n_users)
            model.item_factors = self._grown(model.item_factors, self._taken.n_items)
            model.iterations = 3
        model.fit(self._taken.matrix(), show_progress=False)
        self._new_users, self._new_items = {}, {}

    def _catch_up(self) -> None:
        users, items = list(self._new_users), list(self._new_items)
        n_items, n_users = len(self._model.item_factors), self._taken.n_users
        known = [user for user in users if any(item < n_items for item in self._taken.of_user[user])]
        if known:
            self._model.partial_fit_users(known, _rows([self._taken.of_user[user] for user in known], n_items))
        self._model.user_factors = self._padded(self._model.user_factors, n_users)
        self._model.partial_fit_items(items, _rows([self._taken.by_item[item] for item in items], n_users))
        self._new_users, self._new_items = {}, {}

    def _grown(self, factors: Any, n: int) -> Any:
        more = self._rng.random((n - len(factors), factors.shape[1]), dtype=np.float32) * np.float32(0.01)
        return np.concatenate((factors, more))

    def _padded(self, factors: Any, n: int) -> Any:
        return np.concatenate((factors, np.zeros((max(n - len(factors), 0), factors.shape[1]), np.float32)))


def _rows(lists: list[list[int]], n: int) -> Any:
    """(len(lists), n) how often each list names each number below n."""
    kept = [[one for one in some if one < n] for some in lists]
    start = np.cumsum([0, *map(len, kept)])
    flat = [one for some in kept for one in some]
    rows = csr_matrix((np.ones(len(flat), np.float32), flat, start), shape=(len(lists), n))
    rows.sum_duplicates()
    return rows


class Neighbours:
    """Item neighbours on cosine, TF-IDF or BM25 similarity, fitted anew every so often."""

    def __init__(self, kind: str, k: int, decay: float, refit: int) -> None:
        kinds = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}
        self._model = kinds[kind](K=k, num_threads=1)
        self._taken, self._refit = _Taken(decay), _Schedule(refit)

    def learn(self, user: int, item: int) -> None:
        self._taken.add(user, item)
        if self._refit(len(self._taken.users)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ParameterWarning)  # it warns of a matrix that it made itself
                self._model.fit(self._taken.matrix(), show_progress=False)

    def scores(self, user: int, n: int) -> F64 | None:
        similarity = self._model.similarity
        if similarity is None:
            return None
        known = similarity.shape[0]
        row = self._taken.row(user, known) @ similarity
        out = np.full(n, np.nan)
        out[row.indices] = row.data
        return out


def als(*, seed: int, **settings: Any) -> Als:
    """Fitted anew every 1,000 events, caught up with every 50."""
    return Als(refit=1000, partial=50, seed=seed, **settings)


def neighbours(*, seed: int, **settings: Any) -> Neighbours:
    """Fitted anew every 500 events. Nothing is drawn."""
    return Neighbours(refit=500, **settings)
