"""Union and ranks, against sets and list.index; marks against Python's sets."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.candidates import Lists, ranks, starts, union
from pipeline.queries import Marks
from pipeline.selection import Proposals
from pipeline.types import hash_id

N = 12
lists_of_rows = st.lists(st.lists(st.integers(0, N - 1), unique=True), min_size=3, max_size=3)  # of three queries


def proposals(lists: list[list[int]]) -> Proposals:
    return Proposals(np.cumsum([0, *map(len, lists)]), np.array(list(chain.from_iterable(lists)), np.int64))


@settings(deadline=None)
@given(st.lists(lists_of_rows, max_size=4), st.data())
def test_union_and_ranks(sources: list[list[list[int]]], data: st.DataObject) -> None:
    found = Lists.of([proposals(lists) for lists in sources], 3)
    assert [found.source(at).rows.tolist() for at in range(len(sources))] == [list(chain(*lists)) for lists in sources]
    rows, owner = union(found, N)
    start = starts(owner, 3).tolist()
    names = [data.draw(st.sampled_from("ab")) for _ in sources]
    once, places = ranks(found, names, rows, owner, N)
    assert once == tuple(dict.fromkeys(names))
    assert places.shape == (len(rows), len(once))
    for query, (a, b) in enumerate(pairwise(start)):
        offered = [row for lists in sources for row in lists[query]]
        assert rows[a:b].tolist() == list(dict.fromkeys(offered))
        for row, line in zip(rows[a:b].tolist(), places[a:b].tolist(), strict=True):
            given_ = [
                (name, lists[query].index(row) + 1)
                for name, lists in zip(names, sources, strict=True)
                if row in lists[query]
            ]
            assert line == [min((rank for name, rank in given_ if name == one), default=0) for one in once]


marks = st.one_of(st.integers(0, (1 << 32) - 1), st.sampled_from([0, 4096, 8192, 12288, 4097, (1 << 32) - 1]))


@settings(deadline=None)
@given(st.lists(st.lists(marks, max_size=30), min_size=1, max_size=4), st.data())
def test_marks_contain_what_they_were_given(sets: list[list[int]], data: st.DataObject) -> None:
    held = Marks(np.cumsum([0, *map(len, sets)]), np.array(list(chain.from_iterable(sets)), np.uint32))
    some = st.one_of(marks, st.sampled_from(list(chain.from_iterable(sets)) or [1]))
    asked = data.draw(st.lists(st.tuples(st.integers(0, len(sets) - 1), some, st.integers(0, 9)), max_size=40))
    asked.sort()
    owner = np.array([query for query, _, _ in asked], np.int64)
    hashes = np.array([mark | high << 32 for _, mark, high in asked], np.uint64)
    assert held.contains(owner, hashes).tolist() == [mark in sets[query] for query, mark, _ in asked]


def test_marks_hold_as_many_as_a_state_may() -> None:
    own = np.random.default_rng(0).integers(0, 1 << 32, (2, 5_000), dtype=np.uint32)
    held = Marks(np.array([0, 5_000, 5_000]), own[0])
    owner = np.repeat([0, 0, 1], 5_000)
    hit = held.contains(owner, np.concatenate([own[0], own[1], own[0]]).astype(np.uint64))
    assert hit[:5_000].all()
    assert hit[5_000:10_000].tolist() == [mark in set(own[0].tolist()) for mark in own[1].tolist()]
    assert not hit[10_000:].any()


def test_marks_of_names() -> None:
    held = Marks.of([("ann",), (), ("bob", "cid")])
    asked = np.array([hash_id("ann"), hash_id("ann"), hash_id("cid"), hash_id("dan")], np.uint64)
    assert held.contains(np.array([0, 1, 2, 2]), asked).tolist() == [True, False, True, False]
