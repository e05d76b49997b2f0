"""Selection: the best k of many rows, and the order of scores.

To select and sort, a score and its row are packed into one u64, best smallest: NumPy's vectorised sort of integers does
the work, and ties go to the lower row, whatever the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.types import F32, I32, I64, U32, U64, Mask, Owner, Rows

LIMIT = 200  # proposals of a source for a query

_LEAST = np.float32(1e-20)  # a sparse value below it is no evidence
_NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)
_SAMPLE = 512  # scores that a guess of the k-th best is taken from, at least
_RUN = 16  # scores that are looked at together: a cache line
_FEW = 128  # values that a guess for a long sparse segment is taken from


@dataclass(frozen=True, slots=True)
class Proposals:
    """What one source proposes to q queries: unique rows per query, best first."""

    start: I64  # (q+1,) query i has rows[start[i]:start[i+1]]
    rows: Rows

    @property
    def owner(self) -> Owner:
        """(p,) the query that each row is for."""
        return owners(self.start)

    def pick(self, line: I64) -> Proposals:
        """For each query the list of query `line` (q',) of these, -1 = nothing."""
        if len(line) == 1 and line[0] >= 0:
            rows = self.rows[self.start[line[0]] : self.start[line[0] + 1]]
            return Proposals(np.array((0, len(rows))), rows)
        lengths = self.start[1:] - self.start[:-1]
        counts = np.where(line >= 0, lengths[line], 0) if len(lengths) else np.zeros(len(line), np.int64)
        start = np.zeros(len(line) + 1, np.int64)
        np.cumsum(counts, out=start[1:])
        shift = np.repeat(self.start[line] - start[:-1], counts)  # from a place in the result to its place here
        return Proposals(start, self.rows[np.arange(start[-1]) + shift])


def owners(start: I64) -> Owner:
    """(p,) the owner column of `start` (q+1,)."""
    return np.repeat(np.arange(len(start) - 1), start[1:] - start[:-1])


def best(scores: F32, mask: Mask, k: int = LIMIT) -> Proposals:
    """The k best columns of each line of `scores` (q, n) where `mask` (q or 1, n) holds; -inf and NaN never are.

    Exact. A guessed floor lets most scores be passed over; a line of which too few are above its floor is read again
    without one.
    """
    scores = np.ascontiguousarray(scores, np.float32)
    floor = _floor(scores, mask, k)
    keys, counts, short = _above(scores, scores.view(np.uint32), mask, floor, k)
    if short:
        floor[counts < k] = -np.inf
        keys, counts, _ = _above(scores, scores.view(np.uint32), mask, floor, k)
    return _best_of(keys, counts, k)


def best_sparse(start: I64, rows: Rows | I32, values: F32, mask: Mask, k: int = LIMIT) -> Proposals:
    """The k rows of greatest value of each query's segment; only values > 1e-20 whose row is in `mask` (q or 1, n)."""
    values = np.ascontiguousarray(values, np.float32)
    segments = start, rows, values, values.view(np.uint32), mask, k
    keys, counts, short = _evident(*segments, True)
    if short:
        keys, counts, _ = _evident(*segments, False)
    return _best_of(keys, counts, k)


def order(owner: Owner, scores: F32) -> I64:
    """(c,) the order that puts each owner's greatest scores first; ties stay as they are. NaN counts as the least.

    Owners must be below 1,024 and c below 2^22.
    """
    if len(owner) and (owner[-1] >= 1 << 10 or len(owner) >= 1 << 22):
        found = f"{owner[-1] + 1} and {len(owner)}"
        raise ValueError(f"order: expected at most 1,024 queries and 2^22 candidates, found {found}")
    keys = _order_keys(owner, np.ascontiguousarray(scores, np.float32).view(np.uint32))
    keys.sort()
    keys &= (1 << 22) - 1
    return keys.view(np.int64)


def spread(keys: U64 | I64, owner: Owner, window: int, most: int, depth: int, reach: int = 1 << 40) -> I64:
    """(c,) the order in which of `window` neighbours at most `most` have one key, as long as others are left.

    `keys` (c,), 0 = fits everywhere. Each of an owner's first `depth` places goes to the best candidate left whose key
    is not among the last window - 1 places `most` times, else to the best left; candidates behind the first `reach`
    are not looked at. Behind `depth` the order stays.
    """
    order: I64 = _spread(keys, owner, window, most, depth, reach)
    return order


def _floor(scores: F32, mask: Mask, k: int) -> F32:
    """(q,) a guess that about 4k + 64 scores lie above: a wrong one costs time only."""
    sample, n = _sampled(scores, mask, k)
    if not n:
        return np.full(len(scores), -np.inf, np.float32)
    place = sample.shape[1] - 1 - (4 * k + 64) * sample.shape[1] // n
    sample.partition(place, axis=1)
    return sample[:, place].copy()


def _best_of(keys: U64, counts: I64, k: int) -> Proposals:
    """The rows of the k smallest keys of each line, best first; line i has counts[i], in any order."""
    if keys.shape[1] > k:
        keys.partition(k, axis=1)
        keys = keys[:, :k]
    keys.sort(axis=1)
    return Proposals(*_listed(keys, counts))


@njit(cache=True)
def _sampled(scores: F32, mask: Mask, k: int) -> tuple[F32, int]:
    """(q, m) scores of columns that the first line of `mask` (q or 1, n) allows, in runs of neighbours: fewer cache
    lines to touch; and how many columns it allows. 0 where they are too few for a guess."""
    q, n = scores.shape
    allowed = 0
    for at in range(n if len(mask) else 0):
        allowed += mask[0, at]
    if allowed <= 4 * k + _SAMPLE:
        return np.empty((q, 0), np.float32), 0
    step = _RUN * max(1, min(48, n // _SAMPLE))
    columns, m = np.empty(_RUN * (n // step + 1), np.int64), 0
    for begin in range(0, n, step):
        for at in range(begin, min(begin + _RUN, n)):
            columns[m] = at
            m += mask[0, at]
    sample = np.empty((q, m), np.float32)
    for i in range(q):
        for at in range(m):
            sample[i, at] = scores[i, columns[at]]
    return sample, allowed if m else 0


@njit(cache=True)
def _key(bits: np.uint32, row: int) -> np.uint64:
    """Greater scores give smaller keys; `bits` are those of a float32."""
    falling = bits if bits > np.uint32(0x80000000) else np.uint32(0x7FFFFFFF) - (bits & np.uint32(0x7FFFFFFF))
    return (np.uint64(falling) << np.uint64(32)) | np.uint64(row)


@njit(cache=True)
def _above(scores: F32, bits: U32, mask: Mask, floor: F32, k: int) -> tuple[U64, I64, int]:
    """Packed keys (q, at least k) of what `mask` (q or 1, n) allows above each line's floor, in no order, then
    _NOTHING; how many a line has; and how many lines have fewer than k though their floor may be to blame."""
    q, n = scores.shape
    found = np.empty(n + 1, np.int64)
    width = k
    for i in range(q):
        width = max(width, _count(scores[i], floor[i]))
    keys, counts, short = np.empty((q, width + 1), np.uint64), np.zeros(q, np.int64), 0
    for i in range(q):
        allowed, count = mask[i % len(mask)], 0
        for place in range(_find(scores[i], floor[i], found)):
            at = found[place]
            keys[i, count] = _key(bits[i, at], at)
            count += allowed[at]
        keys[i, count:] = _NOTHING
        counts[i] = count
        short += count < k and floor[i] > -np.inf
    return keys, counts, short


@njit(cache=True)
def _count(values: F32, least: np.float32) -> int:
    found = 0
    for at in range(len(values)):
        found += values[at] > least
    return found


@njit(cache=True)
def _find(values: F32, least: np.float32, found: I64) -> int:
    """Where the values above `least` are, and how many: a loop without branches, which a guess would mislead."""
    n = 0
    for at in range(len(values)):
        found[n] = at
        n += values[at] > least
    return n


@njit(cache=True)
def _evident(
    start: I64, rows: Rows | I32, values: F32, bits: U32, mask: Mask, k: int, guess: bool
) -> tuple[U64, I64, int]:
    """As `_above` for segments; with `guess` of long ones only what is above a floor that each is given."""
    q, width, longest = len(start) - 1, k, 0
    floor = np.full(q, _LEAST, np.float32)
    for i in range(q):
        some = values[start[i] : start[i + 1]]
        if guess:
            floor[i] = _guess(some, k)
        width, longest = max(width, _count(some, floor[i])), max(longest, len(some))
    found = np.empty(longest + 1, np.int64)
    keys, counts, short = np.empty((q, width + 1), np.uint64), np.zeros(q, np.int64), 0
    for i in range(q):
        allowed, count = mask[i % len(mask)], 0
        for place in range(_find(values[start[i] : start[i + 1]], floor[i], found)):
            at = start[i] + found[place]
            keys[i, count] = _key(bits[at], rows[at])
            count += allowed[rows[at]]
        keys[i, count:] = _NOTHING
        counts[i] = count
        short += count < k and floor[i] > _LEAST
    return keys, counts, short


@njit(cache=True)
def _guess(values: F32, k: int) -> np.float32:
    """What about 2k + 64 of many values lie above; _LEAST for few."""
    if len(values) <= 4 * k + _FEW:
        return _LEAST
    sample = np.empty(_FEW, np.float32)
    for at in range(_FEW):
        sample[at] = values[at * len(values) // _FEW]
    sample.sort()
    return max(sample[_FEW - 1 - (2 * k + 64) * _FEW // len(values)], _LEAST)


@njit(cache=True)
def _listed(keys: U64, counts: I64) -> tuple[I64, Rows]:
    """Where each line's rows start (q+1,), and the rows of its first counts[i] keys, as far as it has so many."""
    start = np.zeros(len(counts) + 1, np.int64)
    for i in range(len(counts)):
        start[i + 1] = start[i] + min(counts[i], keys.shape[1])
    rows = np.empty(start[-1], np.int64)
    for i in range(len(counts)):
        for at in range(start[i + 1] - start[i]):
            rows[start[i] + at] = keys[i, at] & np.uint64(0xFFFFFFFF)
    return start, rows


@njit(cache=True)
def _order_keys(owner: Owner, bits: U32) -> U64:
    """Owner, score (greatest first, what is no number last) and place in one number: 10, 32 and 22 bits."""
    keys = np.empty(len(owner), np.uint64)
    for at in range(len(owner)):
        number = (bits[at] & np.uint32(0x7FFFFFFF)) <= np.uint32(0x7F800000)
        falling = _key(bits[at] if number else np.uint32(0xFF800000), 0) >> np.uint64(10)
        keys[at] = (np.uint64(owner[at]) << np.uint64(54)) | falling | np.uint64(at)
    return keys


@njit(cache=True)
def _spread(keys: U64 | I64, owner: Owner, window: int, most: int, depth: int, reach: int) -> I64:
    order, first = np.arange(len(keys)), 0
    while first < len(keys):
        end = first
        while end < len(keys) and owner[end] == owner[first]:
            end += 1
        for place in range(first, min(first + depth, end)):
            chosen = _fitting(keys, order, max(first, place - window + 1), place, min(end, first + reach), most)
            taken = order[chosen]
            for at in range(chosen, place, -1):
                order[at] = order[at - 1]
            order[place] = taken
        first = end
    return order


@njit(cache=True)
def _fitting(keys: U64 | I64, order: I64, since: int, place: int, end: int, most: int) -> int:
    """The first of order[place:end] whose key stands in order[since:place] fewer than `most` times; `place` if none."""
    for at in range(place, end):
        mine, times = keys[order[at]], 0
        for before in range(since, place):
            times += keys[order[before]] == mine
        if mine == 0 or times < most:
            return at
    return place
