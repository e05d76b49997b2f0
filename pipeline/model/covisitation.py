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
from numpy.typing import NDArray

from pipeline.model.changes import Changes
from pipeline.model.greatest import greatest
from pipeline.model.lookup import look_up
from pipeline.model.rows import ItemRows
from pipeline.types import F32, F64, I32, I64, RING, U8, ItemLists, Owner, Rows

HALF_LIFE_MS = 30 * 86_400_000  # T
DECAY, SHORT_DECAY, SHORT = 0.9, 0.6, 5
BACKWARD = 0.3  # S = A + BACKWARD B

A, B, F, F1 = range(4)
KEPT = (128, 128, 64, 64)  # entries that a list keeps and publishes
ROOM = (192, 192, 96, 96)  # with the buffer
_START = (0, 192, 384, 480, 576)
_BITS = (9, 9, 8, 8)  # slots of a list's index, at most 3/8 full
_INDEX = (0, 512, 1024, 1280, 1536)
_INDEXED = 4  # place beside the lengths: is the row's index valid?

_RESCALE = 32.0  # half-lives that the reference may lie behind
_TINY = np.float32(1e-30)  # less than any weight; keeps a touched sum from being 0

_STEPS = np.arange(RING)
_SHARES = np.array(  # (4, L) what an event adds to each list, a step back in the history
    (DECAY**_STEPS, DECAY**_STEPS, np.where(_STEPS < SHORT, SHORT_DECAY**_STEPS, 0), _STEPS == 0), np.float32
)


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
        # Cells of (row, weight): key and weight on one cache line, read through two views of the same bytes.
        self._cells = rows.column((_START[-1], 2), np.int32, 0)
        self._used = rows.column((len(KEPT) + 1,), np.uint8, 0)
        # row of an entry -> its cell + 1, open addressing. Made by the first learning step: followers never pay for it.
        self._index = rows.column((_INDEX[-1],), np.uint8, 0)
        self.reference = 0  # ms; 0 = nothing learned yet
        # Work space that outlives a call, since fresh memory costs more than the work: zeros and anything.
        self._sums = (np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32))
        self._places = np.zeros(0, np.int32)
        self._entries = 2048  # expected a query

    @property
    def _weights(self) -> F32:
        return self._cells.data.view(np.float32)

    def lists(self, row: int, kind: int) -> tuple[I32, F32]:
        """The rows and stored weights of one list, in no order (views)."""
        part = slice(_START[kind], _START[kind] + int(self._used.data[row, kind]))
        return self._cells.data[row, part, 0], self._weights[row, part, 1]

    def sizes(self, rows: Rows) -> I64:
        """About how many bytes the record of each row (c,) takes on the topic."""
        sizes: I64 = _sizes(rows, self._used.data)
        return sizes

    def learn(self, targets: Rows, rings: Rows, times: I64, weights: F32, changes: Changes) -> None:
        """Learn events (m,) in log order: targets, histories (m, L; newest first, -1 = none), times (ms), weights."""
        if len(targets):
            self._refer(int(times[0]))
            self._refer(int(times.max()))
            shares = (weights * np.exp2((times - self.reference) / HALF_LIFE_MS)).astype(np.float32)
            _learn(
                targets, rings, weights, shares,
                self._cells.data, self._weights, self._used.data, self._index.data, changes.moved,
            )  # fmt: skip

    def evidence(self, rings: Rows, now: I64, count: F64) -> Evidence:
        """Evidence for histories (q, L; newest first, -1 = none) as of `now` (q,) ms; `count` (capacity,) is n."""
        decay = np.exp2(np.minimum(self.reference - now, 0) / HALF_LIFE_MS)
        self._stretch()
        while True:
            room = len(rings) * self._entries + sum(ROOM) * RING
            rows, columns = np.empty(room, np.int32), [np.empty(room, np.float32) for _ in KEPT]
            start = _evidence(
                rings, decay, count, self._cells.data, self._weights, self._used.data, *self._sums, rows, *columns
            )
            if start[-1] >= 0:
                return Evidence(start, rows[: start[-1]], *(column[: start[-1]] for column in columns))
            self._entries *= 2

    def of(self, evidence: Evidence, owner: Owner, rows: Rows) -> F32:
        """cov, bwd, forward, last of candidates (c,), one line each: (4, c). `owner` ascending; 0 without evidence."""
        columns = evidence.cov, evidence.bwd, evidence.forward, evidence.last
        return look_up(evidence.start, evidence.rows, columns, owner, rows, np.zeros(len(self._rows), np.int32))

    def terms(self, rings: Rows, count: F64, owner: Owner, rows: Rows) -> F32:
        """What each item of the owner's history adds to the A part of cov_j, but for the decay: (c, L).

        `owner` ascending; histories (q, L; newest first, -1 = none), `count` as for `evidence`. Read from B[j, .],
        which learns what A[., j] does: one list a candidate instead of L. One that is there twice adds at its newest.
        """
        out = np.zeros((len(rows), rings.shape[1]), np.float32)
        scratch = np.zeros(len(self._rows), np.int32), np.zeros(rings.shape[1], np.float32)
        _terms(rings, count, self._cells.data, self._weights, self._used.data, owner, rows, *scratch, out)
        return out

    def export(self, row: int, item_id: str) -> ItemLists:
        """The record of `row`: its heaviest entries, heaviest first."""
        lists = [self._heaviest(row, kind) for kind in range(len(KEPT))]
        (a, wa), (b, wb), (f, wf), (f1, wf1) = lists
        return ItemLists(item_id, int(self._rows.hashes[row]), self.reference, (a, b, f, f1), (wa, wb, wf, wf1))

    def _heaviest(self, row: int, kind: int) -> tuple[NDArray[np.uint64], F32]:
        keys, weights = self.lists(row, kind)
        order = np.argsort(-weights, kind="stable")[: KEPT[kind]]
        return self._rows.hashes[keys[order]], weights[order]

    def put(self, row: int, record: ItemLists) -> None:
        """Take over the lists of `row`; hashes first met get rows."""
        self._refer(record.reference)
        shift = np.float32(2.0 ** ((record.reference - self.reference) / HALF_LIFE_MS))
        keys = self._rows.rows(np.concatenate(record.hashes))  # may replace the columns' arrays
        counts = np.array([len(hashes) for hashes in record.hashes], np.int64)
        weights = np.concatenate(record.weights) * shift
        _put(row, counts, keys, weights, self._cells.data, self._weights, self._used.data)

    def clear(self, row: int) -> None:
        """Forget the lists of `row`. Other items' entries of it stay until they fall out."""
        self._used.data[row] = 0

    def _stretch(self) -> None:
        """Let the work space hold every row."""
        if len(self._places) < self._rows.capacity:
            shape = (self._rows.capacity, 2)
            self._sums = (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
            self._places = np.zeros(self._rows.capacity, np.int32)

    def _refer(self, time: int) -> None:
        """Move the reference up to `time` when it lies too far behind for float32."""
        if self.reference == 0:
            self.reference = max(time, 1)
        elif time - self.reference > _RESCALE * HALF_LIFE_MS:
            self._weights[:, :, 1] *= np.float32(2.0 ** ((self.reference - time) / HALF_LIFE_MS))
            self.reference = time


@njit(cache=True)
def _put(row: int, counts: I64, keys: Rows, weights: F32, cells: I32, stored: F32, used: U8) -> None:
    """Replace the lists of `row` by the given ones, which lie one after the other, and its index by none."""
    begin = 0
    for kind in range(len(KEPT)):
        n = min(counts[kind], KEPT[kind])
        for at in range(n):
            cells[row, _START[kind] + at, 0] = keys[begin + at]
            stored[row, _START[kind] + at, 1] = weights[begin + at]
        used[row, kind] = n
        begin += counts[kind]
    used[row, _INDEXED] = 0


@njit(cache=True)
def _sizes(rows: Rows, used: U8) -> I64:
    sizes = np.full(len(rows), 128, np.int64)
    for at in range(len(rows)):
        for kind in range(4):
            sizes[at] += 12 * min(int(used[rows[at], kind]), KEPT[kind])
    return sizes


@njit(cache=True)
def _learn(
    targets: Rows, rings: Rows, weights: F32, shares: F32,
    cells: I32, stored: F32, used: U8, index: U8, moved: F32,
) -> None:  # fmt: skip
    # One flat loop: a call would count references of every array, ten times the work of adding to a cell.
    for at in range(len(targets)):
        target = targets[at]
        if not shares[at] > _TINY:
            continue
        if not used[target, _INDEXED]:
            _index(cells, used, index, target)
        for d in range(rings.shape[1]):
            row = rings[at, d]
            if row < 0:
                continue
            if not used[row, _INDEXED]:
                _index(cells, used, index, row)
            moved[target] += weights[at] * _SHARES[B, d]
            moved[row] += weights[at] * _SHARES[A, d]
            for kind in range(4):
                share = shares[at] * _SHARES[kind, d]
                if share == 0 or (kind == B and row == target):
                    continue
                owner, item = (target, row) if kind == B else (row, target)
                slot, mask = _home(item, kind), (1 << _BITS[kind]) - 1
                place = index[owner, _INDEX[kind] + slot]
                while place and cells[owner, _START[kind] + place - 1, 0] != item:
                    slot = (slot + 1) & mask
                    place = index[owner, _INDEX[kind] + slot]
                if place:
                    stored[owner, _START[kind] + place - 1, 1] += share
                    continue
                n = used[owner, kind]
                cells[owner, _START[kind] + n, 0] = item
                stored[owner, _START[kind] + n, 1] = share
                index[owner, _INDEX[kind] + slot] = n + 1
                used[owner, kind] = n + 1
                if n + 1 == ROOM[kind]:
                    _prune(cells, stored, used, index, owner, kind)


@njit(cache=True)
def _home(item: int, kind: int) -> int:
    return ((item * 0x9E3779B1) & 0xFFFFFFFF) >> (32 - _BITS[kind])


@njit(cache=True)
def _index(cells: I32, used: U8, index: U8, row: int) -> None:
    """Make the index of a row whose lists came from outside."""
    for kind in range(4):
        _index_list(cells, used, index, row, kind)
    used[row, _INDEXED] = 1


@njit(cache=True)
def _index_list(cells: I32, used: U8, index: U8, row: int, kind: int) -> None:
    base, mask = _INDEX[kind], (1 << _BITS[kind]) - 1
    for slot in range(base, _INDEX[kind + 1]):
        index[row, slot] = 0
    for at in range(used[row, kind]):
        slot = _home(cells[row, _START[kind] + at, 0], kind)
        while index[row, base + slot]:
            slot = (slot + 1) & mask
        index[row, base + slot] = at + 1


@njit(cache=True)
def _prune(cells: I32, stored: F32, used: U8, index: U8, row: int, kind: int) -> None:
    """Keep the heaviest entries of a full list (of equals the older) in their order, and the newest in any case."""
    start, newest, kept = _START[kind], _START[kind + 1] - 1, KEPT[kind]
    spare = np.empty(newest - start, np.float32)
    for at in range(start, newest):
        spare[at - start] = stored[row, at, 1]
    bar = greatest(spare, newest - start, kept)
    above = 0
    for at in range(start, newest):
        above += stored[row, at, 1] > bar
    equals, to = kept - above, start
    for at in range(start, newest):
        key, weight = cells[row, at, 0], stored[row, at, 1]
        equal = weight == bar and equals > 0
        equals -= equal
        # Entries that go are written too, and written over: no branch on the weights.
        cells[row, to, 0], stored[row, to, 1] = key, weight
        to += weight > bar or equal
    cells[row, to, 0], stored[row, to, 1] = cells[row, newest, 0], stored[row, newest, 1]
    used[row, kind] = kept + 1
    _index_list(cells, used, index, row, kind)


@njit(cache=True)
def _evidence(
    rings: Rows, decay: F64, count: F64, cells: I32, stored: F32, used: U8, long: F32, short: F32,
    rows: I32, cov: F32, bwd: F32, forward: F32, last: F32,
) -> I64:  # fmt: skip
    """Sum list by list into `long` (cov, bwd) and `short` (forward, last), a line a row, zeros before and after.

    Ends early with start[-1] = -1 if `rows` may not do.
    """
    start = np.zeros(len(rings) + 1, np.int64)
    n = 0
    for query in range(len(rings)):
        if n + _reach(rings[query], used) > len(rows):
            start[-1] = -1
            return start
        for d in range(rings.shape[1]):
            row = rings[query, d]
            if row >= 0:
                norm = np.float32(decay[query] / np.sqrt(max(count[row], 1.0)))
                n = _add_lists(row, d, norm, cells, stored, used, long, short, rows, n)
        for at in range(start[query], n):
            item = rows[at]
            cov[at], bwd[at], forward[at], last[at] = long[item, 0], long[item, 1], short[item, 0], short[item, 1]
            long[item, 0], long[item, 1], short[item, 0], short[item, 1] = 0, 0, 0, 0
        start[query + 1] = n
    return start


@njit(cache=True)
def _add_lists(
    row: int, d: int, norm: np.float32, cells: I32, stored: F32, used: U8, long: F32, short: F32, rows: I32, n: int
) -> int:
    """Add what the lists of the item at place `d` of a history say.

    A row is noted at its first cell, without a branch: its cov is 0 only then. Returns how many are noted now.
    """
    share = norm * _SHARES[A, d]
    for at in range(_START[A], _START[A] + used[row, A]):
        item = cells[row, at, 0]
        rows[n] = item
        n += long[item, 0] == 0
        long[item, 0] += share * stored[row, at, 1] + _TINY
    share = norm * _SHARES[B, d]
    for at in range(_START[B], _START[B] + used[row, B]):
        item, weight = cells[row, at, 0], share * stored[row, at, 1]
        rows[n] = item
        n += long[item, 0] == 0
        long[item, 0] += np.float32(BACKWARD) * weight + _TINY
        long[item, 1] += weight
    for kind in (F, F1):
        share = norm * _SHARES[kind, d]
        if share == 0:
            break
        if kind == F1:
            share = np.float32(1) / _total(stored, used, row)
        for at in range(_START[kind], _START[kind] + used[row, kind]):
            item = cells[row, at, 0]
            rows[n] = item
            n += long[item, 0] == 0
            long[item, 0] += _TINY
            short[item, kind - F] += share * stored[row, at, 1]
    return n


@njit(cache=True)
def _reach(ring: Rows, used: U8) -> int:
    """Entries that a query may have at most, and one more."""
    reach = 1
    for row in ring:
        if row >= 0:
            reach += np.int64(used[row, A]) + used[row, B] + used[row, F] + used[row, F1]
    return reach


@njit(cache=True)
def _total(stored: F32, used: U8, row: int) -> np.float32:
    total = _TINY
    for at in range(_START[F1], _START[F1] + used[row, F1]):
        total += stored[row, at, 1]
    return total


@njit(cache=True)
def _terms(
    rings: Rows,
    count: F64,
    cells: I32,
    stored: F32,
    used: U8,
    owner: Owner,
    rows: Rows,
    place: I32,
    share: F32,
    out: F32,
) -> None:
    """`place` is scratch, zeros before and after; `share` too."""
    first = 0
    while first < len(rows):
        ring, at = rings[owner[first]], first
        for d in range(len(ring) - 1, -1, -1):  # the newest place of an item is written last
            share[d] = 0
            if ring[d] >= 0:
                before = place[ring[d]]
                share[d] = _SHARES[A, d] / np.float32(np.sqrt(max(count[ring[d]], 1.0)))
                share[d] += share[before - 1] if before else np.float32(0)
                place[ring[d]] = d + 1
        while at < len(rows) and owner[at] == owner[first]:
            for cell in range(_START[B], _START[B] + used[rows[at], B]):
                d = place[cells[rows[at], cell, 0]]
                if d:
                    out[at, d - 1] = share[d - 1] * stored[rows[at], cell, 1]
            at += 1
        for d in range(len(ring)):
            if ring[d] >= 0:
                place[ring[d]] = 0
        first = at
