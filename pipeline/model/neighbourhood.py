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
from pipeline.model.lookup import look_up
from pipeline.model.rows import ItemRows
from pipeline.types import F32, F64, I32, I64, RING, U8, U64, Owner, Rows

USERS = 200_000  # remembered, the least active of late forgotten first
TAKERS = 200  # users that an item remembers, the last to take it
HISTORY = 60  # items that a user is remembered by

_LATER = np.int32(1 << 30)  # bit of an item that its user took again later
_TAKEN = 60  # place behind a user's items: how many they took ever, repeats included. Event p stands at p mod 60
_MANY = 60 << 24  # of them are taken off before the number is too large to hold
_PLACES = 64  # so that a user lies on cache lines of their own

_VS_ITEMS, _VS_DECAY, _VS_KEPT = 10, 0.8, 150
_AFTER, _BEFORE, _BACKWARD = 10, 5, 0.4
_UK_DECAY, _UK_KEPT, _UK_SHRINK = 0.95, 100, 5.0

_VS_SHARES = (_VS_DECAY ** np.arange(RING)).astype(np.float32)
_STEPS = np.concatenate((_BACKWARD * _VS_SHARES[:_BEFORE][::-1], [0], _VS_SHARES[:_AFTER])).astype(np.float32)
_UK_SHARES = (_UK_DECAY ** np.arange(RING)).astype(np.float32)

_TINY = np.float32(1e-30)  # keeps what no neighbour was met for from being 0 / 0
_MOST = _VS_KEPT * (_AFTER + _BEFORE) + _UK_KEPT * HISTORY + 1  # entries of a query, at most, and one more

_VS, _UK, _NORM = range(3)  # of `near`: sim_v of both, zeros between calls, and 1 / sqrt(5 + len_v)
_SAMPLE = 128  # similarities that a guess of the last one kept is taken from

_NEWER, _OLDER, _SLOTS = range(3)  # sides of the list of users by their last event, and slots in use

_Table = tuple[U64, I32, I32, I64]  # hashes, slots, links, ends
_Histories = tuple[I32, F32]  # items, near
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

    Time at 10,000 items, of one core: .4 to 1 us an event; for a query of 3 to 30 items 35 to 60 us among 20,000 users,
    35 to 100 us among 200,000, what they took not being in a cache.
    """

    def __init__(self, rows: ItemRows, users: int = USERS) -> None:
        self._rows = rows
        # Zeros come untouched from the system: a process that never adds pays nothing for them.
        self._takers = np.zeros((0, TAKERS), np.int32)  # slots of users; who took the item last stands last
        self._used = np.zeros(0, np.uint8)
        self._items = np.zeros((users, _PLACES), np.int32)
        self._near = np.zeros((users, 4), np.float32)
        self._hashes = np.zeros(users, np.uint64)  # 0 = nobody has the slot
        self._links = np.zeros((users, 2), np.int32)  # slots of the users who were active next after and next before
        self._ends = np.array((-1, -1, 0), np.int64)
        self._slots = np.zeros(1 << (2 * users - 1).bit_length(), np.int32)  # open addressing: slot + 1, 0 = free
        # Work space that outlives a call, since fresh memory costs more than the work: zeros between calls.
        self._scores = np.zeros((0, 2), np.float32)
        self._places = np.zeros(0, np.int32)

    def __len__(self) -> int:
        """Users remembered."""
        return int(np.count_nonzero(self._hashes))

    def bytes(self) -> int:
        """What the arrays take when every byte of them is written to."""
        rings = (self._takers, self._used, self._scores, self._places)
        users = (self._items, self._near, self._hashes, self._links, self._slots)
        return sum(array.nbytes for array in rings + users)

    def add(self, users: U64, rows: Rows) -> None:
        """Learn events (m,) in log order: which user (hash) took which item; row -1 = the user was forgotten."""
        self._stretch()
        _add(users, rows, self._table, (self._items, self._near), (self._takers, self._used))

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
            users, rings, count, total, self._table, (self._items, self._near), (self._takers, self._used),
            self._scores, rows, vs, uk,
        )  # fmt: skip
        return Neighbours(start, rows[: start[-1]], vs[: start[-1]], uk[: start[-1]])

    def of(self, neighbours: Neighbours, owner: Owner, rows: Rows) -> F32:
        """vs and uk of candidates (c,), a line each: (2, c). `owner` ascending; 0 without evidence."""
        self._stretch()
        columns = neighbours.vs, neighbours.uk
        return look_up(neighbours.start, neighbours.rows, columns, owner, rows, self._places)

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
    items, near = histories
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
        _join(rings, row, slot, _push(items[slot], row, slot, rings))
        near[slot, _NORM] = 1 / np.sqrt(_UK_SHRINK + items[slot, _TAKEN])


@njit(cache=True)
def _push(mine: I32, row: int, slot: int, rings: _Rings) -> bool:
    """Write a user's next item; where one is taken again, earlier ones are marked. Returns whether it is."""
    n, again = mine[_TAKEN], False
    for place in range(min(n, HISTORY)):
        if mine[place] == row:
            mine[place] |= _LATER
            again = True
    place = n % HISTORY
    if n >= HISTORY and not mine[place] & _LATER:  # the user has forgotten that item
        _leave(rings, mine[place], slot)
    mine[place] = row
    mine[_TAKEN] = n + 1 if n < 2 * _MANY else n + 1 - _MANY
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
    """A slot for a new user: that of somebody forgotten (they stand at the older end), else a fresh one, else that of
    the user whose last event is the oldest."""
    hashes, slots, _, ends = table
    slot = int(ends[_OLDER])
    if slot < 0 or (hashes[slot] and ends[_SLOTS] < len(hashes)):
        slot = int(ends[_SLOTS])
        ends[_SLOTS] += 1
        _link(slot, table, _NEWER)
    elif hashes[slot]:
        _erase(slot, table, histories, rings)
    slots[_place(slots, hashes, user)] = slot + 1
    hashes[slot] = user
    return slot


@njit(cache=True)
def _erase(slot: int, table: _Table, histories: _Histories, rings: _Rings) -> None:
    """Nothing is left of the slot's user; no ring names the slot."""
    hashes, slots, _, _ = table
    items, _ = histories
    for place in range(min(items[slot, _TAKEN], HISTORY)):
        if not items[slot, place] & _LATER:
            _leave(rings, items[slot, place], slot)
    _close_up(slots, hashes, _place(slots, hashes, hashes[slot]))
    hashes[slot] = 0
    items[slot] = 0


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
    scores: F32, rows: I32, vs: F32, uk: F32,
) -> I64:  # fmt: skip
    """`scores` (capacity, 2) is scratch, zeros before and after."""
    hashes, slots, _, _ = table
    items, near = histories
    depth = rings.shape[1]
    most = depth * TAKERS + 1
    mine, shares = np.empty(depth, np.int64), np.empty((depth, 2), np.float32)
    met, by, chosen = np.empty(most, np.int32), np.empty(most, np.uint8), np.empty(most, np.int32)
    sims, spare = np.empty(most, np.float32), np.empty(most, np.float32)
    start, n = np.zeros(len(rings) + 1, np.int64), 0
    for query in range(len(rings)):
        m = _distinct(rings[query], count, total, mine, shares)
        n_met, n_vs = _meet(mine[:m], shares, by_item, near, met, by)
        me = slots[_place(slots, hashes, users[query])] - 1
        if me >= 0:
            near[me, _VS], near[me, _UK] = 0, 0
        for at in range(n_vs):
            sims[at] = near[met[at], _VS]
        n_near = _nearest(sims, n_vs, _VS_KEPT, spare, chosen)
        n, vs_total = _around(chosen[:n_near], met, sims, by, mine, items, scores, rows, n)
        for at in range(n_met):
            v = met[at]
            sims[at] = near[v, _UK] * near[v, _NORM]
            near[v, _VS], near[v, _UK] = 0, 0
        n_near = _nearest(sims, n_met, _UK_KEPT, spare, chosen)
        n, uk_total = _besides(chosen[:n_near], met, sims, items, scores, rows, n)
        for at in range(start[query], n):
            row = rows[at]
            vs[at], uk[at] = scores[row, 0] / vs_total, scores[row, 1] / uk_total
            scores[row, 0], scores[row, 1] = 0, 0
        start[query + 1] = n
    return start


@njit(cache=True)
def _meet(mine: I64, shares: F32, rings: _Rings, near: F32, met: I32, by: U8) -> tuple[int, int]:
    """Sum up both sim_v, and note each user once, with the first item that led to them, newest takers first.

    Returns how many were met, and how many by the items of VS-kNN. Whether somebody was met before is not branched on:
    nobody could guess it.
    """
    takers, used = rings
    n, n_vs = 0, 0
    for k in range(len(mine)):
        row, a, b = mine[k], shares[k, 0], shares[k, 1]
        for at in range(int(used[row]) - 1, -1, -1):
            v = takers[row, at]
            met[n], by[n] = v, k
            n += near[v, _UK] == 0
            near[v, _VS] += a
            near[v, _UK] += b
        if k < _VS_ITEMS:
            n_vs = n
    return n, n_vs


@njit(cache=True)
def _around(
    chosen: I32, met: I32, sims: F32, by: U8, mine: I64, items: I32, scores: F32, rows: I32, n: int
) -> tuple[int, np.float32]:
    """Add what the chosen took after and before the match to scores[:, 0], and note rows first met; their sim_v."""
    total = _TINY
    n += _fetch(items, met, chosen)
    for one in chosen:
        v, row = met[one], mine[by[one]]
        size, match = min(items[v, _TAKEN], HISTORY), 0
        while match < size - 1 and items[v, match] != row:  # the last time they took it: earlier ones are marked
            match += 1
        after = ((items[v, _TAKEN] - 1) % HISTORY - match) % HISTORY
        total += sims[one]
        for o in range(-min(_BEFORE, size - 1 - after), min(_AFTER, after) + 1):
            place = match + o
            place += HISTORY * ((place < 0) - (place >= HISTORY))
            item = items[v, place] & ~_LATER
            rows[n] = item
            n += (scores[item, 0] == 0) & (o != 0)
            scores[item, 0] += sims[one] * _STEPS[_BEFORE + o]
    return n, total


@njit(cache=True)
def _besides(chosen: I32, met: I32, sims: F32, items: I32, scores: F32, rows: I32, n: int) -> tuple[int, np.float32]:
    """Add what the chosen took, each item once, to scores[:, 1], and note rows first met; their sim_v^2."""
    total = _TINY
    n += _fetch(items, met, chosen)
    for one in chosen:
        v, share = met[one], sims[one] * sims[one]
        total += share
        for place in range(min(items[v, _TAKEN], HISTORY)):
            item, last = items[v, place] & ~_LATER, items[v, place] < _LATER
            rows[n] = item
            n += (scores[item, 0] + scores[item, 1] == 0) & last
            scores[item, 1] += share * last
    return n, total


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
def _nearest(sims: F32, n: int, kept: int, spare: F32, chosen: I32) -> int:
    """The places of the `kept` greatest of sims[:n] that are > 0, of equals the first; in their order."""
    floor = _floor(sims, n, kept, spare)
    found = _above(sims, n, floor, spare, chosen)
    if found < kept and floor > 0:
        found = _above(sims, n, np.float32(0), spare, chosen)
    if found <= kept:
        return found
    bar, equals = greatest(spare, found, kept), kept
    for at in range(found):
        equals -= sims[chosen[at]] > bar
    left = 0
    for at in range(found):
        sim = sims[chosen[at]]
        equal = (sim == bar) & (equals > 0)
        equals -= equal
        chosen[left] = chosen[at]
        left += (sim > bar) | equal
    return left


@njit(cache=True)
def _floor(sims: F32, n: int, kept: int, spare: F32) -> np.float32:
    """A guess that about twice as many as are kept lie above: a wrong one costs time only."""
    if n <= 4 * kept:
        return np.float32(0)
    for at in range(_SAMPLE):
        spare[at] = sims[at * n // _SAMPLE]
    return greatest(spare, _SAMPLE, 2 + 2 * kept * _SAMPLE // n)


@njit(cache=True)
def _above(sims: F32, n: int, floor: np.float32, spare: F32, chosen: I32) -> int:
    """The places of those of sims[:n] that are > floor, and what they are."""
    found = 0
    for at in range(n):
        chosen[found], spare[found] = at, sims[at]
        found += sims[at] > floor
    return found


@njit(cache=True)
def _fetch(items: I32, met: I32, chosen: I32) -> int:
    """Bring the neighbours' items into the cache, many at a time: one by one they take longer than all the rest.

    Returns 0, of all that was read, so that the reads are not left out.
    """
    touched = 0
    for one in chosen:
        v = met[one]
        touched |= items[v, 0] | items[v, 16] | items[v, 32] | items[v, 48] | items[v, _TAKEN]
    return touched >> 31  # none of them is negative
