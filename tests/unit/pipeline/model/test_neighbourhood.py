"""The neighbourhood against a plain twin: streams, repeats, wrapped rings, recycled users, forgets; and its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.neighbourhood import _SAMPLE, _SLOTS, HISTORY, TAKERS, Neighbourhood, _nearest
from pipeline.model.rows import ItemRows
from pipeline.types import F64, RING, U64, Rows

GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Act = tuple[int, int]  # user, item; item 0 = the user is forgotten


class Twin:
    """Users as lists of their items, items as lists of their takers; no table, no slots, no kernel."""

    def __init__(self, users: int) -> None:
        self.users = users
        self.taken: dict[int, list[int]] = {}  # by user, all items; least recently active first
        self.takers: dict[int, list[int]] = {}  # by item, who took it last stands last

    def act(self, user: int, item: int) -> None:
        if item == 0:
            self.forget(user)
            return
        if user not in self.taken and len(self.taken) == self.users:
            self.forget(next(iter(self.taken)))
        before = self.taken.pop(user, [])
        self.taken[user] = [*before, item]
        for gone in set(before[-HISTORY:]) - set(self.taken[user][-HISTORY:]):
            self.takers[gone] = [taker for taker in self.takers[gone] if taker != user]
        others = [taker for taker in self.takers.get(item, []) if taker != user]
        self.takers[item] = [*others, user][-TAKERS:]

    def forget(self, user: int) -> None:
        self.taken.pop(user, None)
        for item, takers in self.takers.items():
            self.takers[item] = [taker for taker in takers if taker != user]

    def vs(self, user: int, history: Sequence[int], count: dict[int, float], total: float) -> dict[int, float]:
        newest = list(dict.fromkeys(history))[:10]
        sims: dict[int, float] = {}
        match: dict[int, int] = {}
        for d, item in enumerate(newest):
            for v in reversed(self.takers.get(item, [])):
                sims[v] = sims.get(v, 0.0) + 0.8**d * math.log(1 + total / count[item])
                match.setdefault(v, item)
        sims.pop(user, None)
        kept = sorted(sims, key=lambda v: -round(sims[v], 5))[:150]  # stable: of equals who was met first
        out: dict[int, float] = {}
        for v in kept:
            theirs = self.taken[v]
            p = max(at for at, item in enumerate(theirs) if item == match[v])
            places = {p + o: 0.8 ** (o - 1) for o in range(1, 11)}
            places |= {p - o: 0.4 * 0.8 ** (o - 1) for o in range(1, 6)}
            for place, share in places.items():
                if max(len(theirs) - HISTORY, 0) <= place < len(theirs):
                    out[theirs[place]] = out.get(theirs[place], 0.0) + sims[v] * share
        return {item: value / sum(sims[v] for v in kept) for item, value in out.items()}

    def uk(self, user: int, history: Sequence[int], count: dict[int, float], total: float) -> dict[int, float]:
        sims: dict[int, float] = {}
        for item in dict.fromkeys(history):
            share = 0.95 ** history.index(item) * math.log(1 + total / count[item])
            for v in reversed(self.takers.get(item, [])):
                sims[v] = sims.get(v, 0.0) + share
        sims.pop(user, None)
        sims = {v: sim / math.sqrt(5 + len(self.taken[v])) for v, sim in sims.items()}
        kept = sorted(sims, key=lambda v: -round(sims[v], 5))[:100]
        out: dict[int, float] = {}
        for v in kept:
            for item in set(self.taken[v][-HISTORY:]):
                out[item] = out.get(item, 0.0) + sims[v] ** 2
        return {item: value / sum(sims[v] ** 2 for v in kept) for item, value in out.items()}


class Both:
    """A neighbourhood and its twin, fed with the same acts. Items and users by number from 1."""

    def __init__(self, users: int = 1000) -> None:
        self.rows = ItemRows(16)
        self.real, self.twin = Neighbourhood(self.rows, users), Twin(users)
        self.count: dict[int, float] = {}

    def act(self, *acts: Act) -> None:
        users = np.array([user for user, _ in acts], np.uint64) * GOLDEN
        rows = [self.rows.row(item) if item else -1 for _, item in acts]
        self.real.add(users, np.array(rows, np.int64))
        for user, item in acts:
            self.twin.act(user, item)
            self.count[item] = self.count.get(item, 0.0) + 1

    def compare(self, *askers: tuple[int, Sequence[int]]) -> None:
        """Evidence for users with histories, newest first, as one chunk."""
        assert len(self.real) == len(self.twin.taken)
        users, rings, count, total = self.queries(askers)
        found = self.real.evidence(users, rings, count, total)
        for at, (user, history) in enumerate(askers):
            part = slice(found.start[at], found.start[at + 1])
            items = self.rows.hashes[found.rows[part]].tolist()
            assert len(set(items)) == len(items)
            counts = {item: self.count.get(item, 1.0) for item in history}
            for column, want in ((found.vs, self.twin.vs), (found.uk, self.twin.uk)):
                got = {item: value for item, value in zip(items, column[part].tolist(), strict=True) if value}
                expected = want(user, history, counts, total)
                assert got.keys() == expected.keys()
                np.testing.assert_allclose([got[item] for item in expected], list(expected.values()), rtol=1e-4)

    def queries(self, askers: Sequence[tuple[int, Sequence[int]]]) -> tuple[U64, Rows, F64, float]:
        """What `evidence` takes: hashes, rings, counts and their total."""
        users = np.array([user for user, _ in askers], np.uint64) * GOLDEN
        rings = self.rings([history for _, history in askers])
        count = np.ones(self.rows.capacity)
        for item in filter(None, self.count):
            count[self.rows.row(item)] = self.count[item]
        return users, rings, count, float(sum(self.count.values()))

    def rings(self, histories: Sequence[Sequence[int]]) -> Rows:
        rings = np.full((len(histories), RING), -1, np.int64)
        for at, history in enumerate(histories):
            rings[at, : len(history)] = [self.rows.row(item) for item in history]
        return rings


def stream(seed: int, acts: int, users: int, items: int) -> list[Act]:
    """Some items are popular, some users busy."""
    rng = np.random.default_rng(seed)
    who = (users * rng.random(acts) ** 2).astype(int) + 1
    what = (items * rng.random(acts) ** 3).astype(int) + 1
    return list(zip(who.tolist(), what.tolist(), strict=True))


def histories(seed: int, n: int, users: int, items: int) -> list[tuple[int, list[int]]]:
    """Askers, some of them known, some with repeats."""
    rng = np.random.default_rng(seed)
    return [
        (int(rng.integers(1, users + 3)), rng.integers(1, items + 2, rng.integers(0, RING + 1)).tolist())
        for _ in range(n)
    ]


@pytest.mark.parametrize(
    ("acts", "users", "items", "room"),
    [(3000, 500, 60, 1000), (3000, 30, 200, 1000), (2000, 300, 5, 1000), (2000, 200, 40, 50), (400, 20, 30, 3)],
    ids=["rings wrap", "busy users", "few items", "users are recycled", "almost no room"],
)
def test_streams_like_the_twin(acts: int, users: int, items: int, room: int) -> None:
    both = Both(room)
    events = stream(1, acts, users, items)
    for at in range(0, len(events), 700):
        both.act(*events[at : at + 700])
        both.compare(*histories(at, 20, users, items))


@settings(max_examples=60, deadline=None)
@given(
    acts=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), max_size=150),
    history=st.lists(st.integers(1, 5), max_size=RING),
    user=st.integers(1, 6),
    room=st.sampled_from([1, 2, 4, 100]),
)
def test_any_few_acts_like_the_twin(acts: list[Act], history: list[int], user: int, room: int) -> None:
    both = Both(room)
    both.act(*acts)
    both.compare((user, history))


def test_many_histories_of_many_users_like_the_twin() -> None:
    """More neighbours than are kept, lists of many equally near."""
    both = Both()
    both.act(*((user, item) for user in range(1, 400) for item in (1 + user % 3, 4, 5 + user % 7)))
    both.compare((1, [4, 1, 5]), (1000, [4]), (1000, [1]), (1000, [4] * RING))


def test_nobody_is_their_own_neighbour() -> None:
    both = Both()
    both.act((1, 7), (1, 8))
    both.compare((1, [8, 7]))
    both.compare((2, [7]))
    assert not evidence(both, 1, [8, 7])
    assert evidence(both, 2, [7]).keys() == {7, 8}  # 8 came after the match; 7 is what the neighbour had, too


def test_the_nearest_are_found_even_where_a_sample_says_nothing_of_the_rest() -> None:
    """Every place that the sample looks at is among the greatest: too few lie above what it takes for their bar."""
    n, kept = 4 * _SAMPLE, 40
    sims = np.linspace(1, 2, n, dtype=np.float32)
    sims[:: n // _SAMPLE] += 10
    spare, chosen = np.empty(n, np.float32), np.empty(n, np.int32)
    found = _nearest(sims, n, kept, spare, chosen)
    wanted = np.sort(np.argsort(-sims, kind="stable")[:kept])
    np.testing.assert_array_equal(chosen[:found], wanted)


def test_by_hand() -> None:
    both = Both()
    both.act((1, 7), (1, 8), (1, 9), (2, 7), (2, 9))
    # Both are as near: after 7 came 8 and 9, and 9 at once.
    found = evidence(both, 3, [7])
    assert found[7] == pytest.approx((0, 1))
    assert found[8] == pytest.approx((1 / 2, (1 / 8) / (1 / 8 + 1 / 7)))
    assert found[9] == pytest.approx(((0.8 + 1) / 2, 1))
    assert len(found) == 3


def test_who_forgets_is_nobodys_neighbour_and_may_come_again() -> None:
    both = Both()
    both.act((1, 7), (1, 8), (2, 7))
    both.real.forget(int(GOLDEN))
    both.twin.forget(1)
    both.compare((3, [7]), (3, [8]))
    assert not evidence(both, 3, [8])
    assert not both.real._items[both.real._hashes == 0].any()  # nothing of it is left in memory
    both.act((1, 8), (1, 9))
    both.compare((3, [7]), (3, [8]))
    assert evidence(both, 3, [8]).keys() == {8, 9}


def test_nobody_is_learned_or_found_under_the_hash_of_nobody() -> None:
    both = Both()
    both.real.add(np.zeros(2, np.uint64), np.array([both.rows.row(7), -1]))
    assert len(both.real) == 0
    assert not evidence(both, 0, [7])


def test_without_neighbours_there_is_nothing() -> None:
    both = Both()
    both.compare((1, []), (1, [7, 8]))
    found = both.real.evidence(np.empty(0, np.uint64), np.empty((0, RING), np.int64), np.ones(16), 0.0)
    assert found.start.tolist() == [0]


def test_counts_that_say_nothing_give_finite_evidence() -> None:
    both = Both()
    both.act((1, 7), (1, 8))
    count = np.zeros(both.rows.capacity)
    found = both.real.evidence(np.array([9], np.uint64), both.rings([[7]]), count, 0.0)
    assert len(found.rows) == 2
    assert np.isfinite(found.vs).all()
    assert np.isfinite(found.uk).all()


def test_candidates_have_their_evidence_in_any_order() -> None:
    both = Both()
    both.act(*stream(2, 2000, 200, 50))
    asked = histories(3, 6, 200, 50)
    users = np.arange(1, 7, dtype=np.uint64)
    found = both.real.evidence(
        users, both.rings([history for _, history in asked]), np.ones(both.rows.capacity), 2000.0
    )
    n = len(both.rows)
    owner, rows = np.repeat(np.arange(0, 6, 2), n), np.tile(np.arange(n)[::-1], 3)  # every other query
    want = np.zeros((6, n, 2), np.float32)
    want[np.repeat(np.arange(6), np.diff(found.start)), found.rows] = np.stack((found.vs, found.uk), 1)
    for _ in range(2):
        np.testing.assert_array_equal(both.real.of(found, owner, rows), want[owner, rows].T)
    assert (both.real.of(found, owner[:0], rows[:0])).shape == (2, 0)


def test_a_chunk_gives_what_its_queries_give_one_by_one() -> None:
    both = Both()
    both.act(*stream(4, 3000, 300, 40))
    asked = histories(5, 10, 300, 40)
    whole = both.real.evidence(*both.queries(asked))
    for at, one in enumerate(asked):
        part = slice(whole.start[at], whole.start[at + 1])
        alone = both.real.evidence(*both.queries([one]))
        for column in ("rows", "vs", "uk"):
            np.testing.assert_array_equal(getattr(alone, column), getattr(whole, column)[part])


def test_rows_that_come_later_have_rings_too() -> None:
    both = Both()
    both.act((1, 1), (2, 1))
    both.act(*((1, item) for item in range(2, 60)))  # the rows outgrow their columns
    both.compare((2, [1]), (3, [1, 40]), (3, list(range(30, 60))))


def test_memory_is_bounded() -> None:
    both = Both(100)
    both.act(*stream(6, 5000, 2000, 300))
    assert len(both.real) == 100
    assert both.real.bytes() <= 813 * both.rows.capacity + 304 * 100


@pytest.mark.parametrize("room", [1000, 15], ids=["room", "no room"])
def test_memory_stays_as_it_is_while_users_are_forgotten_and_come_again(room: int) -> None:
    both = Both(room)
    forgets = np.random.default_rng(7).random(2000) < 0.2
    acts = [
        (user, 0 if forget else item) for (user, item), forget in zip(stream(7, 2000, 20, 30), forgets, strict=True)
    ]
    for at in range(0, len(acts), 100):
        both.act(*acts[at : at + 100])
        both.compare(*histories(at, 10, 20, 30))
    assert both.real._ends[_SLOTS] <= min(20, room)  # of `room`, the others are not written to


def evidence(both: Both, user: int, history: Sequence[int]) -> dict[int, tuple[float, float]]:
    """vs and uk by item, each item as rare as any other."""
    users, rings, _, _ = both.queries([(user, history)])
    found = both.real.evidence(users, rings, np.ones(both.rows.capacity), 1.0)
    items = both.rows.hashes[found.rows].tolist()
    return dict(zip(items, zip(found.vs.tolist(), found.uk.tolist(), strict=True), strict=True))
