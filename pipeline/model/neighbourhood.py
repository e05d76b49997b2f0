"""The neighbourhood: who took what lately, and what the users most like the one who asks took besides.

An item remembers its last 200 users, a user the last 60 items in order; of users the last 200,000. For a query with
history i_1 (newest) .. i_L, n_i = how often i was taken, n = how often anything was:

    VS-kNN    sim_v = sum over the last 10 distinct items of .8^(d-1) log(1 + n/n_{i_d}) [v has i_d], the 150 greatest
              vs_j = sum_v sim_v (.8^(o-1) if v took j at p_v + o, o <= 10; .4 x .8^(o-1) if at p_v - o, o <= 5)
                     / sum_v sim_v,   p_v = where v took the newest of the items
    user kNN  sim_v = sum_d .95^(d-1) log(1 + n/n_{i_d}) [v has i_d] / sqrt(5 + len_v), the 100 greatest
              uk_j = sum_v sim_v^2 [v has j] / sum_v sim_v^2

After Ludewig and Jannach 2018 (V-SkNN) and Sarwar et al. 2001. Of equally similar users who took the newest matching
item last is the nearer. Nobody is their own neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.model.greatest import greatest
from pipeline.model.rows import ItemRows
from pipeline.types import F32, F64, I32, I64, RING, U8, U64, Owner, Rows

USERS = 200_000  # remembered, the least active of late forgotten first
TAKERS = 200  # users that an item remembers, the last to take it
HISTORY = 60  # items that a user is remembered by

_PLACES = 64  # of a user's items: event p stands at p mod 64
_LATER = np.int32(1 << 30)  # bit of an item that its user took again later

_VS_ITEMS, _VS_DECAY, _VS_KEPT = 10, 0.8, 150
_AFTER, _BEFORE, _BACKWARD = 10, 5, 0.4
_UK_DECAY, _UK_KEPT, _UK_SHRINK = 0.95, 100, 5.0

_VS_SHARES = (_VS_DECAY ** np.arange(RING)).astype(np.float32)
_UK_SHARES = (_UK_DECAY ** np.arange(RING)).astype(np.float32)

_TINY = np.float32(1e-30)  # keeps what no neighbour was met for from being 0 / 0
_MOST = _VS_KEPT * (_AFTER + _BEFORE) + _UK_KEPT * HISTORY + 1  # entries of a query, at most, and one more

_NEWER, _OLDER, _SLOTS = range(3)  # sides of the list of users by their last event, and slots in use

_Table = tuple[U64, I32, I32, I64]  # hashes, slots, links, ends
_Histories = tuple[I32, I64]  # items, taken
_Rings = tuple[I32, U8]  # takers, used


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What the neighbours of q queries took: entries of query i are start[i]:start[i+1], unique rows, no order."""

    start: I64  # (q+1,)
    rows: I32  # (e,)
    vs: F32  # (e,) 0 where only the other one speaks
    uk: F32  # (e,)


class Neighbourhood:
    """Rings of users by item and of items by user, fed in the order of the log.

    Memory: 813 bytes a row, 801 of them written to only where an item was taken, and about 300 a user: at the bounds
    60 MB for the users and 81 MB for every 100,000 items.
    """

    def __init__(self, rows: ItemRows, users: int = USERS) -> None:
        self._rows = rows
        # Zeros come untouched from the system: a process that never adds pays nothing for them.
        self._takers = np.zeros((0, TAKERS), np.int32)  # slots of users; who took the item last stands last
        self._used = np.zeros(0, np.uint8)
        self._items = np.zeros((users, _PLACES), np.int32)
        self._taken = np.zeros(users, np.int64)  # items ever, repeats included
        self._hashes = np.zeros(users, np.uint64)  # 0 = nobody has the slot
        self._links = np.zeros((users, 2), np.int32)  # slots of the users who were active next after and next before
        self._ends = np.array((-1, -1, 0), np.int64)
        self._slots = np.zeros(1 << (2 * users - 1).bit_length(), np.int32)  # open addressing: slot + 1, 0 = free
        # Work space that outlives a call, since fresh memory costs more than the work: zeros between calls.
        self._sums = np.zeros((users, 2), np.float32)
        self._scores = np.zeros((0, 2), np.float32)
        self._places = np.zeros(0, np.int32)

    def __len__(self) -> int:
        """Users remembered."""
        return int(np.count_nonzero(self._hashes))

    def bytes(self) -> int:
        """What the arrays take when every byte of them is written to."""
        rings = (self._takers, self._used, self._scores, self._places)
        users = (self._items, self._taken, self._hashes, self._links, self._slots, self._sums)
        return sum(array.nbytes for array in rings + users)

    def add(self, users: U64, rows: Rows) -> None:
        """Learn events (m,) in log order: which user (hash) took which item; row -1 = the user was forgotten."""
        self._stretch()
        _add(users, rows, self._table, (self._items, self._taken), (self._takers, self._used))

    def forget(self, user: int) -> None:
        """Forget the user (hash): from here on they are nobody's neighbour."""
        self.add(np.array([user], np.uint64), np.array([-1]))

    def evidence(self, users: U64, rings: Rows, count: F64, total: float) -> Neighbours:
        """What the neighbours of users (q,) (hashes) with histories (q, L; newest first, -1 = none) took.

        `count` (capacity,) is how often each item was taken, `total` how often all were.
        """
        self._stretch()
        room = len(rings) * _MOST
        rows, vs, uk = np.empty(room, np.int32), np.empty(room, np.float32), np.empty(room, np.float32)
        start = _evidence(
            users, rings, count, total, self._table, (self._items, self._taken), (self._takers, self._used),
            self._sums, self._scores, rows, vs, uk,
        )  # fmt: skip
        return Neighbours(start, rows[: start[-1]], vs[: start[-1]], uk[: start[-1]])

    def of(self, neighbours: Neighbours, owner: Owner, rows: Rows) -> F32:
        """vs and uk of candidates (c,), a line each: (2, c). `owner` ascending; 0 without evidence."""
        if not len(neighbours.rows):
            return np.zeros((2, len(rows)), np.float32)
        self._stretch()
        found: F32 = _of(neighbours.start, neighbours.rows, neighbours.vs, neighbours.uk, owner, rows, self._places)
        return found

    @property
    def _table(self) -> _Table:
        return self._hashes, self._slots, self._links, self._ends

    def _stretch(self) -> None:
        """Rings and work space for every row."""
        n = self._rows.capacity
        if len(self._used) < n:
            takers, used = np.zeros((n, TAKERS), np.int32), np.zeros(n, np.uint8)
            some = np.flatnonzero(self._used)  # what is not written to costs no memory
            takers[some], used[some] = self._takers[some], self._used[some]
            self._takers, self._used = takers, used
            self._scores, self._places = np.zeros((n, 2), np.float32), np.zeros(n, np.int32)


# ---------------------------------------------------------------- learning
@njit(cache=True)
def _add(users: U64, rows: Rows, table: _Table, histories: _Histories, rings: _Rings) -> None:
    hashes, slots, _, _ = table
    items, taken = histories
    for at in range(len(users)):
        user, row = users[at], rows[at]
        if user == 0:
            continue
        slot = int(slots[_place(slots, hashes, user)]) - 1
        if row < 0:
            if slot >= 0:
                _erase(slot, table, histories, rings)
                _move(slot, table, _OLDER)
            continue
        if slot < 0:
            slot = _begin(user, table, histories, rings)
        _move(slot, table, _NEWER)
        again = _push(items[slot], taken[slot], row, slot, rings)
        taken[slot] += 1
        _join(rings, row, slot, again)


@njit(cache=True)
def _push(mine: I32, n: int, row: int, slot: int, rings: _Rings) -> bool:
    """Write a user's event n; of an item taken again all but the last are marked. Returns whether it was."""
    again = False
    for p in range(max(n - HISTORY, 0), n):
        if mine[p % _PLACES] == row:
            mine[p % _PLACES] |= _LATER
            again = True
    if n >= HISTORY and not mine[(n - HISTORY) % _PLACES] & _LATER:  # the user has forgotten that item
        _leave(rings, mine[(n - HISTORY) % _PLACES], slot)
    mine[n % _PLACES] = row
    return again


@njit(cache=True)
def _join(rings: _Rings, row: int, slot: int, again: bool) -> None:
    """The user is the last to take the item; `again`: perhaps is among its takers."""
    takers, used = rings
    n = int(used[row])
    at = _found(takers[row], n, slot) if again else n
    if at == n and n == TAKERS:
        at = 0
    if at == n:
        used[row] = n + 1
    else:
        _close(takers[row], at, n)
        n -= 1
    takers[row, n] = slot


@njit(cache=True)
def _leave(rings: _Rings, row: int, slot: int) -> None:
    """The user is no taker of the item any more."""
    takers, used = rings
    n = int(used[row])
    at = _found(takers[row], n, slot)
    if at < n:
        _close(takers[row], at, n)
        used[row] = n - 1


@njit(cache=True)
def _found(ring: I32, n: int, slot: int) -> int:
    """The place of `slot` in ring[:n], n if it is not there."""
    for at in range(n):
        if ring[at] == slot:
            return at
    return n


@njit(cache=True)
def _close(ring: I32, gap: int, n: int) -> None:
    for at in range(gap, n - 1):
        ring[at] = ring[at + 1]


# ---------------------------------------------------------------- users
@njit(cache=True)
def _place(slots: I32, hashes: U64, user: np.uint64) -> np.uint64:
    """Where the user stands in the table, or would."""
    mask = np.uint64(len(slots) - 1)
    at = user & mask
    while slots[at] and hashes[slots[at] - 1] != user:
        at = (at + np.uint64(1)) & mask
    return at


@njit(cache=True)
def _begin(user: np.uint64, table: _Table, histories: _Histories, rings: _Rings) -> int:
    """A slot for a new user: a fresh one, else that of the user whose last event is the oldest."""
    hashes, slots, _, ends = table
    slot = int(ends[_SLOTS])
    if slot < len(hashes):
        ends[_SLOTS] += 1
        _link(slot, table, _NEWER)
    else:
        slot = int(ends[_OLDER])
        if hashes[slot]:
            _erase(slot, table, histories, rings)
    slots[_place(slots, hashes, user)] = slot + 1
    hashes[slot] = user
    return slot


@njit(cache=True)
def _erase(slot: int, table: _Table, histories: _Histories, rings: _Rings) -> None:
    """Nothing is left of the slot's user; no ring names the slot."""
    hashes, slots, _, _ = table
    items, taken = histories
    for p in range(max(taken[slot] - HISTORY, 0), taken[slot]):
        row = items[slot, p % _PLACES]
        if not row & _LATER:
            _leave(rings, row, slot)
    _close_up(slots, hashes, _place(slots, hashes, hashes[slot]))
    hashes[slot], taken[slot] = 0, 0


@njit(cache=True)
def _close_up(slots: I32, hashes: U64, hole: np.uint64) -> None:
    """Empty a place of the table, moving up what was put behind it (Knuth 6.4, algorithm R)."""
    mask = np.uint64(len(slots) - 1)
    at = (hole + np.uint64(1)) & mask
    while slots[at]:
        home = hashes[slots[at] - 1] & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            slots[hole] = slots[at]
            hole = at
        at = (at + np.uint64(1)) & mask
    slots[hole] = 0


@njit(cache=True)
def _move(slot: int, table: _Table, side: int) -> None:
    """Put a slot at an end of the list."""
    _, _, links, ends = table
    if ends[side] == slot:
        return
    for one in (_NEWER, _OLDER):
        next_one, last_one = links[slot, one], links[slot, 1 - one]
        if last_one >= 0:
            links[last_one, one] = next_one
        else:
            ends[1 - one] = next_one
    _link(slot, table, side)


@njit(cache=True)
def _link(slot: int, table: _Table, side: int) -> None:
    _, _, links, ends = table
    links[slot, side], links[slot, 1 - side] = -1, ends[side]
    if ends[side] >= 0:
        links[ends[side], side] = slot
    else:
        ends[1 - side] = slot
    ends[side] = slot


# ---------------------------------------------------------------- asking
@njit(cache=True)
def _evidence(
    users: U64, rings: Rows, count: F64, total: float, table: _Table, histories: _Histories, by_item: _Rings,
    sums: F32, scores: F32, rows: I32, vs: F32, uk: F32,
) -> I64:  # fmt: skip
    """`sums` (users, 2) and `scores` (capacity, 2) are scratch, zeros before and after."""
    hashes, slots, _, _ = table
    items, taken = histories
    takers, used = by_item
    depth = rings.shape[1]
    mine, shares = np.empty(depth, np.int64), np.empty((depth, 2), np.float32)
    met, by = np.empty(depth * TAKERS + 1, np.int32), np.empty(depth * TAKERS + 1, np.uint8)
    sims, spare, chosen = np.empty(len(met), np.float32), np.empty(len(met), np.float32), np.empty(_VS_KEPT, np.int64)
    start, n = np.zeros(len(rings) + 1, np.int64), 0
    for query in range(len(rings)):
        m, n_met, n_vs = _distinct(rings[query], count, total, mine, shares), 0, 0
        for k in range(m):
            row, a, b = mine[k], shares[k, 0], shares[k, 1]
            for at in range(int(used[row]) - 1, -1, -1):
                v = takers[row, at]
                met[n_met], by[n_met] = v, k
                n_met += sums[v, 1] == 0  # without a branch: nobody can guess it
                sums[v, 0] += a
                sums[v, 1] += b
            if k < _VS_ITEMS:
                n_vs = n_met
        me = slots[_place(slots, hashes, users[query])] - 1
        if me >= 0:
            sums[me, 0], sums[me, 1] = 0, 0
        for at in range(n_vs):
            sims[at] = sums[met[at], 0]
        n_chosen, vs_total, uk_total = _nearest(sims, spare, n_vs, _VS_KEPT, chosen), _TINY, _TINY
        for near in range(n_chosen):
            v, sim = met[chosen[near]], sims[chosen[near]]
            vs_total += sim
            n = _steps(items[v], taken[v], mine[by[chosen[near]]], sim, scores, rows, n)
        for at in range(n_met):
            v = met[at]
            sims[at] = sums[v, 1] / np.sqrt(np.float32(_UK_SHRINK + taken[v]))
            sums[v, 0], sums[v, 1] = 0, 0
        n_chosen = _nearest(sims, spare, n_met, _UK_KEPT, chosen)
        for near in range(n_chosen):
            v, sim = met[chosen[near]], sims[chosen[near]] * sims[chosen[near]]
            uk_total += sim
            for p in range(max(taken[v] - HISTORY, 0), taken[v]):
                row = items[v, p % _PLACES]
                if not row & _LATER:
                    rows[n] = row
                    n += scores[row, 0] + scores[row, 1] == 0
                    scores[row, 1] += sim
        for at in range(start[query], n):
            row = rows[at]
            vs[at], uk[at] = scores[row, 0] / vs_total, scores[row, 1] / uk_total
            scores[row, 0], scores[row, 1] = 0, 0
        start[query + 1] = n
    return start


@njit(cache=True)
def _distinct(ring: Rows, count: F64, total: float, mine: I64, shares: F32) -> int:
    """The distinct items of a history, newest first, and what each adds to sim_v of VS-kNN and of user kNN."""
    m = 0
    for d in range(len(ring)):
        row = ring[d]
        if row < 0:
            continue
        k = 0
        while k < m and mine[k] != row:
            k += 1
        if k == m:
            rarity = np.float32(np.log1p(max(total, 1.0) / max(count[row], 1.0)))
            mine[m] = row
            shares[m, 0] = rarity * _VS_SHARES[m] if m < _VS_ITEMS else np.float32(0)
            shares[m, 1] = rarity * _UK_SHARES[d]
            m += 1
    return m


@njit(cache=True)
def _nearest(sims: F32, spare: F32, n: int, kept: int, chosen: I64) -> int:
    """The places of the `kept` greatest of sims[:n] that are > 0, of equals the first, in their order."""
    bar, equals = np.float32(0), 0
    if n > kept:
        spare[:n] = sims[:n]
        bar = greatest(spare, n, kept)
        equals = kept
        for at in range(n):
            equals -= sims[at] > bar
    found = 0
    for at in range(n):
        if sims[at] > bar:
            chosen[found] = at
            found += 1
        elif sims[at] == bar and bar > 0 and equals > 0:
            chosen[found] = at
            found += 1
            equals -= 1
    return found


@njit(cache=True)
def _steps(theirs: I32, n_theirs: int, row: int, sim: np.float32, scores: F32, rows: I32, n: int) -> int:
    """Add what a neighbour took after and before the match, and note rows first met."""
    first, match = max(n_theirs - HISTORY, 0), n_theirs - 1
    while match > first and theirs[match % _PLACES] != row:  # the last time they took it: earlier ones are marked
        match -= 1
    for o in range(1, min(_AFTER, n_theirs - 1 - match) + 1):
        item = theirs[(match + o) % _PLACES] & ~_LATER
        rows[n] = item
        n += scores[item, 0] == 0
        scores[item, 0] += sim * _VS_SHARES[o - 1]
    for o in range(1, min(_BEFORE, match - first) + 1):
        item = theirs[(match - o) % _PLACES] & ~_LATER
        rows[n] = item
        n += scores[item, 0] == 0
        scores[item, 0] += sim * np.float32(_BACKWARD) * _VS_SHARES[o - 1]
    return n


@njit(cache=True)
def _of(start: I64, found: I32, vs: F32, uk: F32, owner: Owner, rows: Rows, place: I32) -> F32:
    """`place` is scratch, zeros before and after. No branches: whether a candidate has evidence, nobody can guess."""
    out, first = np.empty((2, len(rows)), np.float32), 0
    while first < len(rows):
        query, at = owner[first], first
        for entry in range(start[query], start[query + 1]):
            place[found[entry]] = entry + 1
        while at < len(rows) and owner[at] == query:
            entry = place[rows[at]]
            hit = np.float32(entry > 0)
            entry -= entry > 0
            out[0, at], out[1, at] = hit * vs[entry], hit * uk[entry]
            at += 1
        for entry in range(start[query], start[query + 1]):
            place[found[entry]] = 0
        first = at
    return out
