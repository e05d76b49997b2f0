"""The user embedding: a weighted sum of the item-in vectors of the user's ring.

    h0 = s * sum_d w_d e_in[i_d],   s = (sum_d w_d)^-1/2,   d = 1 (newest) .. L
    w_d = exp(alpha_d + beta[gap(now - t_d)])                             a table: `model.sequence.attention`
    h  = h0 + c_gap[gap(now - t_1)] + c_hist[history]                     for scoring: `situate`

The sums run over the ring's known items; an unknown one leaves the others' d as they are. h0 is what is published: a
function of the state and the model alone. Context vectors are only good for telling candidates apart.

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
from pipeline.model.sequence import add_context, gap_bucket
from pipeline.types import F32, I64, U32, U64, Mask, Rings


def compose(rings: Rings, now: I64, model: Model) -> F32:
    """Embeddings h0 (n, k) of n rings at times `now` (n,) ms; zeros where no item is known."""
    sequence = model.sequence
    out = np.zeros((len(rings), model.dimension), np.float32)
    known = (model.rows.slots, model.rows.hashes, sequence.known)
    _compose((rings.items, rings.times, rings.length), now, known, sequence.e_in, sequence.attention, out)
    return out


def situate(h0: F32, rings: Rings, now: I64, history: I64, model: Model) -> F32:
    """h (n, k) of embeddings h0: with what the time since the newest item and `history` (n,), the number of positive
    events ever, say of anyone."""
    out = h0.copy()
    _situate(rings.times, rings.length, now, history, model.sequence.context, out)
    return out


def attend(rings: Rings, now: I64, model: Model) -> F32:
    """(n, L) the weights w_d of n rings at times `now` (n,) ms; 0 beyond the length."""
    out = np.zeros(rings.items.shape, np.float32)
    _attend(rings.times, rings.length, now, model.sequence.attention, out)
    return out


@njit(cache=True)
def _compose(
    ring: tuple[U64, U32, I64], now: I64, known: tuple[I64, U64, Mask], e_in: F32, attention: F32, out: F32
) -> None:
    items, times, length = ring
    slots, hashes, is_known = known
    for user in range(len(items)):
        h, total = out[user], 0.0
        for d in range(length[user]):
            row = lookup(slots, hashes, items[user, d])
            if row >= 0 and is_known[row]:
                w, e = attention[d, gap_bucket(now[user], times[user, d])], e_in[row]
                total += w
                for i in range(len(h)):
                    h[i] += w * e[i]
        if total > 0:
            s = np.float32(1 / math.sqrt(total))
            for i in range(len(h)):
                h[i] *= s


@njit(cache=True)
def _situate(times: U32, length: I64, now: I64, history: I64, context: F32, h: F32) -> None:
    for user in range(len(h)):
        add_context(context, now[user], times[user, 0], length[user], history[user], h[user])


@njit(cache=True)
def _attend(times: U32, length: I64, now: I64, attention: F32, out: F32) -> None:
    for user in range(len(out)):
        for d in range(length[user]):
            out[user, d] = attention[d, gap_bucket(now[user], times[user, d])]
