"""river (https://github.com/online-ml/river): the matrix factorizations of `river.reco`, one event at a time.

They predict a number, so events alone (always 1) would teach them nothing: with each come a few random items that the
user has not taken, as 0. Scores are the library's `predict_one` for all items at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import optim, reco

from pipeline.types import F64

_LOSSES = {"squared": optim.losses.Squared, "log": optim.losses.Log}


class River:
    """FunkMF, BiasedMF or Baseline with random negatives."""

    def __init__(
        self, kind: str, factors: int, rate: float, l2: float, negatives: int, seed: int, loss: str = "squared"
    ) -> None:
        self._factors, self._negatives = factors, negatives
        self._rng = np.random.default_rng(seed)
        self._model = _model(kind, factors, rate, l2, loss, seed)
        self._latents: NDArray[np.float64] = np.zeros((1024, factors))  # of items, the same as the model's
        self._biases = np.zeros(1024)
        self._n = 0
        self._taken: dict[int, set[int]] = {}

    def learn(self, user: int, item: int) -> None:
        self._n = max(self._n, item + 1)
        taken = self._taken.setdefault(user, set())
        taken.add(item)
        self._step(user, item, 1.0)
        for other in self._rng.integers(self._n, size=self._negatives).tolist():
            if other not in taken:
                self._step(user, other, 0.0)

    def scores(self, user: int, n: int) -> F64 | None:
        """Without what is the same for all items of a user: the mean and the user's bias."""
        out = self._biases[:n].copy()
        if self._factors:
            out += self._latents[:n] @ self._model.u_latents[user]
        return out

    def _step(self, user: int, item: int, y: float) -> None:
        model = self._model
        model.learn_one(user, item, y)
        if self._n > len(self._biases):
            self._biases = np.concatenate((self._biases, np.zeros_like(self._biases)))
            self._latents = np.concatenate((self._latents, np.zeros_like(self._latents)))
        if self._factors:
            self._latents[item] = model.i_latents[item]
        if hasattr(model, "i_biases"):
            self._biases[item] = model.i_biases[item]


def _model(kind: str, factors: int, rate: float, l2: float, loss: str, seed: int) -> Any:
    start = optim.initializers.Normal(mu=0.0, sigma=0.1, seed=seed)
    if kind == "baseline":
        return reco.Baseline(optimizer=optim.SGD(rate), l2=l2, loss=_LOSSES[loss]())
    if kind == "funk":
        return reco.FunkMF(factors, optim.SGD(rate), _LOSSES[loss](), l2, start, seed=seed)
    return reco.BiasedMF(
        factors, optim.SGD(rate), optim.SGD(rate), _LOSSES[loss](), l2, l2, latent_initializer=start, seed=seed
    )


def baseline(*, seed: int, **settings: Any) -> River:
    """Biases of users and items alone."""
    return River("baseline", factors=0, l2=0.0, seed=seed, **settings)


def funk(*, seed: int, **settings: Any) -> River:
    """Factors alone."""
    return River("funk", seed=seed, **settings)


def biased(*, seed: int, **settings: Any) -> River:
    """Factors and biases."""
    return River("biased", seed=seed, **settings)
