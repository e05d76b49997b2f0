"""The sequence model: two vectors and a bias an item, learned online by a sampled softmax (an item-to-item Word2Vec).

    h = s sum_d w_d e_in[i_d],  w_d = .9^(d-1),  s = (sum w_d)^-1/2        history i_1 (newest) .. i_L
    z_j = h . e_out[j] + b_j,   p = softmax(z) over the target and the negatives

Row-wise Adagrad (Duchi et al. 2011) with one accumulator a vector. Uniform negatives: popularity-sampled ones would
destroy the popularity signal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.model.changes import Changes
from pipeline.model.rows import ItemRows
from pipeline.types import F32, I32, I64, RING, U32, U64, ItemVectors, Mask, Rows

DECAY = 0.9  # of the attention, a step back in the history
RATE = np.float32(0.1)  # eta
START = np.float32(1e-6)  # of the accumulators (G0)
SPREAD = 0.1  # standard deviation of a fresh vector
LIMIT = np.float32(1e9)  # a component beyond it is broken: dot products must stay finite

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio

# NaN and infinity must survive: the guard looks for them.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@dataclass(frozen=True, slots=True)
class Steps:
    """Training steps in log order: m events of s users, rows resolved."""

    targets: Rows  # (m,)
    rings: Rows  # (m, L) history before the event, newest first, -1 = none or unknown
    weights: F32  # (m,)
    seeds: U64  # (m,) of the generator that draws the negatives
    owner: I64  # (m,) whose consumed items: 0..s-1
    consumed_start: I64  # (s+1,)
    consumed: U32  # truncated hashes


class Sequence:
    """Vectors of every row. `known` rows have a record of their own; the others hold zeros."""

    def __init__(self, rows: ItemRows, dimension: int) -> None:
        self._rows = rows
        self.dimension = dimension
        self.attention: F32 = (DECAY ** np.arange(RING)).astype(np.float32)
        self._e_in = rows.column((dimension,), np.float32, 0)
        self._g_in = rows.column((), np.float32, START)
        # What a negative touches lies together: e_out, bias, g_out, g_bias, padding.
        self._out = rows.column((-(-(dimension + 3) // 16) * 16,), np.float32, 0)
        self._known = rows.column((), np.bool_, False)
        self._pool = rows.column((), np.int32, 0)  # known rows in the order of becoming known
        self.n_known = 0

    @property
    def e_in(self) -> F32:
        """(capacity, k) contiguous."""
        return self._e_in.data

    @property
    def e_out(self) -> F32:
        """(capacity, k), a strided view."""
        return self._out.data[:, : self.dimension]

    @property
    def bias(self) -> F32:
        """(capacity,), a strided view."""
        return self._out.data[:, self.dimension]

    @property
    def known(self) -> Mask:
        """(capacity,) has the row been learned or followed?"""
        return self._known.data

    @property
    def pool(self) -> I32:
        """(n_known,) the known rows."""
        return self._pool.data[: self.n_known]

    def logits(self, h: F32) -> F32:
        """Score every row for embeddings h (q, k): z = h . e_out + b, (q, len(rows)); 0 for rows that are not known."""
        wide = np.ones((len(h), self.dimension + 1), np.float32)
        wide[:, :-1] = h
        scores: F32 = wide @ self._out.data[: len(self._rows), : self.dimension + 1].T
        return scores

    def begin(self, rows: Rows) -> None:
        """Give fresh vectors to those of `rows` that are not known: they become known with their first step."""
        new = np.unique(rows[~self.known[rows]])
        _begin(new, self._rows.hashes, self.dimension, self._e_in.data, self._g_in.data, self._out.data)

    def learn(self, steps: Steps, negatives: int, changes: Changes) -> int:
        """Learn `steps` in order; targets must have been given to `begin`. Returns how many broken rows were reset."""
        self.n_known, reset = _learn(
            self._e_in.data, self._g_in.data, self._out.data, self.dimension, self.attention,
            self._rows.hashes, self._known.data, self._pool.data, self.n_known,
            steps.targets, steps.rings, steps.weights, steps.seeds, steps.owner, steps.consumed_start, steps.consumed,
            negatives, changes.moved,
        )  # fmt: skip
        return int(reset)

    def mend(self, rows: Rows) -> int:
        """Reset those of `rows` that are not finite; returns how many."""
        bad = ~(np.abs(self.e_in[rows]).max(axis=1) <= LIMIT) | ~(np.abs(self._out.data[rows]).max(axis=1) <= LIMIT)
        broken = rows[bad | ~(self._g_in.data[rows] <= LIMIT)]
        _begin(broken, self._rows.hashes, self.dimension, self._e_in.data, self._g_in.data, self._out.data)
        return len(broken)

    def export(self, row: int) -> dict[str, Any]:
        """The fields of `ItemVectors` that are kept here."""
        out, k = self._out.data[row], self.dimension
        return {
            "e_in": self._e_in.data[row].copy(),
            "e_out": out[:k].copy(),
            "bias": float(out[k]),
            "accumulators": np.array((self._g_in.data[row], out[k + 1], out[k + 2]), np.float32),
        }

    def put(self, row: int, record: ItemVectors) -> None:
        """Take over what a record says of `row`, which becomes known."""
        out, k = self._out.data[row], self.dimension
        self._e_in.data[row] = record.e_in
        out[:k] = record.e_out
        out[k] = record.bias
        self._g_in.data[row], out[k + 1], out[k + 2] = record.accumulators
        if not self._known.data[row]:
            self._known.data[row] = True
            self._pool.data[self.n_known] = row
            self.n_known += 1

    def export_parameters(self) -> dict[str, NDArray[Any]]:
        """`attention` (L,)."""
        return {"attention": self.attention.copy()}

    def put_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `export_parameters` gave."""
        self.attention = arrays["attention"]

    def clear(self, row: int) -> None:
        """Forget `row`: not known any more."""
        self._e_in.data[row] = 0
        self._out.data[row] = 0
        if self._known.data[row]:
            self._known.data[row] = False
            kept = self.pool[self.pool != row]
            self._pool.data[: len(kept)] = kept
            self.n_known = len(kept)


@njit(cache=True)
def mix(x: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64 (Steele et al. 2014): 64 well-mixed bits of a counter or key."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def draw(seed: np.uint64, at: int) -> np.uint64:
    """The `at`-th 64-bit draw of the generator `seed`: counter-based, so the order of drawing does not matter."""
    return mix(seed + np.uint64(at + 1) * np.uint64(_GOLDEN))


@njit(cache=True)
def event_seeds(seed: int, partition: I64, offset: I64) -> U64:
    """Seeds (m,) of the generators of events, by their place in the log."""
    seeds = np.empty(len(offset), np.uint64)
    for at in range(len(offset)):
        seeds[at] = mix(mix(np.uint64(seed) + np.uint64(partition[at]) * np.uint64(_GOLDEN)) + np.uint64(offset[at]))
    return seeds


@njit(cache=True)
def _normals(seed: np.uint64, out: F32) -> None:
    """Fill `out` with N(0, SPREAD) by Box and Muller, a draw a component."""
    for at in range(len(out)):
        bits = draw(seed, at)
        radius = (np.float64(bits >> np.uint64(32)) + 1.0) / 4294967296.0
        angle = np.float64(bits & np.uint64(0xFFFFFFFF)) / 4294967296.0
        out[at] = SPREAD * math.sqrt(-2.0 * math.log(radius)) * math.cos(2.0 * math.pi * angle)


@njit(cache=True)
def _begin(rows: Rows, hashes: U64, k: int, e_in: F32, g_in: F32, out: F32) -> None:
    """Fresh vectors, seeded by the item alone: the same item starts the same in every process."""
    for row in rows:
        _normals(hashes[row], e_in[row])
        _normals(mix(hashes[row]), out[row, :k])
        out[row, k] = 0
        out[row, k + 1 :] = START
        g_in[row] = START


@njit(cache=True, fastmath=_FAST)
def _learn(
    e_in: F32, g_in: F32, out: F32, k: int, attention: F32,
    hashes: U64, known: Mask, pool: I32, n_known: int,
    targets: Rows, rings: Rows, weights: F32, seeds: U64, owner: I64, consumed_start: I64, consumed: U32,
    negatives: int, moved: F32,
) -> tuple[int, int]:  # fmt: skip
    taken = np.zeros(4096, np.uint32)
    stamps = np.full(4096, -1, np.int64)
    chosen = np.empty(negatives + 1, np.int64)
    pull = np.empty(negatives + 1, np.float32)  # z, then c = (1 at the target) - p, times the weight
    h, gh = np.empty(k, np.float32), np.empty(k, np.float32)
    marked, reset = -1, 0
    for at in range(len(targets)):
        if owner[at] != marked:
            marked = owner[at]
            _mark(consumed[consumed_start[marked] : consumed_start[marked + 1]], taken, stamps, marked)
        scale = _compose(rings[at], e_in, attention, h)
        chosen[0] = targets[at]
        n = _choose(seeds[at], pool, n_known, hashes, taken, stamps, marked, chosen)
        if _pull(chosen, n, h, out, k, weights[at], pull):
            _gradient(chosen, n, pull, out, gh)
            _step_out(chosen, n, pull, h, out, k, moved)
            _step_in(rings[at], scale, gh, e_in, g_in, attention, moved)
        else:
            reset += _mend(chosen[:n], rings[at], hashes, k, e_in, g_in, out)
        if not known[targets[at]]:
            known[targets[at]] = True
            pool[n_known] = targets[at]
            n_known += 1
    return n_known, reset


@njit(cache=True)
def _mark(consumed: U32, taken: U32, stamps: I64, stamp: int) -> None:
    """Make the hash set `taken` hold `consumed` (at most half its slots); entries of other stamps count as empty."""
    mask = len(taken) - 1
    for item in consumed[: len(taken) // 2]:
        slot = np.int64(item) & mask
        while stamps[slot] == stamp and taken[slot] != item:
            slot = (slot + 1) & mask
        taken[slot], stamps[slot] = item, stamp


@njit(cache=True)
def _has(item: np.uint32, taken: U32, stamps: I64, stamp: int) -> bool:
    mask = len(taken) - 1
    slot = np.int64(item) & mask
    while stamps[slot] == stamp:
        if taken[slot] == item:
            return True
        slot = (slot + 1) & mask
    return False


@njit(cache=True, fastmath=_FAST)
def _compose(ring: Rows, e_in: F32, attention: F32, h: F32) -> np.float32:
    """h of a history; returns s, 0 for an empty one."""
    h[:] = 0
    total = np.float32(0)
    for d in range(len(ring)):
        row = ring[d]
        if row >= 0:
            w = attention[d]
            total += w
            for i in range(len(h)):
                h[i] += w * e_in[row, i]
    if total == 0:
        return np.float32(0)
    scale: np.float32 = np.float32(1) / np.sqrt(total)
    for i in range(len(h)):
        h[i] *= scale
    return scale


@njit(cache=True)
def _choose(
    seed: np.uint64, pool: I32, n_known: int, hashes: U64, taken: U32, stamps: I64, stamp: int, chosen: I64
) -> int:
    """Draw negatives behind the target chosen[0], uniform with replacement; drops the target and consumed ones."""
    n = 1
    if n_known == 0:
        return n
    for at in range(len(chosen) - 1):
        high = draw(seed, at) >> np.uint64(32)
        row = pool[np.int64((high * np.uint64(n_known)) >> np.uint64(32))]
        if row != chosen[0] and not _has(np.uint32(hashes[row] & np.uint64(0xFFFFFFFF)), taken, stamps, stamp):
            chosen[n] = row
            n += 1
    return n


@njit(cache=True, fastmath=_FAST)
def _pull(chosen: I64, n: int, h: F32, out: F32, k: int, weight: np.float32, pull: F32) -> bool:
    """The gradient of log p(target) by each z, times the weight; False if anything is not finite."""
    peak = np.float32(-np.inf)
    for j in range(n):
        row = chosen[j]
        z = out[row, k]
        for i in range(k):
            z += h[i] * out[row, i]
        pull[j] = z
        peak = max(peak, z)
    total = np.float32(0)
    for j in range(n):
        pull[j] = np.exp(pull[j] - peak)
        total += pull[j]
    if not total <= len(chosen):  # a comparison: fast math folds isfinite away
        return False
    for j in range(n):
        pull[j] *= -weight / total
    pull[0] += weight
    return True


@njit(cache=True, fastmath=_FAST)
def _gradient(chosen: I64, n: int, pull: F32, out: F32, gh: F32) -> None:
    """gh = sum_j c_j e_out[j], before any of them is written."""
    gh[:] = 0
    for j in range(n):
        c, row = pull[j], chosen[j]
        for i in range(len(gh)):
            gh[i] += c * out[row, i]


@njit(cache=True, fastmath=_FAST)
def _step_out(chosen: I64, n: int, pull: F32, h: F32, out: F32, k: int, moved: F32) -> None:
    power = np.float32(0)
    for i in range(k):
        power += h[i] * h[i]
    for j in range(n):
        c, row = pull[j], chosen[j]
        out[row, k + 1] += c * c * power / np.float32(k)
        step = RATE / np.sqrt(out[row, k + 1]) * c
        for i in range(k):
            out[row, i] += step * h[i]
        out[row, k + 2] += c * c
        nudge = RATE / np.sqrt(out[row, k + 2]) * c
        out[row, k] += nudge
        moved[row] += abs(step) * np.sqrt(power) + abs(nudge)


@njit(cache=True, fastmath=_FAST)
def _step_in(ring: Rows, scale: np.float32, gh: F32, e_in: F32, g_in: F32, attention: F32, moved: F32) -> None:
    power = np.float32(0)
    for i in range(len(gh)):
        power += gh[i] * gh[i]
    for d in range(len(ring)):
        row = ring[d]
        if row >= 0:
            share = scale * attention[d]
            g_in[row] += share * share * power / np.float32(len(gh))
            step = RATE / np.sqrt(g_in[row]) * share
            for i in range(len(gh)):
                e_in[row, i] += step * gh[i]
            moved[row] += step * np.sqrt(power)


@njit(cache=True)
def _mend(chosen: I64, ring: Rows, hashes: U64, k: int, e_in: F32, g_in: F32, out: F32) -> int:
    """Reset the broken rows of a step that was not finite; returns how many."""
    reset = 0
    for rows in (chosen, ring):
        for at in range(len(rows)):
            row = rows[at]
            if row >= 0 and (_broken(e_in[row]) or _broken(out[row]) or not g_in[row] <= LIMIT):
                _begin(rows[at : at + 1], hashes, k, e_in, g_in, out)
                reset += 1
    return reset


@njit(cache=True)
def _broken(values: F32) -> bool:
    for value in values:  # noqa: SIM110 - the kernel's compiler knows no any()
        if not abs(value) <= LIMIT:
            return True
    return False
