"""Co-visitation: learning and evidence against a plain twin, the bounds of the lists, forward decay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.model.changes import Changes
from pipeline.model.covisitation import F1, HALF_LIFE_MS, KEPT, ROOM, A, B, Covisitation, F
from pipeline.model.rows import ItemRows
from pipeline.types import F64, RING, Rows
from tests.twins import CovisitationTwin

KINDS = (A, B, F, F1)
DAY = 86_400_000
START = 1_700_000_000_000

Event = tuple[int, Sequence[int], int, float]  # target, history, time, weight


class Lists:
    """Lists and their twin, fed with the same events."""

    def __init__(self) -> None:
        self.rows = ItemRows(16)
        self.model, self.twin = Covisitation(self.rows), CovisitationTwin()
        self.changes = Changes(self.rows)

    def learn(self, *events: Event) -> None:
        targets = self.rows.rows(np.array([target for target, _, _, _ in events], np.uint64))
        rings = self.rings([history for _, history, _, _ in events])
        times = np.array([time for _, _, time, _ in events], np.int64)
        weights = np.array([weight for _, _, _, weight in events], np.float32)
        self.model.learn(targets, rings, times, weights, self.changes)
        for target, history, time, weight in events:
            self.twin.learn(target, history, time, weight)

    def rings(self, histories: Sequence[Sequence[int]]) -> Rows:
        rings = np.full((len(histories), RING), -1, np.int64)
        for at, history in enumerate(histories):
            rings[at, : len(history)] = self.rows.rows(np.array(history, np.uint64))
        return rings

    def entries(self, item: int, kind: int) -> dict[int, float]:
        keys, weights = self.model.lists(self.rows.row(item), kind)
        return dict(zip(self.rows.hashes[keys].tolist(), weights.tolist(), strict=True))

    def compare(self) -> None:
        for item in self.rows.hashes[: len(self.rows)].tolist():
            for kind in KINDS:
                want = self.twin.lists.get((item, kind), {})
                got = self.entries(item, kind)
                assert list(got) == list(want)
                np.testing.assert_allclose(list(got.values()), [float(weight) for weight in want.values()], rtol=1e-6)

    def evidence(self, histories: Sequence[Sequence[int]], now: int, count: F64 | None = None) -> list[dict[int, F64]]:
        count = np.ones(self.rows.capacity) if count is None else count
        rings = self.rings(histories)
        found = self.model.evidence(rings, np.full(len(histories), now), count)
        columns = np.array((found.cov, found.bwd, found.forward, found.last), np.float64)
        parts = [slice(a, b) for a, b in zip(found.start[:-1], found.start[1:], strict=True)]
        return [dict(zip(self.rows.hashes[found.rows[p]].tolist(), columns[:, p].T, strict=True)) for p in parts]


def stream(seed: int, events: int, items: int) -> list[Event]:
    """Events whose targets are mostly new to their histories, so that lists overflow."""
    rng = np.random.default_rng(seed)
    return [
        (
            int(rng.integers(1, items)),
            rng.integers(1, 40, rng.integers(0, RING + 1)).tolist(),
            START + int(at * 60_000 - rng.integers(0, 3_600_000)),
            float(rng.choice([0.3, 1, 2, 4])),
        )
        for at in range(events)
    ]


def test_random_streams_like_the_twin_through_many_prunings() -> None:
    lists = Lists()
    events = stream(1, 2000, 600)
    for at in range(0, len(events), 170):
        lists.learn(*events[at : at + 170])
    lists.compare()
    assert max(len(lists.entries(item, A)) for item in range(1, 40)) > KEPT[A]


@pytest.mark.parametrize(
    "events",
    [
        [(5, [], START, 1.0)],
        [(5, [5], START, 1.0)],
        [(5, [5] * RING, START, 1.0)],
        [(5, [6, 5, 6, 7, 6], START, 0.3), (6, [5, 6], START - DAY, 4.0)],
        [(5, [6], START, 1e-40)],
        [(5, [6], 0, 1.0), (5, [6], 1, 1.0)],
    ],
    ids=["empty ring", "itself", "nothing but itself", "repeats and a late event", "a vanishing weight", "time zero"],
)
def test_adversarial_input_like_the_twin(events: list[Event]) -> None:
    lists = Lists()
    lists.learn(*events)
    if events[0][3] < 1e-30:
        lists.twin.lists.clear()
    lists.compare()


def test_own_pairs_are_forward_never_backward() -> None:
    lists = Lists()
    lists.learn((5, [5, 6], START, 1.0))
    assert lists.entries(5, A) == {5: 1.0}
    assert lists.entries(5, B) == {6: pytest.approx(0.9)}
    assert lists.entries(6, A) == {5: pytest.approx(0.9)}
    assert lists.entries(5, F) == {5: 1.0}
    assert lists.entries(5, F1) == {5: 1.0}
    assert lists.entries(6, F1) == {}


def test_short_ends_after_five_steps() -> None:
    lists = Lists()
    lists.learn((9, [1, 2, 3, 4, 5, 6], START, 2.0))
    assert [lists.entries(item, F).get(9, 0.0) for item in range(1, 7)] == pytest.approx(
        [2.0, 1.2, 0.72, 0.432, 0.2592, 0.0], rel=1e-6
    )


def test_a_new_pair_has_its_chance_against_a_full_list() -> None:
    lists = Lists()
    lists.learn(*((item, [1], START, 3.0) for item in range(100, 100 + ROOM[A] - 1)))
    assert len(lists.entries(1, A)) == ROOM[A] - 1
    rising = 7_000
    for _ in range(4):  # alone each is lighter than all that is there
        lists.learn((rising, [1], START, 1.0))
    lists.learn(*((item, [1], START, 0.5) for item in range(2000, 2000 + ROOM[A])))
    assert lists.entries(1, A)[rising] == 4.0
    assert len(lists.entries(1, A)) < ROOM[A]


def test_what_is_older_weighs_less() -> None:
    lists = Lists()
    lists.learn((5, [1], START, 1.0), (6, [1], START + HALF_LIFE_MS, 1.0))
    found = lists.evidence([[1]], START + HALF_LIFE_MS)[0]
    assert found[6][0] == pytest.approx(1.0)
    assert found[5][0] == pytest.approx(0.5)
    later = lists.evidence([[1]], START + 3 * HALF_LIFE_MS)[0]
    assert later[6][0] == pytest.approx(0.25)
    assert later[6][3] == found[6][3] == pytest.approx(2 / 3)  # a share does not fade


def test_years_move_the_reference_and_change_nothing_else() -> None:
    lists = Lists()
    lists.learn((5, [1], START, 1.0))
    lists.learn((6, [1], START + 20 * HALF_LIFE_MS, 1.0))
    before = lists.evidence([[1]], START + 21 * HALF_LIFE_MS)[0]
    lists.learn((7, [2], START + 40 * HALF_LIFE_MS, 1.0))
    assert lists.model.reference == START + 40 * HALF_LIFE_MS
    after = lists.evidence([[1]], START + 41 * HALF_LIFE_MS)[0]
    for item in (5, 6):
        assert after[item][0] * 2**20 == pytest.approx(before[item][0], rel=1e-4)
    lists.model.learn(
        np.array([lists.rows.row(8)]), lists.rings([[1]]), np.array([START + 400 * HALF_LIFE_MS]),
        np.ones(1, np.float32), lists.changes,
    )  # fmt: skip
    assert np.isfinite(lists.evidence([[1]], START + 400 * HALF_LIFE_MS)[0][8]).all()


def test_evidence_like_the_twin() -> None:
    lists = Lists()
    lists.learn(*stream(2, 1500, 300))
    rng = np.random.default_rng(2)
    count = rng.integers(0, 50, lists.rows.capacity).astype(np.float64)
    names = {item: count[lists.rows.row(item)] for item in lists.rows.hashes[: len(lists.rows)].tolist()}
    histories = [rng.integers(1, 60, n).tolist() for n in (0, 1, 2, 7, RING, RING)] + [[1] * RING, []]
    now = START + 5 * DAY
    got = lists.evidence(histories, now, count)
    for history, found in zip(histories, got, strict=True):
        want = lists.twin.evidence(history, now, {int(item): value for item, value in names.items()})
        assert set(found) == set(want)
        for item, columns in want.items():
            np.testing.assert_allclose(found[item], columns, rtol=1e-4, atol=1e-7)


def test_evidence_of_a_chunk_is_that_of_its_queries() -> None:
    lists = Lists()
    lists.learn(*stream(3, 800, 200))
    histories = [np.random.default_rng(at).integers(1, 60, at % RING).tolist() for at in range(20)]
    together = lists.evidence(histories, START)
    for history, want in zip(histories, together, strict=True):
        alone = lists.evidence([history], START)[0]
        assert alone.keys() == want.keys()
        for item in want:
            np.testing.assert_array_equal(alone[item], want[item])


def test_more_entries_than_expected() -> None:
    lists = Lists()
    lists.learn(*stream(4, 800, 300))
    lists.model._entries = 1
    histories = [np.random.default_rng(at).integers(1, 40, RING).tolist() for at in range(200)]
    assert all(len(found) > 100 for found in lists.evidence(histories, START))
    assert lists.model._entries > 1


def test_of_finds_candidates_and_gives_0_to_others() -> None:
    lists = Lists()
    lists.learn(*stream(5, 500, 100))
    rings = lists.rings([[1, 2, 3], [], [4, 5]])
    found = lists.model.evidence(rings, np.full(3, START), np.ones(lists.rows.capacity))
    everything = np.arange(len(lists.rows))
    owner, rows = np.repeat([0, 1, 2], len(everything)), np.tile(everything, 3)
    got = lists.model.of(found, owner, rows).reshape(4, 3, -1)
    want = np.zeros_like(got)
    for query in range(3):
        part = slice(found.start[query], found.start[query + 1])
        columns = (found.cov[part], found.bwd[part], found.forward[part], found.last[part])
        for column, values in enumerate(columns):
            want[column, query, found.rows[part]] = values
    np.testing.assert_array_equal(got, want)
    assert not got[:, 1].any()
    assert got[0, 0].any()
    assert lists.model.of(found, owner[:0], rows[:0]).shape == (4, 0)


def test_nothing_learned_no_evidence() -> None:
    lists = Lists()
    assert lists.evidence([[], [1, 2]], START) == [{}, {}]
    assert lists.evidence([], START) == []


def test_export_is_heaviest_first_and_put_reads_it() -> None:
    lists = Lists()
    lists.learn(*stream(6, 1500, 600))
    there = Lists()
    there.model.put(there.rows.row(999), lists.model.export(lists.rows.row(2), "two"))  # its reference comes first
    for item in range(1, 40):
        record = lists.model.export(lists.rows.row(item), f"i{item}")
        assert [len(keys) <= kept for keys, kept in zip(record.hashes, KEPT, strict=True)] == [True] * 4
        assert all((np.diff(weights) <= 0).all() for weights in record.weights)
        there.model.put(there.rows.row(item), record)
        whole = lists.entries(item, A)
        heaviest = sorted(whole.values(), reverse=True)[: KEPT[A]]
        assert sorted(there.entries(item, A).values(), reverse=True) == pytest.approx(heaviest)
    assert there.rows.ids[there.rows.row(500)] == ""  # met in a list only


def test_lists_from_outside_go_on_learning() -> None:
    lists = Lists()
    lists.learn(*stream(7, 300, 150))
    there = Lists()
    there.twin = lists.twin
    for item in lists.rows.hashes[: len(lists.rows)].tolist():
        there.model.put(there.rows.row(item), lists.model.export(lists.rows.row(item), f"i{item}"))
    more = stream(8, 100, 150)
    there.learn(*more)
    for item in range(1, 40):
        want = {key: float(weight) for key, weight in lists.twin.lists.get((item, F1), {}).items()}
        assert there.entries(item, F1) == pytest.approx(want, rel=1e-5)


def test_lists_that_are_replaced_go_on_learning() -> None:
    lists, there = Lists(), Lists()
    lists.learn(*stream(10, 300, 150))
    there.learn(*stream(11, 300, 150))
    there.twin = lists.twin
    for item in range(1, 40):
        there.model.put(there.rows.row(item), lists.model.export(lists.rows.row(item), f"i{item}"))
    there.learn(*((item, [1, 2], START, 1.0) for item in range(1, 100)))
    for item in (1, 2):
        keys, _ = there.model.lists(there.rows.row(item), F)
        assert len(set(keys.tolist())) == len(keys)
    want = {key: float(weight) for key, weight in lists.twin.lists[1, F1].items()}
    assert there.entries(1, F1) == pytest.approx(want, rel=1e-3)  # the references differ by minutes


def test_another_reference_is_the_same_weight() -> None:
    lists, there = Lists(), Lists()
    there.learn((1, [2], START + 10 * HALF_LIFE_MS, 1.0))
    lists.learn((5, [1], START, 1.0))
    there.model.put(there.rows.row(1), lists.model.export(lists.rows.row(1), "one"))
    now = START + HALF_LIFE_MS * 11
    assert there.evidence([[1]], now)[0][5][0] == pytest.approx(lists.evidence([[1]], now)[0][5][0], rel=1e-5)


def test_clear() -> None:
    lists = Lists()
    lists.learn((5, [1], START, 1.0), (1, [5], START, 1.0))
    lists.model.clear(lists.rows.row(1))
    assert lists.entries(1, A) == lists.entries(1, B) == {}
    lists.learn((6, [1], START, 1.0))
    assert lists.entries(1, A) == {6: 1.0}


def test_what_moved_is_measured_and_only_that() -> None:
    lists = Lists()
    lists.rows.rows(np.arange(1, 10, dtype=np.uint64))
    lists.learn((5, [1, 2], START, 2.0))
    moved = {item: float(lists.changes.moved[lists.rows.row(item)]) for item in range(1, 10)}
    assert moved == pytest.approx({**dict.fromkeys(range(1, 10), 0.0), 1: 2.0, 2: 1.8, 5: 3.8})


def test_sizes_are_about_what_a_record_takes() -> None:
    lists = Lists()
    lists.learn(*stream(9, 600, 400))
    row = lists.rows.row(1)
    record = lists.model.export(row, "one")
    entries = sum(map(len, record.hashes))
    assert lists.model.sizes(np.array([row])).tolist() == [12 * entries + 128]
