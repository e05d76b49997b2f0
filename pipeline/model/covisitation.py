"""Co-visitation: which items follow which in users' histories, in bounded lists of forward-decayed weights.

An event on t with weight w and history i_1 (newest) .. i_L adds, with q_d = .9^(d-1):
    A[i_d, t] += w q_d            forward, own pairs too
    B[t, i_d] += w q_d            backward, not own pairs
    F[i_d, t] += w .6^(d-1)       short, d <= 5
    F1[i_1, t] += w               last item

Forward decay (Cormode et al. 2009): an event at time t adds w 2^((t - reference)/T), so weights of all times compare
without touching old ones; the reference is moved rarely. A list keeps its heaviest entries; behind them new pairs
gather in a buffer, and when it is full the lightest of all go, so a new pair has its chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.model.changes import Changes, note
from pipeline.model.rows import ItemRows
from pipeline.types import F32, F64, I32, I64, RING, U8, ItemLists, Owner, Rows

HALF_LIFE_MS = 30 * 86_400_000  # T
DECAY, SHORT_DECAY, SHORT = 0.9, 0.6, 5
BACKWARD = 0.3  # S = A + BACKWARD B

A, B, F, F1 = range(4)
KEPT = (128, 128, 64, 64)  # entries that a list keeps and publishes
_ROOM = (192, 192, 96, 96)  # with the buffer
_START = (0, 192, 384, 480, 576)

_RESCALE = 32.0  # half-lives that the reference may lie behind
_TINY = np.float32(1e-30)

_KEPT, _STARTS = np.array(KEPT, np.int64), np.array(_START, np.int64)
_Q = DECAY ** np.arange(RING)
_QS = SHORT_DECAY ** np.arange(SHORT)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the lists say for q queries: entries of query i are start[i]:start[i+1], unique rows, no order."""

    start: I64  # (q+1,)
    rows: I32  # (e,)
    cov: F32  # (e,) sum_d q_d S[i_d, j] / sqrt(n_{i_d})
    bwd: F32  # (e,) the same of B alone
    forward: F32  # (e,) sum_d .6^(d-1) F[i_d, j] / sqrt(n_{i_d})
    last: F32  # (e,) F1[i_1, j] / sum F1[i_1, .]


class Covisitation:
    """Four lists of (row, weight) a row: A, B, F, F1."""

    def __init__(self, rows: ItemRows) -> None:
        self._rows = rows
        self._keys = rows.column((_START[-1],), np.int32, 0)
        self._weights = rows.column((_START[-1],), np.float32, 0)
        self._used = rows.column((len(KEPT),), np.uint8, 0)
        self.reference = 0  # ms; 0 = nothing learned yet

    def lists(self, row: int, kind: int) -> tuple[I32, F32]:
        """The rows and stored weights of one list, in no order (views)."""
        part = slice(_START[kind], _START[kind] + int(self._used.data[row, kind]))
        return self._keys.data[row, part], self._weights.data[row, part]

    def learn(self, targets: Rows, rings: Rows, times: I64, weights: F32, changes: Changes) -> None:
        """Learn events (m,) in log order: targets, histories (m, L; newest first, -1 = none), times (ms), weights."""
        if len(targets):
            self._refer(int(times.max()))
            shares = (weights * np.exp2((times - self.reference) / HALF_LIFE_MS)).astype(np.float32)
            _learn(
                targets, rings, weights, shares, self._keys.data, self._weights.data, self._used.data,
                changes.moved, changes.since, changes.tick,
            )  # fmt: skip

    def evidence(self, rings: Rows, now: I64, count: F64) -> Evidence:
        """Evidence for histories (q, L; newest first, -1 = none) as of `now` (q,) ms; `count` (capacity,): n of a row."""
        decay = np.exp2(np.minimum(self.reference - now, 0) / HALF_LIFE_MS)
        room = int(self._used.data[np.maximum(rings, 0)].sum())
        rows = np.empty(room, np.int32)
        columns = np.empty((room, 4), np.float32)
        scratch = np.zeros((len(self._rows), 4), np.float32)
        start = _evidence(
            rings, decay, count, self._keys.data, self._weights.data, self._used.data, scratch, rows, columns
        )
        cov, bwd, forward, last = np.ascontiguousarray(columns[: start[-1]].T)
        return Evidence(start, rows[: start[-1]].copy(), cov, bwd, forward, last)

    def of(self, evidence: Evidence, owner: Owner, rows: Rows) -> tuple[F32, F32, F32, F32]:
        """cov, bwd, forward, last of candidates (c,): `owner` ascending, 0 where there is no evidence."""
        place = np.zeros(len(self._rows), np.int32)
        at = _places(evidence.start, evidence.rows, owner, rows, place)
        hit = at >= 0
        cov, bwd, forward, last = (
            np.where(hit, column[at], np.float32(0)) if len(column) else np.zeros(len(rows), np.float32)
            for column in (evidence.cov, evidence.bwd, evidence.forward, evidence.last)
        )
        return cov, bwd, forward, last

    def export(self, row: int, item_id: str) -> ItemLists:
        """The record of `row`: its heaviest entries, heaviest first."""
        hashes, weights = [], []
        for kind, kept in enumerate(KEPT):
            keys, stored = self.lists(row, kind)
            order = np.argsort(-stored, kind="stable")[:kept]
            hashes.append(self._rows.hashes[keys[order]])
            weights.append(stored[order])
        return ItemLists(item_id, int(self._rows.hashes[row]), self.reference, tuple(hashes), tuple(weights))  # type: ignore[arg-type]

    def put(self, row: int, record: ItemLists) -> None:
        """Take over the lists of `row`; hashes first met get rows."""
        self._refer(record.reference)
        shift = np.float32(2.0 ** ((record.reference - self.reference) / HALF_LIFE_MS))
        found = [self._rows.rows(hashes) for hashes in record.hashes]  # may replace the columns' arrays
        for kind, (keys, weights) in enumerate(zip(found, record.weights, strict=True)):
            n = min(len(keys), KEPT[kind])
            part = slice(_START[kind], _START[kind] + n)
            self._keys.data[row, part] = keys[:n]
            self._weights.data[row, part] = weights[:n] * shift
            self._used.data[row, kind] = n

    def clear(self, row: int) -> None:
        """Forget the lists of `row`. Other items' entries of it stay until they fall out."""
        self._used.data[row] = 0

    def _refer(self, time: int) -> None:
        """Move the reference up to `time` when it lies too far behind for float32."""
        if self.reference == 0:
            self.reference = max(time, 1)
        elif time - self.reference > _RESCALE * HALF_LIFE_MS:
            self._weights.data *= np.float32(2.0 ** ((self.reference - time) / HALF_LIFE_MS))
            self.reference = time


@njit(cache=True)
def _learn(
    targets: Rows, rings: Rows, weights: F32, shares: F32, keys: I32, stored: F32, used: U8,
    moved: F32, since: I64, tick: int,
) -> None:  # fmt: skip
    spare = np.empty(256, np.float32)
    for at in range(len(targets)):
        target, weight, share = targets[at], weights[at], shares[at]
        if not share > _TINY:
            continue
        for d in range(rings.shape[1]):
            row = rings[at, d]
            if row < 0:
                continue
            q = np.float32(_Q[d])
            _add(keys, stored, used, row, A, target, share * q, spare)
            if row != target:
                _add(keys, stored, used, target, B, row, share * q, spare)
                note(moved, since, tick, target, weight * q)
            if d < SHORT:
                _add(keys, stored, used, row, F, target, share * np.float32(_QS[d]), spare)
            if d == 0:
                _add(keys, stored, used, row, F1, target, share, spare)
            note(moved, since, tick, row, weight * q)


@njit(cache=True)
def _add(keys: I32, stored: F32, used: U8, row: int, kind: int, item: int, weight: np.float32, spare: F32) -> None:
    start, n = _STARTS[kind], np.int64(used[row, kind])
    mine, heap = keys[row, start : _STARTS[kind + 1]], stored[row, start : _STARTS[kind + 1]]
    at = _find(mine, n, np.int32(item))
    if at >= 0:
        heap[at] += weight
        return
    if n == len(mine):
        n = _prune(mine, heap, _KEPT[kind], spare)
    mine[n] = item
    heap[n] = weight
    used[row, kind] = n + 1


@njit(cache=True)
def _find(keys: I32, n: int, item: np.int32) -> int:
    """The place of `item` among keys[:n] or -1. Blocks without an early exit inside: the compiler makes them wide."""
    for block in range(0, len(keys), 32):
        if block >= n:
            return -1
        hit = np.int32(0)
        for at in range(32):
            hit |= np.int32(keys[block + at] == item)
        if hit:
            for at in range(block, min(block + 32, n)):
                if keys[at] == item:
                    return at
    return -1


@njit(cache=True)
def _prune(keys: I32, weights: F32, kept: int, spare: F32) -> int:
    """Keep the `kept` heaviest entries (of equals the older ones), in their order."""
    n = len(keys)
    spare[:n] = weights
    bar = _greatest(spare, n, kept)
    above = 0
    for at in range(n):
        above += weights[at] > bar
    equals, to = kept - above, 0
    for at in range(n):
        if weights[at] > bar or (weights[at] == bar and equals > 0):
            equals -= weights[at] == bar
            keys[to], weights[to] = keys[at], weights[at]
            to += 1
    return to


@njit(cache=True)
def _greatest(values: F32, n: int, rank: int) -> np.float32:
    """The rank-th greatest of values[:n] (rank >= 1), by quickselect; reorders them."""
    low, high, want = 0, n - 1, rank - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if want <= right:
            high = right
        elif want >= left:
            low = left
        else:
            break
    return values[want]


@njit(cache=True)
def _evidence(
    rings: Rows, decay: F64, count: F64, keys: I32, stored: F32, used: U8, scratch: F32, rows: I32, columns: F32
) -> I64:
    start = np.zeros(len(rings) + 1, np.int64)
    n = 0
    for query in range(len(rings)):
        begin = n
        for d in range(rings.shape[1]):
            row = rings[query, d]
            if row < 0:
                continue
            norm = decay[query] / np.sqrt(max(count[row], 1.0))
            q = np.float32(norm * _Q[d])
            n = _gather(keys, stored, used, row, A, q, np.float32(0), 0, scratch, rows, n)
            n = _gather(keys, stored, used, row, B, np.float32(BACKWARD) * q, q, 1, scratch, rows, n)
            if d < SHORT:
                n = _gather(keys, stored, used, row, F, np.float32(0), np.float32(norm * _QS[d]), 2, scratch, rows, n)
            if d == 0:
                total = _total(stored, used, row)
                n = _gather(keys, stored, used, row, F1, np.float32(0), np.float32(1) / total, 3, scratch, rows, n)
        for at in range(begin, n):
            for column in range(4):
                columns[at, column] = scratch[rows[at], column]
                scratch[rows[at], column] = 0
        start[query + 1] = n
    return start


@njit(cache=True)
def _gather(
    keys: I32, stored: F32, used: U8, row: int, kind: int, to_cov: np.float32, share: np.float32, column: int,
    scratch: F32, rows: I32, n: int,
) -> int:  # fmt: skip
    """Add one list to the scratch; rows met for the first time go to rows[n:]. Returns the new n."""
    start = _STARTS[kind]
    for at in range(start, start + used[row, kind]):
        item, weight = keys[row, at], stored[row, at]
        sums = scratch[item]
        if sums[0] == 0 and sums[2] == 0 and sums[3] == 0:
            if not weight * max(to_cov, share) > _TINY:
                continue
            rows[n] = item
            n += 1
        sums[0] += to_cov * weight
        if column > 0:
            sums[column] += share * weight
    return n


@njit(cache=True)
def _total(stored: F32, used: U8, row: int) -> np.float32:
    total = _TINY
    for at in range(_STARTS[F1], _STARTS[F1] + used[row, F1]):
        total += stored[row, at]
    return total


@njit(cache=True)
def _places(start: I64, found: I32, owner: Owner, rows: Rows, place: I32) -> I64:
    """Where the evidence of each candidate stands, -1 = nowhere; `place` is scratch, zeros before and after."""
    at = np.empty(len(rows), np.int64)
    first = 0
    while first < len(rows):
        query = owner[first]
        end = first
        for entry in range(start[query], start[query + 1]):
            place[found[entry]] = entry + 1
        while end < len(rows) and owner[end] == query:
            at[end] = place[rows[end]] - 1
            end += 1
        for entry in range(start[query], start[query + 1]):
            place[found[entry]] = 0
        first = end
    return at
