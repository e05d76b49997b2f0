"""Learning held to plain twins on any stream: sequence, co-visitation, what was seen, lessons."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.covisitation import KEPT, ROOM
from pipeline.seen import WINDOW, Seen
from tests.unit.pipeline.model.test_covisitation import Lists
from tests.unit.pipeline.model.test_sequence import Event, Learning

items = st.one_of(st.integers(1, 6), st.integers(1, (1 << 64) - 1))
few = st.integers(1, 5)
histories = st.lists(st.one_of(few, items), max_size=30)
times = st.integers(1_700_000_000_000, 1_700_000_000_000 + 90 * 86_400_000)

events = st.builds(
    Event,
    target=st.one_of(few, items),
    history=histories.map(tuple),
    weight=st.sampled_from([0.1, 0.3, 1.0, 4.0]),
    seed=st.integers(0, (1 << 64) - 1),
    consumed=st.lists(st.one_of(few, items), max_size=8).map(tuple),
    now=times,
    taken=st.lists(times.map(lambda time: time // 1000), max_size=30).map(tuple),
    before=st.integers(0, 100),
)


@settings(max_examples=60, deadline=None)
@given(stream=st.lists(events, max_size=12), negatives=st.integers(0, 12), cut=st.integers(0, 12))
def test_the_sequence_model_learns_as_its_twin(stream: list[Event], negatives: int, cut: int) -> None:
    learning = Learning(4)
    for part in (stream[:cut], stream[cut:]):
        if part:
            assert learning.learn(*part, negatives=negatives) == 0
    learning.compare()


@settings(max_examples=60, deadline=None)
@given(
    stream=st.lists(st.tuples(items, histories, times, st.sampled_from([0.3, 1.0, 4.0])), max_size=40),
    asked=st.lists(histories, max_size=4),
)
def test_covisitation_learns_and_answers_as_its_twin(
    stream: list[tuple[int, list[int], int, float]], asked: list[list[int]]
) -> None:
    lists, now = Lists(), 1_700_000_000_000 + 100 * 86_400_000
    if stream:
        lists.learn(*stream)
    lists.compare()
    for history, found in zip(asked, lists.evidence(asked, now), strict=True):
        want = lists.twin.evidence(history, now, {})
        assert found.keys() == want.keys()
        for item, columns in want.items():
            np.testing.assert_allclose(found[item], columns, rtol=1e-4, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), pool=st.integers(20, 2000), events=st.integers(100, 1500))
def test_lists_stay_bounded_and_prune_as_the_twin(seed: int, pool: int, events: int) -> None:
    rng, lists = np.random.default_rng(seed), Lists()
    lists.learn(
        *(
            (int(target), rng.integers(1, 4, 3).tolist(), 1_700_000_000_000 + at * 60_000, float(rng.random()))
            for at, target in enumerate(rng.integers(1, pool, events))
        )
    )
    lists.compare()
    for item in range(1, 4):
        for kind, (kept, room) in enumerate(zip(KEPT, ROOM, strict=True)):
            assert len(lists.entries(item, kind)) < room
            record = lists.model.export(lists.rows.row(item), "x")
            assert len(record.hashes[kind]) == min(len(lists.entries(item, kind)), kept)


@settings(max_examples=80, deadline=None)
@given(
    offsets=st.lists(
        st.tuples(st.integers(0, 3), st.one_of(st.integers(0, 50), st.integers(0, 3 * WINDOW))), max_size=60
    ),
    reload_at=st.integers(0, 60),
)
def test_seen_is_a_set_with_a_floor(offsets: list[tuple[int, int]], reload_at: int) -> None:
    seen, known, ends = Seen(), set[tuple[int, int]](), dict[int, int]()
    for at, (partition, offset) in enumerate(offsets):
        if at == reload_at:
            exported, seen = seen.export(), Seen()
            seen.load(exported)
        below = offset < ends.get(partition, 0) - WINDOW
        new = seen.mark(np.array([partition]), np.array([offset])).tolist() == [True]
        assert new == (not below and (partition, offset) not in known)
        known.add((partition, offset))
        ends[partition] = max(ends.get(partition, 0), offset + 1)
