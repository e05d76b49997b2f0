"""The learner: slicing, skipping, flushing, deletion, and following what was published."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.learning import Changed, Learned, Learner, Tombstone
from pipeline.lessons import Lessons
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.types import RING, ItemLists, ItemVectors, Parameters, Rings, hash_id

K = 8
START = 1_700_000_000_000
EVERYTHING = 1 << 40  # a budget

Deed = tuple[int, str]  # user, item id


def learner(negatives: int = 20) -> Learner:
    return Learner(Model(ItemRows(16), K), seed=1, negatives=negatives)


def lessons(deeds: Sequence[Deed], first: int = 0) -> Lessons:
    """Deeds at offsets first, first + 1, ... of partition 0, all histories complete."""
    m = len(deeds)
    rings = Rings(
        np.zeros((m, RING), np.uint64), np.zeros((m, RING), np.uint32), np.zeros((m, RING), np.uint8),
        np.zeros(m, np.int64),
    )  # fmt: skip
    before, consumed, start = np.zeros(m, np.int64), [], [0]
    past: dict[int, list[int]] = {}
    for at, (user, item) in enumerate(deeds):
        history = past.setdefault(user, [])
        ring = history[-RING:][::-1]
        rings.items[at, : len(ring)], rings.length[at], before[at] = ring, len(ring), len(history)
        consumed += [one & 0xFFFFFFFF for one in history]
        start.append(len(consumed))
        history.append(hash_id(item))
    none = np.empty(0, np.int64)
    return Lessons(
        partition=np.zeros(m, np.int64), offset=np.arange(first, first + m),
        item=np.array([hash_id(item) for _, item in deeds], np.uint64), item_ids=[item for _, item in deeds],
        weight=np.ones(m, np.float32), time=START + np.arange(m) * 1000, rings=rings, before=before,
        owner=np.arange(m), consumed_start=np.array(start), consumed=np.array(consumed, np.uint32),
        idle_partition=none, idle_offset=none,
    )  # fmt: skip


def part(whole: Lessons, begin: int, end: int) -> Lessons:
    """Lessons begin..end of `whole`, as a slice of a backlog would be."""
    cut = slice(begin, end)
    ring = whole.rings
    return Lessons(
        partition=whole.partition[cut], offset=whole.offset[cut], item=whole.item[cut], item_ids=whole.item_ids[cut],
        weight=whole.weight[cut], time=whole.time[cut],
        rings=Rings(ring.items[cut], ring.times[cut], ring.actions[cut], ring.length[cut]), before=whole.before[cut],
        owner=whole.owner[cut], consumed_start=whole.consumed_start, consumed=whole.consumed,
        idle_partition=whole.idle_partition, idle_offset=whole.idle_offset,
    )  # fmt: skip


def deeds(seed: int, n: int, items: int = 60, users: int = 10) -> list[Deed]:
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(users)), f"i{int(rng.integers(items) * rng.random())}") for _ in range(n)]


def published(records: Iterable[Changed]) -> dict[str, Changed]:
    """Records of items by key."""
    kinds = {ItemVectors: "v", ItemLists: "l", Tombstone: "t"}
    items = [record for record in records if not isinstance(record, Parameters)]
    return {f"{kinds[type(record)]}:{record.item_id}": record for record in items}


def parameters(records: Iterable[Changed]) -> dict[str, Parameters]:
    """Records of parts by name."""
    return {record.name: record for record in records if isinstance(record, Parameters)}


def nudge(school: Learner, by: float) -> None:
    """Something else than learning changes the parameters of the sequence model."""
    part = school.model.parts["sequence"]
    part.put_parameters({name: array + np.float32(by) for name, array in part.export_parameters().items()})


def same(one: Changed, other: Changed) -> bool:
    def flat(record: Changed) -> list[object]:
        if isinstance(record, Parameters):
            return [record.name, *record.arrays, *record.arrays.values()]
        values = [getattr(record, name) for name in record.__slots__]
        return [part for value in values for part in (value if isinstance(value, tuple) else (value,))]

    return all(np.array_equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))  # type: ignore[arg-type]


def test_slices_make_the_same_model() -> None:
    whole = lessons(deeds(0, 300))
    together = learner()
    together.learn(whole)
    want = published(together.sweep())
    for size in (1, 7, 100):
        sliced = learner()
        for begin in range(0, 300, size):
            sliced.learn(part(whole, begin, begin + size))
        got = published(sliced.sweep())
        assert got.keys() == want.keys()
        assert all(same(got[key], want[key]) for key in want)


def test_a_lesson_is_learned_once() -> None:
    school, whole = learner(), lessons(deeds(1, 50))
    counts = school.learn(part(whole, 0, 30))
    assert (counts.learned, counts.seen, counts.deleted) == (30, 0, 0)
    counts = school.learn(whole)
    assert (counts.learned, counts.seen, counts.deleted) == (20, 30, 0)
    once = learner()
    once.learn(whole)
    assert all(map(same, school.sweep(), once.sweep()))


def test_another_place_in_the_log_draws_other_negatives() -> None:
    here, there = learner(5), learner(5)
    here.learn(lessons(deeds(2, 100)))
    there.learn(lessons(deeds(2, 100), first=1000))
    assert not all(map(same, here.sweep(), there.sweep()))


def test_histories_of_items_that_nobody_knows_are_skipped() -> None:
    school = learner()
    whole = lessons([(0, "a"), (0, "b"), (0, "c")])
    counts = school.learn(part(whole, 1, 3))  # "a" was never a lesson
    assert counts.learned == 2
    assert set(published(school.sweep())) == {"v:b", "v:c", "l:b", "l:c"}
    assert len(school.model.rows) == 2


def test_an_item_counts_from_its_own_lesson_on_however_lessons_are_sliced() -> None:
    """Histories name items that are learned of later only, as after a loss: what comes first must not know them."""
    whole = lessons(list(enumerate(["known", "known", "known", "b", "a", "c", "b", "d"])))
    for at, history in ((3, ["c", "known"]), (4, ["c"]), (5, ["b", "d"]), (7, ["c", "b", "never"])):
        whole.rings.length[at] = len(history)
        whole.rings.items[at, : len(history)] = [hash_id(item) for item in history]
    together, one_by_one = learner(), learner()
    together.learn(part(whole, 0, 1))
    together.learn(part(whole, 1, 8))
    for at in range(8):
        one_by_one.learn(part(whole, at, at + 1))
    got, want = published(together.sweep()), published(one_by_one.sweep())
    assert got.keys() == want.keys()
    assert all(same(got[key], want[key]) for key in want)
    (c,) = (record for record in want.values() if isinstance(record, ItemLists) and record.item_id == "c")
    assert c.hashes[0].tolist() == [hash_id("d")]


def test_what_teaches_nothing_is_seen_too() -> None:
    school, whole = learner(), lessons([(0, "a"), (0, "b"), (0, "c")])
    idle = dataclasses.replace(
        part(whole, 0, 1), idle_partition=np.zeros(1, np.int64), idle_offset=np.ones(1, np.int64)
    )
    assert school.learn(idle).learned == 1
    assert school.learn(whole) == Learned(learned=1, seen=2, deleted=0)
    assert len(school.seen.export()[0]) == 16  # no holes


def test_a_flush_keeps_its_budget_and_all_comes_in_the_end() -> None:
    school = learner()
    school.learn(lessons(deeds(3, 2000, items=300)))
    met: dict[str, Changed] = {}
    for _ in range(200):
        records = list(school.flush(20_000))
        assert sum(size(record) for record in records) <= 20_000 + 6000
        assert not met.keys() & published(records).keys()  # nothing changed meanwhile: each comes once
        met |= published(records)
    assert list(school.sweep()) == []
    again = learner()
    again.learn(lessons(deeds(3, 2000, items=300)))
    want = published(again.sweep())
    assert met.keys() == want.keys()
    assert all(same(met[key], want[key]) for key in want)


def size(record: Changed) -> int:
    if isinstance(record, Parameters):
        return sum(array.nbytes for array in record.arrays.values())
    if isinstance(record, ItemLists):
        return 12 * sum(map(len, record.hashes))
    return 8 * K + 60


def test_all_is_published_while_learning_goes_on() -> None:
    school = learner()
    whole = lessons(deeds(4, 3000, items=200))
    met: set[str] = set()
    for begin in range(0, 3000, 50):
        school.learn(part(whole, begin, begin + 50))
        met |= published(school.flush(8000)).keys()
    known = {school.model.rows.ids[row] for row in school.model.sequence.pool.tolist()}
    assert {key[2:] for key in met if key.startswith("v:")} >= known - {item for _, item in deeds(4, 3000, 200)[-200:]}


def test_what_is_learned_during_a_flush_is_not_lost() -> None:
    school, whole = learner(), lessons(deeds(5, 200))
    school.learn(part(whole, 0, 100))
    pausing = school.flush(EVERYTHING)
    met = published([next(pausing)])
    school.learn(part(whole, 100, 200))
    met |= published(pausing)
    met |= published(school.sweep())
    once = learner()
    once.learn(whole)
    want = published(once.sweep())
    assert met.keys() == want.keys()
    assert all(same(met[key], want[key]) for key in want)


def test_a_follower_goes_on_where_the_writer_was() -> None:
    writer, whole = learner(), lessons(deeds(6, 200))
    writer.learn(part(whole, 0, 150))
    heir = learner()
    for record in writer.sweep():
        assert not isinstance(record, Tombstone)
        heir.follow(record)
    heir.seen.load(writer.seen.export())
    assert list(heir.sweep()) == []
    assert heir.learn(whole).seen == 150
    assert set(published(heir.sweep())) >= {f"v:{item}" for _, item in deeds(6, 200)[150:]}


def test_a_deleted_item_is_dropped_and_not_learned_again() -> None:
    school, whole = learner(), lessons([(0, "a"), (0, "b"), (1, "a"), (1, "b"), (0, "a"), (2, "b")])
    school.learn(part(whole, 0, 2))
    list(school.sweep())
    school.delete(hash_id("a"))
    school.delete(hash_id("never met"))
    assert list(school.flush(0)) == [Tombstone("a")]
    counts = school.learn(part(whole, 2, 6))
    assert (counts.learned, counts.deleted) == (2, 2)
    assert "v:a" not in published(school.sweep())
    assert school.knows(hash_id("b"))
    assert not school.knows(hash_id("a"))
    school.restore(hash_id("a"))
    school.learn(lessons([(0, "a")], first=100))
    assert "v:a" in published(school.sweep())


def test_a_row_that_is_dropped_during_a_flush_is_not_published() -> None:
    school = learner()
    school.learn(lessons([(0, "a"), (0, "b")]))
    pausing = school.flush(EVERYTHING)
    ((first, _),) = (key.split(":")[::-1] for key in published([next(pausing)]))
    other = "b" if first == "a" else "a"
    school.delete(hash_id(other))
    assert not {f"v:{other}", f"l:{other}"} & published(pausing).keys()
    assert Tombstone(other) in list(school.flush(0))


def test_records_of_deleted_items_become_tombstones() -> None:
    writer, heir = learner(), learner()
    writer.learn(lessons([(0, "a"), (0, "b")]))
    heir.delete(hash_id("a"))
    for record in writer.sweep():
        assert not isinstance(record, Tombstone)
        heir.follow(record)
    assert not heir.knows(hash_id("a"))
    assert published(heir.sweep()).keys() == {"t:a"}


def test_publish_again() -> None:
    school = learner()
    school.learn(lessons([(0, "a"), (0, "b"), (0, "c")]))
    list(school.sweep())
    school.publish_again("b")
    school.publish_again("x")
    records = published(school.sweep())
    assert records.keys() == {"t:x", "v:b", "l:b"}
    assert list(school.sweep()) == []


def test_rows_that_are_not_finite_begin_anew_before_they_are_published() -> None:
    school = learner()
    school.learn(lessons(deeds(7, 100)))
    row = int(school.model.sequence.pool[3])
    school.model.sequence.e_out[row] = np.nan
    for record in school.sweep():
        assert not isinstance(record, ItemVectors) or np.isfinite(record.e_out).all()
    assert school.reset == 1


def test_parameters_are_published_when_they_changed_and_can_be_followed() -> None:
    school, heir = learner(), learner()
    nudge(school, 0.25)
    assert parameters(school.flush(0)) == {}
    (record,) = parameters(school.flush(EVERYTHING)).values()
    assert parameters(school.sweep()) == {}
    heir.follow(record)
    assert same(heir.model.parameters("sequence"), school.model.parameters("sequence"))
    assert parameters(heir.sweep()) == {}
    heir.publish_parameters_again("sequence")
    assert all(map(same, heir.sweep(), [record]))


def test_parameters_cost_of_the_budget() -> None:
    school, frugal = learner(), learner()
    for each in (school, frugal):
        each.learn(lessons(deeds(3, 2000, items=300)))
        list(each.sweep())
        each.learn(lessons(deeds(8, 2000, items=300), first=2000))
    nudge(school, 0.25)
    mine, theirs = list(school.flush(20_000)), list(frugal.flush(20_000))
    assert sum(map(size, mine)) <= 20_000 + 6000
    assert "sequence" in parameters(mine)
    assert len(published(mine)) <= len(published(theirs))


def test_parameters_that_are_not_finite_are_mended_before_they_are_published() -> None:
    school = learner()
    before = school.model.parameters("sequence")
    school.model.sequence.context[3] = np.nan
    assert parameters(school.sweep()) == {}
    assert school.reset == 1
    assert same(school.model.parameters("sequence"), before)


def test_nothing_to_learn() -> None:
    school = learner()
    assert school.learn(lessons([])).learned == 0
    assert list(school.flush(1000)) == list(school.sweep()) == []
