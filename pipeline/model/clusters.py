"""Taste clusters: items that the same people take, found without being told what they are.

Spherical k-means (Dhillon and Modha 2001) over x_i = e_out[i] / |e_out[i]|, online in mini-batches (Sculley 2010):

    a_i = argmax_c x_i . m_c / |m_c|
    n_c <- min(n_c f + b_c, MEMORY),   f = 1 - m / (MEMORY k)            batch of m vectors, b_c of them of c
    m_c <- m_c + (mean of the batch's x of c - m_c) b_c / n_c

m_c is the mean of the cluster's directions: |m_c| tells how close they lie. The bound on n_c lets clusters follow
vectors that go on learning, slowly, so that a cluster stays what it was called. It begins with k-means++ (Arthur and
Vassilvitskii 2007); a cluster that has hardly any items left begins anew where an item fits worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model.sequence import draw
from pipeline.types import F32, I64, U64, Mask

CLUSTERS = 32
MEMORY = 1000.0  # items that a mean is made of, at most
STARVED = 0.02  # of the average number of items: less is too few for a cluster
ORDINARY = 8.0  # items as all are that a cluster is thought to hold beside its own when it is named
TELLING = 0.1  # nats that a word must tell of a cluster, to name it

_BEGIN = 4  # vectors a cluster that it takes to begin
_DICE = np.uint64(0x7A57E)


class Clusters:
    """k means of unit vectors. All zeros until there are enough items to begin with."""

    def __init__(self, dimension: int, k: int = CLUSTERS) -> None:
        self._means = np.zeros((k, dimension), np.float32)
        self._counts = np.zeros(k, np.float32)  # n_c

    @property
    def begun(self) -> bool:
        """Are there clusters yet?"""
        return bool(self._counts.any())

    def __len__(self) -> int:
        return len(self._means)

    def of(self, vectors: F32) -> I64:
        """The cluster of each vector (m, d), -1 for zeros, and for all before there are clusters."""
        if not self.begun or not len(vectors):
            return np.full(len(vectors), -1, np.int64)
        found: I64 = np.argmax(vectors @ _units(self._means).T, axis=1)
        found[~_real(vectors)] = -1
        return found

    def learn(self, vectors: F32) -> None:
        """Move towards vectors (m, d) of items that changed; those that are zero or not finite say nothing."""
        units = _units(vectors[_real(vectors)])
        if not self.begun:
            self._begin(units)
        if not self.begun or not len(units):
            return
        fits = units @ _units(self._means).T  # (m, k)
        mine = np.argmax(fits, axis=1)
        batch = np.bincount(mine, minlength=len(self)).astype(np.float32)
        sums = np.array([units[mine == c].sum(axis=0) for c in range(len(self))], np.float32)
        fading = np.float32(max(1 - len(units) / (MEMORY * len(self)), 0.5))
        counts = np.minimum(fading * self._counts + batch, np.float32(MEMORY))
        pace = (np.minimum(batch, MEMORY) / np.maximum(counts, 1))[:, None]
        self._means += pace * (sums / np.maximum(batch, 1)[:, None] - self._means)
        self._counts = counts
        self._feed(units[np.argmin(fits.max(axis=1))])

    def export_parameters(self) -> dict[str, NDArray[Any]]:
        """Copies of the means and their counts."""
        return {"means": self._means.copy(), "counts": self._counts.copy()}

    def put_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take them over."""
        self._means, self._counts = arrays["means"].copy(), arrays["counts"].copy()

    def _begin(self, units: F32) -> None:
        """k-means++: each next centre is drawn with a chance as 1 - cos to the nearest that there is."""
        if len(units) < _BEGIN * len(self):
            return
        chosen, far = 0, np.full(len(units), np.inf, np.float32)
        for c in range(len(self)):
            dice = float(draw(_DICE, c) >> np.uint64(11)) / 2.0**53
            reach = np.cumsum(np.where(np.isinf(far), 1.0, far), dtype=np.float64)
            chosen = min(int(np.searchsorted(reach, dice * reach[-1], "right")), len(units) - 1)
            self._means[c] = units[chosen]
            far = np.minimum(far, np.maximum(1 - units @ units[chosen], 0))
        self._counts[:] = 1

    def _feed(self, worst: F32) -> None:
        """The emptiest cluster begins anew at a vector that none fits, if it is starved."""
        least = int(np.argmin(self._counts))
        if self._counts[least] < STARVED * self._counts.mean():
            self._means[least], self._counts[least] = worst, 1


def typical(cluster: I64, marks: U64, k: int, most: int = 2) -> list[list[int]]:
    """What each of k clusters is about: up to `most` of the marks (tags, categories: hashes) that are typical of it.

    Items (n,) with their cluster, -1 = none; marks (n, w), zeros = none. A mark is the more typical the more of the
    cluster's items bear it and the fewer of all: p(mark | c) log(p(mark | c) / p(mark)), its part of the divergence
    between the cluster and all items, where p(mark | c) counts ORDINARY items beside its own: one item of a few
    that bears a rare word is no taste. Marks below TELLING are left out, and with them those that are no commoner in
    the cluster than elsewhere: a name that fits everything says nothing. Ties: the lower hash.
    """
    inside = cluster >= 0
    words, place = np.unique(marks[inside], return_inverse=True)
    table = np.zeros((k, len(words)))
    np.add.at(table, (np.repeat(cluster[inside], marks.shape[1]), place.reshape(-1)), 1)
    sizes = np.bincount(cluster[inside], minlength=k)[:, None]
    overall = table.sum(axis=0) / max(int(inside.sum()), 1)
    share = (table + ORDINARY * overall) / (sizes + ORDINARY)
    gain = share * np.log(share / overall)
    gain[:, words == 0] = 0
    order = np.argsort(-gain, axis=1, kind="stable")[:, :most]
    return [[int(words[at]) for at in line if gain[c, at] >= TELLING] for c, line in enumerate(order)]


def _real(vectors: F32) -> Mask:
    """(m,) which are finite and not zero."""
    power = np.einsum("ij,ij->i", vectors, vectors)
    real: Mask = (power > 0) & np.isfinite(power)
    return real


def _units(vectors: F32) -> F32:
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    units: F32 = vectors / np.maximum(norms, np.float32(1e-30))
    return units
