"""flurs (https://github.com/takuti/flurs): incremental matrix factorization, BPR and factorization machines.

Its evaluator keeps users and items registered and their known items noted; so do these. Its neighbours (a Python loop
over users times items an event) and sketches (they need features of users and items) are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flurs.data.entity import Event, Item, User
from flurs.recommender import BPRMFRecommender, FMRecommender, MFRecommender

from pipeline.types import F64


class Flurs:
    """A recommender of the library; `updates` times from each event."""

    def __init__(self, recommender: Any, updates: int = 1, **initialize: bool) -> None:
        self._recommender, self._updates = recommender, updates
        recommender.initialize(**initialize)

    def learn(self, user: int, item: int) -> None:
        one = self._recommender
        event = Event(User(user), Item(item), 1.0)
        if one.is_new_user(user):
            one.register_user(event.user)
        if one.is_new_item(item):
            one.register_item(event.item)
        taken = one.users[user]["known_items"]
        taken.add(item)
        if isinstance(one, BPRMFRecommender) and len(taken) == one.n_item:
            return  # there is no other item to compare with
        for _ in range(self._updates):
            one.update(event)

    def scores(self, user: int, n: int) -> F64 | None:
        """The library's scores, those where smaller is better with the other sign."""
        one = self._recommender
        sign = 1.0 if isinstance(one, BPRMFRecommender) else -1.0
        scores: F64 = sign * np.asarray(one.score(User(user), slice(None)), np.float64)
        return scores


class Machine(Flurs):
    """The factorization machine over one-hot users and items. Scores follow its equation without its sparse matrices,
    which take hundreds of times as long: w0 + w_u + w_i + <v_u, v_i>, and |1 - that| is least for the best."""

    def scores(self, user: int, n: int) -> F64 | None:
        one = self._recommender
        items = slice(one.n_user, one.n_user + n)
        found = one.w0 + one.w[user] + one.w[items] + one.V[items] @ one.V[user]
        scores: F64 = -np.abs(1.0 - found)
        return scores


def mf(*, k: int, rate: float, l2: float, seed: int) -> Flurs:
    """Incremental matrix factorization (Vinagre et al. 2014)."""
    np.random.seed(seed)  # the library draws from there
    return Flurs(MFRecommender(k=k, learn_rate=rate, l2_reg=l2))


def bpr(*, k: int, rate: float, l2: float, updates: int, seed: int) -> Flurs:
    """Incremental BPR (Rendle et al. 2009)."""
    np.random.seed(seed)
    return Flurs(BPRMFRecommender(k=k, learn_rate=rate, l2_reg=l2), updates)


def fm(*, k: int, rate: float, l2_w: float, l2_v: float, seed: int) -> Machine:
    """Incremental factorization machine (Kitazawa 2016)."""
    np.random.seed(seed)
    return Machine(FMRecommender(p=0, k=k, l2_reg_w=l2_w, l2_reg_V=l2_v, learn_rate=rate), use_index=True)
