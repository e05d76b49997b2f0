"""The user embedding: a weighted sum of the vectors of the user's ring.

    h0 = s * sum_d w_d x[i_d],   s = (sum_d w_d)^-1/2,   d = 1 (newest) .. L,   x_i = e_in[i] + e_out[i]
    w_d = exp(alpha_d + beta[gap(now - t_d)])                             a table: `model.sequence.attention`
    h  = h0 + c_gap[gap(now - t_1)] + c_hist[history]                     for scoring: `situate`

Each head has its own w and s, for its part of the dimensions. The sums run over the ring's known items; an unknown one
leaves the others' d as they are. h0 is what is published: a function of the state and the model alone. Context vectors
are only good for telling candidates apart.

The bits of h0 are part of the contract, so that a replay can be compared: w_d is the float32 of exp(alpha_d + beta) in
float64, every step rounds to float32, items are added from newest to oldest, s is the float32 of 1 / sqrt(sum of w) in
float64. No fast math here.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.model import Model
from pipeline.model.rows import lookup
from pipeline.model.sequence import HEADS, add_context, gap_bucket, part
from pipeline.types import F32, F64, I64, RING, U32, U64, Mask, Rings, Rows


def compose(rings: Rings, now: I64, model: Model) -> F32:
    """Embeddings h0 (n, k) of n rings at times `now` (n,) ms; zeros where no item is known."""
    sequence = model.sequence
    out = np.zeros((len(rings), model.dimension), np.float32)
    known = (model.rows.slots, model.rows.hashes, sequence.known)
    _compose(
        (rings.items, rings.times, rings.length), now, known, (sequence.e_in, sequence.out), sequence.attention, out
    )
    return out


def situate(h0: F32, rings: Rings, now: I64, history: I64, model: Model) -> F32:
    """h (n, k) of embeddings h0: with what the time since the newest item and `history` (n,), the number of positive
    events ever, say of anyone."""
    out = h0.copy()
    _situate(rings.times, rings.length, now, history, model.sequence.context, out)
    return out


def attend(ring_rows: Rows, times: U32, now: I64, model: Model) -> F32:
    """(n, HEADS, L) the shares s w_d that n rings' places have in h0 at `now` (n,) ms; 0 where no item is known.

    `ring_rows` (n, L) rows of items taken at `times` (n, L) epoch seconds, -1 = none.
    """
    out = np.zeros((len(ring_rows), HEADS, RING), np.float32)
    _attend(ring_rows, times, now, model.sequence.known, model.sequence.attention, out)
    return out


@njit(cache=True)
def _compose(
    ring: tuple[U64, U32, I64], now: I64, known: tuple[I64, U64, Mask], vectors: tuple[F32, F32], attention: F32,
    embeddings: F32,
) -> None:  # fmt: skip
    items, times, length = ring
    slots, hashes, is_known = known
    e_in, out = vectors
    totals = np.zeros(HEADS)
    for user in range(len(items)):
        h = embeddings[user]
        totals[:] = 0
        for d in range(length[user]):
            row = lookup(slots, hashes, items[user, d])
            if row >= 0 and is_known[row]:
                gap = gap_bucket(now[user], times[user, d])
                for head in range(HEADS):
                    w = attention[head, d, gap]
                    totals[head] += w
                    for i in range(*part(head, len(h))):
                        h[i] += w * (e_in[row, i] + out[row, i])
        _scale(totals, h)


@njit(cache=True)
def _scale(totals: F64, h: F32) -> None:
    for head in range(HEADS):
        if totals[head] > 0:
            s = np.float32(1 / math.sqrt(totals[head]))
            for i in range(*part(head, len(h))):
                h[i] *= s


@njit(cache=True)
def _situate(times: U32, length: I64, now: I64, history: I64, context: F32, h: F32) -> None:
    for user in range(len(h)):
        add_context(context, now[user], times[user, 0], length[user], history[user], h[user])


@njit(cache=True)
def _attend(ring_rows: Rows, times: U32, now: I64, known: Mask, attention: F32, out: F32) -> None:
    for user in range(len(out)):
        for head in range(HEADS):
            total = 0.0
            for d in range(ring_rows.shape[1]):
                if ring_rows[user, d] >= 0 and known[ring_rows[user, d]]:
                    out[user, head, d] = attention[head, d, gap_bucket(now[user], times[user, d])]
                    total += out[user, head, d]
            if total > 0:
                out[user, head] *= np.float32(1 / math.sqrt(total))
