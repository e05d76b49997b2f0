"""What is known of some rows for each query, at candidates: sparse columns read where somebody asks."""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.types import F32, I32, I64, Owner, Rows


def look_up(start: I64, known: I32, columns: tuple[F32, ...], owner: Owner, rows: Rows, place: I32) -> F32:
    """(m, c) the m `columns` at candidates (c,), whose owners ascend; 0 where nothing is known.

    Query q knows something of known[start[q]:start[q+1]], each row once: the same places of the columns. `place` (n,)
    is scratch, zeros before and after.
    """
    if not len(known):
        return np.zeros((len(columns), len(rows)), np.float32)
    found: F32 = _look_up(start, known, columns, owner, rows, place)
    return found


@njit(cache=True)
def _look_up(start: I64, known: I32, columns: tuple[F32, ...], owner: Owner, rows: Rows, place: I32) -> F32:
    """No branches: whether anything is known of a candidate, nobody can guess."""
    out, first = np.empty((len(columns), len(rows)), np.float32), 0
    while first < len(rows):
        query, at = owner[first], first
        for entry in range(start[query], start[query + 1]):
            place[known[entry]] = entry + 1
        while at < len(rows) and owner[at] == query:
            entry = place[rows[at]]
            hit = np.float32(entry > 0)
            entry -= entry > 0
            for line in range(len(columns)):
                out[line, at] = hit * columns[line][entry]
            at += 1
        for entry in range(start[query], start[query + 1]):
            place[known[entry]] = 0
        first = at
    return out
