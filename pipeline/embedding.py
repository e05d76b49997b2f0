"""The user embedding: a decayed sum of the item-in vectors of the user's ring.

    h0 = s * sum_d w_d e_in[i_d],   s = (sum_d w_d)^-1/2,   d = 1 (newest) .. L

The sums run over the ring's known items; an unknown one leaves the others' d as they are. The w_d are
`model.sequence.attention`.

The bits are part of the contract, so that a replay can be compared: every step rounds to float32, items are added from
newest to oldest, s is the float32 of 1 / sqrt(sum of w) in float64. No fast math here.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.model import Model
from pipeline.model.rows import lookup
from pipeline.types import F32, I64, U64, Mask, Rings


def compose(rings: Rings, now: I64, model: Model) -> F32:  # noqa: ARG001 - attention over time gaps will ask for it
    """Embeddings (n, k) of n rings at times `now` (n,) ms; zeros where no item is known."""
    sequence = model.sequence
    out = np.zeros((len(rings), model.dimension), np.float32)
    known = (model.rows.slots, model.rows.hashes, sequence.known)
    _compose((rings.items, rings.length), known, sequence.e_in, sequence.attention, out)
    return out


@njit(cache=True)
def _compose(ring: tuple[U64, I64], known: tuple[I64, U64, Mask], e_in: F32, attention: F32, out: F32) -> None:
    items, length = ring
    slots, hashes, is_known = known
    for user in range(len(items)):
        h, total = out[user], 0.0
        for d in range(length[user]):
            row = lookup(slots, hashes, items[user, d])
            if row >= 0 and is_known[row]:
                w, e = attention[d], e_in[row]
                total += w
                for i in range(len(h)):
                    h[i] += w * e[i]
        if total > 0:
            s = np.float32(1 / math.sqrt(total))
            for i in range(len(h)):
                h[i] *= s
