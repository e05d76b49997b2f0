"""Users in content space: the decayed mean of what they took, and how near items are to it. Nothing of it is kept.

    p = sum_d w^(d-1) x[i_d] / sum_d w^(d-1) - m        d = 1 (newest) .. L, over the items whose content is known

m is the mean of the whole catalogue: what a user has in common with everyone says nothing of them. So p . x_j is above
0 for what is nearer to the user's taste than to any, and small for a taste that goes everywhere.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.types import F32, Mask, Owner, Rows

DECAY = 0.9  # w, a step back in the history


def profiles(rings: Rows, content: F32, described: Mask, typical: F32) -> F32:
    """(q, d) profiles of histories (q, L; newest first, -1 = none), `typical` (d,) is m.

    Zeros where no content is known.
    """
    out = np.zeros((len(rings), content.shape[1]), np.float32)
    _profiles(rings, content, described, typical, out)
    return out


def affinities(profile: F32, rings: Rows, content: F32, owner: Owner, rows: Rows, out: F32) -> None:
    """Fill `out` (2, c): how near each candidate is to its owner's profile (q, d), and (cosine) to their last item."""
    _affinities(profile, rings, content, owner, rows, out)


@njit(cache=True, fastmath={"reassoc", "contract"})
def _profiles(rings: Rows, content: F32, described: Mask, typical: F32, out: F32) -> None:
    for query in range(len(rings)):
        mine, weight, total = out[query], np.float32(1), np.float32(0)
        for row in rings[query]:
            if row >= 0 and described[row]:
                other = content[row]
                total += weight
                for i in range(len(mine)):
                    mine[i] += weight * other[i]
            weight *= np.float32(DECAY)
        if total > 0:
            scale = np.float32(1) / total
            for i in range(len(mine)):
                mine[i] = mine[i] * scale - typical[i]


@njit(cache=True, fastmath={"reassoc", "contract"})
def _affinities(profile: F32, rings: Rows, content: F32, owner: Owner, rows: Rows, out: F32) -> None:
    nothing = np.zeros(content.shape[1], np.float32)
    for at in range(len(rows)):
        query = owner[at]
        newest = rings[query, 0]
        mine, last, other = profile[query], content[newest] if newest >= 0 else nothing, content[rows[at]]
        whole, step = np.float32(0), np.float32(0)
        for i in range(len(other)):
            whole += mine[i] * other[i]
            step += last[i] * other[i]
        out[0, at], out[1, at] = whole, step
