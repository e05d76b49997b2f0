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

_NO_ROWS: Rows = np.empty(0, np.int64)
_LEAST = np.float32(1e-20)  # a sparse value below it is no evidence
_NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)
_SAMPLE = 512  # scores that a guess of the k-th best is taken from, at least
_NEAR = 1 << 18  # comparisons whose results stay in the cache until they are packed
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)  # multiplied with a single bit, the top 6 bits tell which one it is
_BIT = np.zeros(64, np.int64)
_BIT[[((int(_DE_BRUIJN) << at) & 0xFFFFFFFFFFFFFFFF) >> 58 for at in range(64)]] = np.arange(64)


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

    Exact. A guessed floor lets most scores be passed over by vectorised comparison; a line of which too few are above
    its floor is read again without one.
    """
    scores = np.ascontiguousarray(scores, np.float32)
    floor = _floor(scores, mask, k)
    keys, counts = _above(scores, mask, floor, k)
    short = np.flatnonzero((counts < k) & (floor > -np.inf))
    if len(short):
        again = _above(scores[short], mask[short % len(mask)], np.full(len(short), -np.inf, np.float32), k)
        keys[short], counts[short] = again
    return _unpack(keys, counts)


def best_sparse(start: I64, rows: Rows | I32, values: F32, mask: Mask, k: int = LIMIT) -> Proposals:
    """The k rows of greatest value of each query's segment; only values > 1e-20 whose row is in `mask` (q or 1, n)."""
    values = np.ascontiguousarray(values, np.float32)
    floor = _sparse_floor(start, values, k)
    keys, counts = _pack(start, rows, values, mask, floor, k)
    short = (counts < k) & (floor > _LEAST)
    if short.any():
        floor[short] = _LEAST
        keys, counts = _pack(start, rows, values, mask, floor, k)
    return _unpack(_first(keys, k), np.minimum(counts, k))


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
    columns = np.flatnonzero(mask[0]) if len(mask) else _NO_ROWS
    n = len(columns)
    if n <= 4 * k + _SAMPLE:
        return np.full(len(scores), -np.inf, np.float32)
    runs = columns[: n - n % 16].reshape(-1, 16)[:: min(48, n // _SAMPLE)]  # of neighbours: fewer cache lines to touch
    sample = np.take(scores, runs.ravel(), axis=1)
    place = sample.shape[1] - 1 - (4 * k + 64) * sample.shape[1] // n
    sample.partition(place, axis=1)
    return sample[:, place]


def _sparse_floor(start: I64, values: F32, k: int) -> F32:
    """(q,) a guess that about 2k + 64 values of each segment lie above; _LEAST for short segments."""
    lengths, m = start[1:] - start[:-1], 128
    floor = np.full(len(lengths), _LEAST)
    long = np.flatnonzero(lengths > 4 * k + m)
    if len(long):
        sample = values[start[long, None] + np.arange(m) * lengths[long, None] // m]
        sample.sort(axis=1)
        place = m - 1 - (2 * k + 64) * m // lengths[long]
        floor[long] = np.maximum(sample[np.arange(len(long)), place], _LEAST)
    return floor


def _pack(start: I64, rows: Rows | I32, values: F32, mask: Mask, floor: F32, k: int) -> tuple[U64, I64]:
    """Packed keys (q, at least k) of each segment's rows in `mask` above its floor; the rest of a line is _NOTHING."""
    some = (values > np.repeat(floor, start[1:] - start[:-1])).nonzero()[0]
    start = some.searchsorted(start)
    width = max(int((start[1:] - start[:-1]).max(initial=0)), k)
    return _pack_some(start, rows[some], values[some].view(np.uint32), mask, width)


def _above(scores: F32, mask: Mask, floor: F32, k: int) -> tuple[U64, I64]:
    """The packed keys (q, k) of the best k scores above `floor` (q,), in no order, and how many there are."""
    q, n = scores.shape
    words = np.zeros((q, -(-n // 64)), np.uint64)
    step = max(1, _NEAR // max(n, 1))
    for some in (slice(begin, begin + step) for begin in range(0, q, step)):
        bits = np.packbits(scores[some] > floor[some, None], axis=1, bitorder="little")
        words.view(np.uint8)[some, : bits.shape[1]] = bits
    width = int(np.bitwise_count(words).sum(axis=1).max(initial=0))
    keys, counts = _collect(words, scores.view(np.uint32), mask, max(width, k))
    return _first(keys, k), np.minimum(counts, k)


def _first(keys: U64, k: int) -> U64:
    """The k smallest of each line, in no order."""
    if keys.shape[1] > k:
        keys.partition(k, axis=1)
    return keys[:, :k]


def _unpack(keys: U64, counts: I64) -> Proposals:
    """The rows of the first counts[i] keys of line i, best first."""
    keys = np.sort(keys, axis=1)
    start = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=start[1:])
    inside = np.arange(keys.shape[1]) < counts[:, None]
    return Proposals(start, (keys[inside] & np.uint64(0xFFFFFFFF)).astype(np.int64))


@njit(cache=True)
def _key(bits: np.uint32, row: int) -> np.uint64:
    """Greater scores give smaller keys; `bits` are those of a float32."""
    falling = bits if bits > np.uint32(0x80000000) else np.uint32(0x7FFFFFFF) - (bits & np.uint32(0x7FFFFFFF))
    return (np.uint64(falling) << np.uint64(32)) | np.uint64(row)


@njit(cache=True)
def _collect(words: U64, bits: U32, mask: Mask, width: int) -> tuple[U64, I64]:
    """Pack what the set bits of `words` (q, n/64) point at, where `mask` holds; the rest of a line is _NOTHING."""
    q = len(words)
    keys, counts, found = np.empty((q, width + 1), np.uint64), np.zeros(q, np.int64), np.empty(width, np.int64)
    for i in range(q):
        allowed, line, n, count = mask[i % len(mask)], bits[i], 0, 0
        for at in range(words.shape[1]):
            word = words[i, at]
            while word:
                lowest = word & (~word + np.uint64(1))
                found[n] = 64 * at + _BIT[(lowest * _DE_BRUIJN) >> np.uint64(58)]
                n += 1
                word ^= lowest
        for at in range(n):  # a loop of its own, without branches: the reads miss the cache, here many at a time
            keys[i, count] = _key(line[found[at]], found[at])
            count += allowed[found[at]]
        keys[i, count:] = _NOTHING
        counts[i] = count
    return keys, counts


@njit(cache=True)
def _pack_some(start: I64, rows: Rows | I32, bits: U32, mask: Mask, width: int) -> tuple[U64, I64]:
    q = len(start) - 1
    keys, counts = np.empty((q, width + 1), np.uint64), np.zeros(q, np.int64)
    for i in range(q):
        allowed, count = mask[i % len(mask)], 0
        for at in range(start[i], start[i + 1]):
            keys[i, count] = _key(bits[at], rows[at])
            count += allowed[rows[at]]
        keys[i, count:] = _NOTHING
        counts[i] = count
    return keys, counts


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
