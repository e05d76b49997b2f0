"""The sequence model: a vector and a bias an item, learned online by a sampled softmax over what comes next.

    x_i = e_out[i] + e_in[i]                                         what an item says as history
    h0 = s sum_d w_d x[i_d],  s = (sum_d w_d)^-1/2                   history i_1 (newest) .. i_L, taken at t_d
    w_d = exp(alpha_d + beta[gap(now - t_d)])                        attention over position and time gap
    h = h0 + c_gap[gap(now - t_1)] + c_hist[floor(log2(1 + events before))]          context vectors
    z_j = h . e_out[j] + b_j,   p = softmax(z) over the target and the negatives

An item's vector is the same on both sides but for e_in, which begins at 0 and learns half as fast: what is learned of
an item as a target holds for it as history, at once. Each of the HEADS parts of the dimensions has an attention of its
own (as in Vaswani et al. 2017), alpha, beta and s: one part lives in the moment, the other remembers.

All but the gaps' edges is learned. Row-wise Adagrad (Duchi et al. 2011) with one accumulator a vector. Uniform
negatives: popularity-sampled ones would destroy the popularity signal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.model.changes import Changes
from pipeline.model.rows import ItemRows
from pipeline.types import F32, I32, I64, RING, U32, U64, ItemVectors, Mask, Rows

GAPS_S = (1, 10, 60, 300, 1800, 3 * 3600, 86_400, 7 * 86_400, 30 * 86_400)  # edges of time gaps, seconds
GAPS = len(GAPS_S) + 1
HISTORIES = 6  # 0, 1-2, 3-6, 7-14, 15-30, 31 and more events before

HEADS = 2
DECAYS = (0.7, 0.97)  # of each head's attention before it has learned, a step back in the history
NEWEST = 1.0  # alpha of the newest item before it has learned: it counts e times what the decay says
RATE = np.float32(0.1)  # eta
DEVIATION_RATE = np.float32(0.05)  # of e_in
CONTEXT_RATE = np.float32(0.05)
ATTENTION_RATE = np.float32(0.03)
START = np.float32(1e-6)  # of the vectors' accumulators (G0)
ATTENTION_START = np.float32(0.01)  # of the attention's
STEEPEST = np.float32(12)  # alpha and beta stay within +-12: no weight overflows, none is 0
SPREAD = 0.12  # standard deviation of a fresh vector
LIMIT = np.float32(1e9)  # a component beyond it is broken: dot products must stay finite

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio

# NaN and infinity must survive: the guard looks for them. Sums run into a local variable, in loops that store nothing:
# others may be added up in another order where their arrays lie otherwise in memory, and bits must not depend on that.
_FAST = {"reassoc", "contract", "nsz"}


@dataclass(frozen=True, slots=True)
class Steps:
    """Training steps in log order: m events of s users, rows resolved."""

    targets: Rows  # (m,)
    times: I64  # (m,) ms
    rings: Rows  # (m, L) history before the event, newest first, -1 = none or unknown
    ring_times: U32  # (m, L) epoch seconds
    ring_length: I64  # (m,) unknown items among them
    before: I64  # (m,) positive events before the event
    weights: F32  # (m,)
    seeds: U64  # (m,) of the generator that draws the negatives
    owner: I64  # (m,) whose consumed items: 0..s-1
    consumed_start: I64  # (s+1,)
    consumed: U32  # truncated hashes


def fresh_alpha() -> F32:
    """(HEADS, L) a steep and a slow decay."""
    alpha = np.log(DECAYS)[:, None] * np.arange(RING)
    alpha[:, 0] = NEWEST
    return alpha.astype(np.float32)


class Tuned(NamedTuple):
    """What is learned beside the rows: attention and context, with an Adagrad accumulator a number or vector."""

    alpha: F32  # (HEADS, L)
    beta: F32  # (HEADS, GAPS)
    context: F32  # (GAPS + HISTORIES, k)
    alpha_power: F32  # (HEADS, L)
    beta_power: F32  # (HEADS, GAPS)
    context_power: F32  # (GAPS + HISTORIES,)

    @staticmethod
    def fresh(dimension: int) -> Tuned:
        """Nothing learned yet."""
        return Tuned(
            alpha=fresh_alpha(),
            beta=np.zeros((HEADS, GAPS), np.float32),
            context=np.zeros((GAPS + HISTORIES, dimension), np.float32),
            alpha_power=np.full((HEADS, RING), ATTENTION_START, np.float32),
            beta_power=np.full((HEADS, GAPS), ATTENTION_START, np.float32),
            context_power=np.full(GAPS + HISTORIES, START, np.float32),
        )


class Sequence:
    """Vectors of every row; attention and context for all. `known` rows have a record of their own, others zeros."""

    def __init__(self, rows: ItemRows, dimension: int) -> None:
        self._rows = rows
        self.dimension = dimension
        self._tuned = Tuned.fresh(dimension)
        self._attention: F32 | None = None  # made when it is asked for
        self._e_in = rows.column((dimension,), np.float32, 0)
        self._g_in = rows.column((), np.float32, START)
        # What a negative touches lies together: e_out, bias, g_out, g_bias, padding.
        self._out = rows.column((-(-(dimension + 3) // 16) * 16,), np.float32, 0)
        self._known = rows.column((), np.bool_, False)
        self._pool = rows.column((), np.int32, 0)  # known rows in the order of becoming known
        self.n_known = 0

    @property
    def e_in(self) -> F32:
        """(capacity, k) how an item's vector as history differs from e_out."""
        return self._e_in.data

    @property
    def e_out(self) -> F32:
        """(capacity, k), a strided view."""
        return self._out.data[:, : self.dimension]

    @property
    def out(self) -> F32:
        """(capacity, more than k) contiguous: e_out, bias and what else lies there; for kernels."""
        return self._out.data

    @property
    def bias(self) -> F32:
        """(capacity,), a strided view."""
        return self._out.data[:, self.dimension]

    @property
    def attention(self) -> F32:
        """(HEADS, L, GAPS) the weight of a ring's d-th item by the gap since it was taken."""
        if self._attention is None:
            alpha, beta = self._tuned.alpha.astype(np.float64), self._tuned.beta.astype(np.float64)
            self._attention = np.exp(alpha[:, :, None] + beta[:, None, :]).astype(np.float32)
        return self._attention

    @property
    def context(self) -> F32:
        """(GAPS + HISTORIES, k) what h gains, by the gap since the newest item and by the events before."""
        return self._tuned.context

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

    def begin(self, rows: Rows) -> Rows:
        """Give fresh vectors to those of `rows` that are not known: they become known with their first step.

        Returns which they are, each once.
        """
        new = np.unique(rows[~self.known[rows]])
        _begin(new, self._rows.hashes, self.dimension, self._e_in.data, self._g_in.data, self._out.data)
        return new

    def learn(self, steps: Steps, negatives: int, changes: Changes) -> int:
        """Learn `steps` in order; targets must have been given to `begin`. Returns how many broken rows were reset."""
        self._attention = None
        self.n_known, reset = _learn(
            self._e_in.data, self._g_in.data, self._out.data, self.dimension, self._tuned,
            self._rows.hashes, self._known.data, self._pool.data, self.n_known,
            steps.targets, steps.times, steps.rings, steps.ring_times, steps.ring_length, steps.before,
            steps.weights, steps.seeds, steps.owner, steps.consumed_start, steps.consumed,
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
        """Take over what a record says of `row`, which becomes known.

        An accumulator that is below where all of them begin begins there: a step divides by its root.
        """
        out, k = self._out.data[row], self.dimension
        self._e_in.data[row] = record.e_in
        out[:k] = record.e_out
        out[k] = record.bias
        self._g_in.data[row], out[k + 1], out[k + 2] = np.maximum(record.accumulators, START)
        if not self._known.data[row]:
            self._known.data[row] = True
            self._pool.data[self.n_known] = row
            self.n_known += 1

    def export_parameters(self) -> dict[str, NDArray[Any]]:
        """Copies of what `Tuned` holds, by its names."""
        return {name: array.copy() for name, array in self._tuned._asdict().items()}

    def put_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `export_parameters` gave."""
        for name, array in self._tuned._asdict().items():
            array[:] = arrays[name]
        _tame(self._tuned)
        self._attention = None

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
        e_in[row] = 0
        _normals(mix(hashes[row]), out[row, :k])
        out[row, k] = 0
        out[row, k + 1 :] = START
        g_in[row] = START


@njit(cache=True)
def gap_bucket(now: int, then: int) -> int:
    """The gap between two times, ms and epoch seconds: its place between the edges GAPS_S; one below 0 counts as 0."""
    gap = now // 1000 - np.int64(then)
    bucket = 0
    while bucket < len(GAPS_S) and gap >= GAPS_S[bucket]:
        bucket += 1
    return bucket


@njit(cache=True)
def add_context(context: F32, now: int, newest: int, length: int, before: int, h: F32) -> None:
    """Add to h (k,) the context vectors of a ring of `length` whose newest item is of `newest` (epoch seconds)."""
    if length > 0:
        vector = context[gap_bucket(now, newest)]
        for i in range(len(h)):
            h[i] += vector[i]
    vector = context[GAPS + history_bucket(before)]
    for i in range(len(h)):
        h[i] += vector[i]


@njit(cache=True)
def history_bucket(before: int) -> int:
    """min(HISTORIES - 1, floor(log2(1 + before)))."""
    bucket = 0
    while bucket < HISTORIES - 1 and (before + 1) >> (bucket + 1) > 0:
        bucket += 1
    return bucket


@njit(cache=True, fastmath=_FAST)
def _learn(
    e_in: F32, g_in: F32, out: F32, k: int, tuned: Tuned,
    hashes: U64, known: Mask, pool: I32, n_known: int,
    targets: Rows, times: I64, rings: Rows, ring_times: U32, ring_length: I64, before: I64,
    weights: F32, seeds: U64, owner: I64, consumed_start: I64, consumed: U32,
    negatives: int, moved: F32,
) -> tuple[int, int]:  # fmt: skip
    taken = np.zeros(4096, np.uint32)
    stamps = np.full(4096, -1, np.int64)
    chosen = np.empty(negatives + 1, np.int64)
    pull = np.empty(negatives + 1, np.float32)  # z, then c = (1 at the target) - p, times the weight
    h0, h, gh = np.empty(k, np.float32), np.empty(k, np.float32), np.empty(k, np.float32)
    gaps, shares = np.empty(rings.shape[1], np.int64), np.empty((HEADS, rings.shape[1]), np.float32)
    scales, own = np.empty(HEADS, np.float32), np.empty((HEADS, rings.shape[1]), np.float32)
    marked, reset = -1, 0
    for at in range(len(targets)):
        if owner[at] != marked:
            marked = owner[at]
            _mark(consumed[consumed_start[marked] : consumed_start[marked + 1]], taken, stamps, marked)
        _attend(rings[at], ring_times[at], times[at], tuned, gaps, shares)
        _compose(rings[at], e_in, out, shares, scales, h0)
        h[:] = h0
        add_context(tuned.context, times[at], ring_times[at, 0], ring_length[at], before[at], h)
        chosen[0] = targets[at]
        n = _choose(seeds[at], pool, n_known, hashes, taken, stamps, marked, chosen)
        if _pull(chosen, n, h, out, k, weights[at], pull) and _gradient(chosen, n, pull, out, gh):
            _own(rings[at], gh, e_in, out, own)
            _step_out(chosen, n, pull, h, out, k, moved)
            _step_attention(rings[at], gaps, shares, scales, gh, h0, own, tuned)
            _step_history(rings[at], shares, gh, e_in, g_in, out, moved)
            if ring_length[at] > 0:
                _step_context(gap_bucket(times[at], ring_times[at, 0]), gh, tuned)
            _step_context(GAPS + history_bucket(before[at]), gh, tuned)
        else:
            reset += _mend(chosen[:n], rings[at], hashes, k, e_in, g_in, out) + _tame(tuned)
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


@njit(cache=True)
def part(head: int, k: int) -> tuple[np.uintp, np.uintp]:
    """A head's dimensions, from and to. Unsigned: an index that cannot be below 0 makes a loop five times as fast."""
    return np.uintp(head * k // HEADS), np.uintp((head + 1) * k // HEADS)


@njit(cache=True, fastmath=_FAST)
def _attend(ring: Rows, ring_times: U32, now: int, tuned: Tuned, gaps: I64, shares: F32) -> None:
    """Gap buckets and weights w_d of a ring's known items; weights of 0 for the others."""
    for d in range(len(ring)):
        gaps[d] = gap_bucket(now, ring_times[d])
        for head in range(HEADS):
            known = ring[d] >= 0
            shares[head, d] = np.exp(tuned.alpha[head, d] + tuned.beta[head, gaps[d]]) if known else np.float32(0)


@njit(cache=True, fastmath=_FAST)
def _compose(ring: Rows, e_in: F32, out: F32, shares: F32, scales: F32, h0: F32) -> None:
    """h0 of a history, 0 for an empty one, and each s; makes s w_d of each w_d."""
    h0[:] = 0
    for head in range(HEADS):
        total = np.float32(0)
        for d in range(len(ring)):
            total += shares[head, d]
        scales[head] = np.float32(1) / np.sqrt(total) if total > 0 else np.float32(0)
        for d in range(len(ring)):
            shares[head, d] *= scales[head]
    for d in range(len(ring)):
        row = ring[d]
        if row >= 0:
            for head in range(HEADS):
                share = shares[head, d]
                for i in range(*part(head, len(h0))):
                    h0[i] += share * (e_in[row, i] + out[row, i])


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
    for j in range(n):
        total += pull[j]
    if not total <= len(chosen):  # a comparison: fast math folds isfinite away
        return False
    share = -weight / total
    for j in range(n):
        pull[j] *= share
    pull[0] += weight
    return True


@njit(cache=True, fastmath=_FAST)
def _gradient(chosen: I64, n: int, pull: F32, out: F32, gh: F32) -> bool:
    """gh = sum_j c_j e_out[j], before any of them is written; False if it is beyond all bounds."""
    gh[:] = 0
    for j in range(n):
        c, row = pull[j], chosen[j]
        for i in range(len(gh)):
            gh[i] += c * out[row, i]
    return bool(_power(gh) <= LIMIT * LIMIT)


@njit(cache=True, fastmath=_FAST)
def _power(vector: F32) -> np.float32:
    power = np.float32(0)
    for i in range(len(vector)):
        power += vector[i] * vector[i]
    return power


@njit(cache=True, fastmath=_FAST)
def _step_out(chosen: I64, n: int, pull: F32, h: F32, out: F32, k: int, moved: F32) -> None:
    power = _power(h)
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
def _own(ring: Rows, gh: F32, e_in: F32, out: F32, own: F32) -> None:
    """gh . x[i_d], a head each, before anything is written."""
    for d in range(len(ring)):
        row = ring[d]
        if row >= 0:
            for head in range(HEADS):
                total = np.float32(0)
                for i in range(*part(head, len(gh))):
                    total += gh[i] * (e_in[row, i] + out[row, i])
                own[head, d] = total


@njit(cache=True, fastmath=_FAST)
def _step_attention(ring: Rows, gaps: I64, shares: F32, scales: F32, gh: F32, h0: F32, own: F32, tuned: Tuned) -> None:
    """g_d = s w_d (gh . x[i_d]) - s^2 w_d (gh . h0) / 2, for alpha_d and for beta of its gap, a head each."""
    alpha, beta, _, alpha_power, beta_power, _ = tuned
    by_gap = np.empty(GAPS, np.float32)
    for head in range(HEADS):
        whole = np.float32(0)
        for i in range(*part(head, len(gh))):
            whole += gh[i] * h0[i]
        by_gap[:] = 0
        for d in range(len(ring)):
            if ring[d] >= 0:
                g = shares[head, d] * (own[head, d] - np.float32(0.5) * scales[head] * whole)
                by_gap[gaps[d]] += g
                _step_number(alpha, alpha_power, head, d, g)
        for gap in range(GAPS):
            if by_gap[gap] != 0:
                _step_number(beta, beta_power, head, gap, by_gap[gap])


@njit(cache=True, fastmath=_FAST)
def _step_number(values: F32, powers: F32, head: int, at: int, g: np.float32) -> None:
    powers[head, at] += g * g
    stepped = values[head, at] + ATTENTION_RATE * g / np.sqrt(powers[head, at])
    values[head, at] = min(max(stepped, -STEEPEST), STEEPEST)


@njit(cache=True, fastmath=_FAST)
def _step_history(ring: Rows, shares: F32, gh: F32, e_in: F32, g_in: F32, out: F32, moved: F32) -> None:
    """The gradient by x[i_d] is s w_d gh, a head each; it moves e_out and, half as fast, e_in."""
    k = len(gh)
    powers = np.empty(HEADS, np.float32)
    for head in range(HEADS):
        power = np.float32(0)
        for i in range(*part(head, k)):
            power += gh[i] * gh[i]
        powers[head] = power
    for d in range(len(ring)):
        row = ring[d]
        if row >= 0:
            power = np.float32(0)
            for head in range(HEADS):
                power += shares[head, d] * shares[head, d] * powers[head]
            g_in[row] += power / np.float32(k)
            out[row, k + 1] += power / np.float32(k)
            step, deviation = RATE / np.sqrt(out[row, k + 1]), DEVIATION_RATE / np.sqrt(g_in[row])
            for head in range(HEADS):
                by_in, by_out = deviation * shares[head, d], step * shares[head, d]
                for i in range(*part(head, k)):
                    e_in[row, i] += by_in * gh[i]
                    out[row, i] += by_out * gh[i]
            moved[row] += (step + deviation) * np.sqrt(power)


@njit(cache=True, fastmath=_FAST)
def _step_context(row: int, gh: F32, tuned: Tuned) -> None:
    tuned.context_power[row] += _power(gh) / np.float32(len(gh))
    step = CONTEXT_RATE / np.sqrt(tuned.context_power[row])
    for i in range(len(gh)):
        tuned.context[row, i] += step * gh[i]


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
def _tame(tuned: Tuned) -> int:
    """Begin anew what is broken of attention and context; returns how many numbers and vectors that were."""
    reset = 0
    for head in range(HEADS):
        for d in range(RING):
            if _wild(tuned.alpha[head, d], tuned.alpha_power[head, d]):
                alpha = d * math.log(DECAYS[head]) if d > 0 else NEWEST
                tuned.alpha[head, d], tuned.alpha_power[head, d] = alpha, ATTENTION_START
                reset += 1
        for gap in range(GAPS):
            if _wild(tuned.beta[head, gap], tuned.beta_power[head, gap]):
                tuned.beta[head, gap], tuned.beta_power[head, gap] = 0, ATTENTION_START
                reset += 1
    for row in range(len(tuned.context)):
        if _broken(tuned.context[row]) or not START <= tuned.context_power[row] <= LIMIT * LIMIT:
            tuned.context[row], tuned.context_power[row] = 0, START
            reset += 1
    return reset


@njit(cache=True)
def _wild(value: np.float32, power: np.float32) -> bool:
    return not (abs(value) <= STEEPEST and ATTENTION_START <= power <= LIMIT * LIMIT)


@njit(cache=True)
def _broken(values: F32) -> bool:
    for value in values:  # noqa: SIM110 - the kernel's compiler knows no any()
        if not abs(value) <= LIMIT:
            return True
    return False
