"""What a query is like, whatever the candidate: the context of a ranking, and the bucket of histories it falls in.

The ranker's weights differ by bucket, and its hidden units see the context.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.model import Model
from pipeline.model.trendcheck import BUCKETS
from pipeline.queries import Queries
from pipeline.types import F32, F64, I64, U32, U64, Rows

CONTEXTS = (
    "history",  # log(1 + positive events ever)
    "gap",  # log(1 + seconds since the last of them)
    "age_at_choice",  # mean over the ring, .9^(d-1), of log(1 + seconds from an item's first event to the user's)
    "popularity",  # mean over the ring, .9^(d-1), of log(1 + n_i)
    "repeats",  # share of the ring that the user had taken before, within the ring
    "last_was_repeat",  # 0 or 1
    "gap_before",  # log(1 + seconds between the last two)
)
_DECAY = 0.9


def contexts(queries: Queries, model: Model) -> F32:
    """(q, g) of each query, finite, in the order of CONTEXTS; once a chunk. All 0 for a stranger."""

    def compute() -> F32:
        out = np.zeros((len(queries), len(CONTEXTS)), np.float32)
        ring = queries.ring_rows, queries.ring.items, queries.ring.times, queries.ring.length
        _contexts(*ring, queries.now, queries.history, model.trends.first_seen, model.trends.count, out)
        return out

    return queries.once("contexts", compute)


def buckets(queries: Queries) -> I64:
    """(q,) of histories: 0, 1-2, 3-6, 7-14, 15-30, more."""
    return np.minimum(np.log2(1 + queries.history.astype(np.float64)).astype(np.int64), BUCKETS - 1)


@njit(cache=True)
def _contexts(
    rows: Rows, items: U64, times: U32, length: I64, now: I64, history: I64, first_seen: I64, count: F64, out: F32
) -> None:
    for query in range(len(now)):
        n = length[query]
        out[query, 0] = math.log1p(history[query])
        if n == 0:
            continue
        out[query, 1] = math.log1p(max(now[query] / 1000 - times[query, 0], 0.0))
        weight, total, age, popularity, repeats = 1.0, 0.0, 0.0, 0.0, 0
        for d in range(n):
            row = rows[query, d]
            if row >= 0:
                total += weight
                age += weight * math.log1p(max(times[query, d] - first_seen[row] / 1000, 0.0))
                popularity += weight * math.log1p(max(count[row], 0.0))
            weight *= _DECAY
            for older in range(d + 1, n):
                if items[query, older] == items[query, d]:
                    repeats += 1
                    if d == 0:
                        out[query, 5] = 1
                    break
        if total > 0:
            out[query, 2], out[query, 3] = age / total, popularity / total
        out[query, 4] = repeats / n
        if n > 1:
            out[query, 6] = math.log1p(max(times[query, 0] - times[query, 1], 0.0))
