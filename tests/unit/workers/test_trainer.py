"""The trainer without a broker: states in, model records out; following, taking the pen, losing it, going on."""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from pipeline.recipe import ENCODING
from pipeline.state import Users, advance, stamp
from pipeline.types import Events, Parameters, hash_id
from tests.records import NOW, Consumed
from workers.items import ItemReplica
from workers.lessons import action_weights, told_by
from workers.settings import Action, Settings
from workers.settings import Model as ModelSettings
from workers.trainer import Deposed, TrainerCore
from workers.wire.catalog import CatalogItem, Gravestone, encode_catalog
from workers.wire.model import (
    CHECKPOINT,
    WRITER,
    CheckpointRecord,
    ListsRecord,
    VectorsRecord,
    WriterRecord,
    encode_checkpoint,
    encode_parameters,
    encode_writer,
    read_model,
    vectors_key,
)
from workers.wire.output import Output
from workers.wire.rules import Rules
from workers.wire.state import Fresh, StateRecord, encode_state, pack_ring

K = 8
SETTINGS = Settings(prefix="shop", model=ModelSettings(dimension=K, negatives=10))
RULES = Rules.of(SETTINGS)


class Log:
    """A topic of one partition, in memory."""

    def __init__(self) -> None:
        self.records: list[Consumed] = []

    def append(self, outputs: Iterable[Output]) -> list[Consumed]:
        """The records that `outputs` become."""
        first = len(self.records)
        for at, output in enumerate(outputs, first):
            assert (output.topic, output.partition) == ("shop.model.v1", 0)
            self.records.append(Consumed(output.key, output.value, [], output.topic, 0, at))
        return self.records[first:]

    def keys(self) -> set[bytes | None]:
        return {record.key for record in self.records}


class People:
    """Users who do things; each call is one batch, announced on `states`."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.offset = 0  # in events and, for simplicity, in states
        self.records: list[Consumed] = []

    def do(self, user: str, *deeds: tuple[str, str]) -> Consumed:
        """Deeds (action, item id) of a user, as one record of `states`."""
        n, first = len(deeds), self.offset
        meanings = [RULES.meaning(action, None) for action, _ in deeds]
        events = Events(
            user=np.zeros(n, np.int64), offset=np.arange(first, first + n), time=NOW + np.arange(first, first + n),
            item=np.array([hash_id(item) for _, item in deeds], np.uint64), id=np.zeros(n, np.uint64),
            action=np.array([meaning.code for meaning in meanings], np.uint8),
            effect=np.array([meaning.effect for meaning in meanings], np.uint8), attributes=[],
        )  # fmt: skip
        after = advance(Users([self.blobs.get(user, b"")], np.array([-1]), np.array([0])), events, K)
        (blob,) = stamp(after, np.zeros((1, K), np.float32), 0, 0)
        evicted = pack_ring(after.evicted_items, after.evicted_times, after.evicted_actions)
        fresh = [Fresh(first + at, NOW + first + at, 0, data(user, *deed)) for at, deed in enumerate(deeds)]
        value = encode_state(StateRecord(blob, evicted, fresh, refresh=True, cause=None))
        self.blobs[user], self.offset = blob, first + n
        self.records.append(Consumed(user.encode(), value, [], "shop.states.v1", 2, first + n - 1))
        return self.records[-1]

    def browse(self, seed: int, n: int, items: int = 30) -> list[Consumed]:
        rng = np.random.default_rng(seed)
        return [self.do(f"u{rng.integers(6)}", ("click", f"i{rng.integers(items)}")) for _ in range(n)]


def data(user: str, action: str, item: str) -> bytes:
    return b'{"user_id":"%s","item_id":"%s","action":"%s"}' % (user.encode(), item.encode(), action.encode())


def core() -> TrainerCore:
    return TrainerCore(SETTINGS, RULES)


def writing(log: Log, owner: str = "me") -> TrainerCore:
    """A trainer that has followed `log` and holds the pen."""
    trainer = core()
    trainer.on_model(log.records)
    trainer.on_model(log.append([trainer.begin_writing(owner, NOW)]))
    assert trainer.writing
    return trainer


def test_what_is_learned_is_published_and_can_be_followed() -> None:
    log, people = Log(), People()
    trainer = writing(log)
    trainer.on_states(people.browse(0, 100))
    log.append(trainer.checkpoint())
    assert log.records[-1].key == CHECKPOINT
    heir = core()
    heir.on_model(log.records)
    assert heir.model.epoch == trainer.model.epoch == 1
    assert heir.model.version == trainer.model.version
    assert heir.positions == trainer.positions == {2: 100}
    for row in trainer.model.sequence.pool.tolist():
        item = trainer.model.rows.ids[row]
        mine, theirs = trainer.model.vectors(row), heir.model.vectors(heir.model.rows.row(hash_id(item)))
        for name in mine.__slots__:
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    heir.on_states(people.records)
    assert heir.counts["learned_before"] == 100
    assert heir.counts["learned"] == 0


def test_flushes_are_stamped_and_versions_never_restart() -> None:
    log, people = Log(), People()
    trainer = writing(log)
    for at in range(3):
        trainer.on_states(people.browse(at, 5))
        stamps = {(one.epoch, one.version) for one in read(log.append(trainer.flush()))}
        assert stamps == {(1, at + 1)}
    after = writing(log, "next")
    after.on_states(people.browse(9, 5))
    assert {(one.epoch, one.version) for one in read(log.append(after.flush()))} == {(2, 4)}


def read(records: Iterable[Consumed]) -> list[VectorsRecord | ListsRecord]:
    found = [read_model(record.key or b"", record.value) for record in records if record.value is not None]
    return [one for one in found if isinstance(one, VectorsRecord | ListsRecord)]


def test_a_flush_keeps_to_the_budget() -> None:
    log, people = Log(), People()
    settings = Settings(prefix="shop", model=ModelSettings(dimension=K, negatives=10, flush_bytes=4000))
    trainer = TrainerCore(settings, RULES)
    trainer.on_model(log.append([trainer.begin_writing("me", NOW)]))
    trainer.on_states(people.browse(0, 200))
    sizes = [sum(len(output.value or b"") for output in trainer.flush()) for _ in range(60)]
    assert max(sizes) < 6500
    assert sizes[0] > 2000
    assert sizes[-1] == 0


def test_a_restart_learns_again_what_came_after_the_checkpoint() -> None:
    log, people = Log(), People()
    trainer = writing(log)
    trainer.on_states(people.browse(0, 60))
    log.append(trainer.checkpoint())
    trainer.on_states(people.browse(1, 40))
    log.append(list(trainer.flush())[:7])  # killed in the middle of a flush
    heir = writing(log, "heir")
    assert heir.positions == {2: 60}
    heir.on_states(people.records[50:])
    assert (heir.counts["learned"], heir.counts["learned_before"]) == (40, 10)


def test_what_happens_during_a_checkpoint_comes_after_it() -> None:
    log, people = Log(), People()
    trainer = writing(log)
    trainer.on_states(people.browse(0, 20))
    pausing = trainer.checkpoint()
    log.append([next(pausing)])
    trainer.on_states(people.browse(1, 20))
    log.append(pausing)
    heir = core()
    heir.on_model(log.records)
    assert heir.positions == {2: 20}
    heir.on_states(people.records)
    assert (heir.counts["learned"], heir.counts["learned_before"]) == (20, 20)


def test_impressions_hides_and_unknown_actions_teach_nothing_but_are_seen() -> None:
    people, trainer = People(), core()
    trainer.on_states([people.do("u", ("click", "a"), ("hide", "b"), ("waved", "c"), ("view", "d"))])
    assert trainer.counts["learned"] == 2
    known = {trainer.model.rows.ids[row] for row in trainer.model.sequence.pool}
    assert known == {"a", "d"}
    weights = action_weights(SETTINGS)
    assert trainer.model.trends.count[trainer.model.rows.row(hash_id("d"))] == pytest.approx(weights[2])


def test_weights_are_those_of_the_deployment() -> None:
    settings = Settings(actions={"rave": Action(code=40, weight=7.0)})
    weights = action_weights(settings)
    assert weights.shape == (256,)
    assert (weights[40], weights[6], weights[7], weights[0], weights[255]) == (7.0, 4.0, -1.0, 0.0, 0.0)


def test_a_history_beyond_the_ring_is_told() -> None:
    people, counts = People(), Counter[str]()
    people.do("u", *(("click", f"a{at}") for at in range(30)))
    record = people.do("u", *(("click", f"b{at}") for at in range(40)))
    told = told_by([record], RULES, counts)
    assert len(told.evicted_items) == 40
    assert told.item_ids[:2] == ["b0", "b1"]
    assert not counts


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", b"\x90", encode_state(StateRecord(b"\x02" * 40, b"", [], refresh=True, cause=None)),
              encode_state(StateRecord(b"", b"123", [], refresh=True, cause=None))],
    ids=["empty", "no MessagePack", "too few fields", "no blob", "no ring entries"],
)  # fmt: skip
def test_garbage_is_counted_and_its_neighbours_are_learned(value: bytes) -> None:
    people, trainer = People(), core()
    good = people.browse(0, 4)
    bad = dataclasses.replace(good[1], value=value)
    trainer.on_states([good[0], bad, good[2], good[3]])
    assert (trainer.counts["learned"], trainer.counts["unreadable"]) == (3, 1)
    assert trainer.positions == {2: 4}


def test_an_event_that_cannot_be_read_teaches_nothing() -> None:
    people, trainer = People(), core()
    record = people.do("u", ("click", "a"))
    state = StateRecord(people.blobs["u"], b"", [Fresh(0, NOW, 0, b"{")], refresh=True, cause=None)
    trainer.on_states([dataclasses.replace(record, value=encode_state(state))])
    assert (trainer.counts["unreadable_events"], trainer.counts["learned"]) == (1, 0)


def test_forgotten_users_teach_nothing() -> None:
    people, trainer = People(), core()
    trainer.on_states([dataclasses.replace(people.do("u", ("click", "a")), value=None)])
    assert (trainer.counts["forgotten"], trainer.counts["learned"]) == (1, 0)
    assert trainer.positions == {2: 1}


# -------------------------------------------------------------------- parameters of parts
def nudged(trainer: TrainerCore, by: float) -> TrainerCore:
    """Something else than learning changed the parameters of the sequence model."""
    part = trainer.model.parts["sequence"]
    part.put_parameters({name: array + np.float32(by) for name, array in part.export_parameters().items()})
    return trainer


def arrays(trainer: TrainerCore) -> dict[str, list[float]]:
    return {name: array.tolist() for name, array in trainer.model.parts["sequence"].export_parameters().items()}


def test_parameters_are_published_and_followed_by_trainers_and_replicas() -> None:
    log, fresh = Log(), core()
    trainer = nudged(writing(log), 0.5)
    log.append(trainer.flush())
    assert [record.key for record in log.append(trainer.checkpoint())] == [CHECKPOINT]
    assert log.records[-2].key == b"#sequence"
    heir, replica = core(), ItemReplica(SETTINGS, catalog=False)
    heir.on_model(log.records)
    replica.on_model(log.records)
    assert arrays(heir) == arrays(trainer) != arrays(fresh)
    np.testing.assert_equal(replica.model.parameters("sequence").arrays, trainer.model.parameters("sequence").arrays)
    heir.on_model(log.append([heir.begin_writing("heir", NOW)]))
    assert list(heir.flush()) == []


def test_parameters_of_a_deposed_writer_are_dropped_and_written_over() -> None:
    log = Log()
    old = nudged(writing(log, "old"), 0.5)
    new = writing(log, "new")
    replica = ItemReplica(SETTINGS, catalog=False)
    new.on_model(log.append(old.flush()))
    replica.on_model(log.records)
    assert arrays(new) == arrays(core())
    assert replica.counts["model_deposed"] == new.counts["model_deposed"] == 1
    np.testing.assert_equal(replica.model.parameters("sequence").arrays, core().model.parameters("sequence").arrays)
    (again,) = log.append(new.flush())
    assert (again.key, read_model(again.key or b"", again.value or b"").epoch) == (b"#sequence", 2)
    assert list(new.flush()) == []


def test_parameters_of_another_model_are_counted_and_change_nothing() -> None:
    log, replica = Log(), ItemReplica(SETTINGS, catalog=False)
    writing(log)
    wrong = Parameters("sequence", {name: np.ones(99, np.float32) for name in arrays(core())})
    log.append([Output("shop.model.v1", b"#sequence", encode_parameters(wrong, 1, 1), [], 0)])
    log.append([Output("shop.model.v1", b"#unheard-of", encode_parameters(wrong, 1, 2), [], 0)])
    reader = core()
    reader.on_model(log.records)
    replica.on_model(log.records)
    assert reader.counts["model_unreadable"] == replica.counts["model_unreadable"] == 1
    assert arrays(reader) == arrays(core())
    assert replica.model.version == reader.model.version == 2


# -------------------------------------------------------------------- one writer
def test_the_pen_is_held_when_the_record_was_read_back() -> None:
    log, trainer = Log(), core()
    records = log.append([trainer.begin_writing("me", NOW)])
    assert not trainer.writing
    trainer.on_model(records)
    assert trainer.writing
    assert trainer.model.epoch == 1


def test_until_then_the_old_writer_is_followed() -> None:
    log, people = Log(), People()
    old = writing(log, "old")
    new = core()
    new.on_model(log.records)
    mine = new.begin_writing("new", NOW)
    old.on_states([people.do("u", ("click", "late"))])
    new.on_model(log.append(old.flush()))
    assert new.learner.knows(hash_id("late"))
    new.on_model(log.append([mine]))
    assert new.writing


def test_a_higher_epoch_deposes() -> None:
    log = Log()
    old = writing(log, "old")
    new = core()
    new.on_model(log.records)
    with pytest.raises(Deposed, match=r"shop\.model\.v1/0/1: .*epoch 2"):
        old.on_model(log.append([new.begin_writing("new", NOW)]))


def test_of_two_with_the_same_epoch_the_first_in_the_log_writes() -> None:
    log = Log()
    one, two = core(), core()
    records = log.append([one.begin_writing("one", NOW), two.begin_writing("two", NOW)])
    one.on_model(records)
    assert one.writing
    with pytest.raises(Deposed):
        two.on_model(records)
    assert not two.writing
    again = log.append(one.flush())  # compaction would have kept the rival's
    assert [record.key for record in again] == [WRITER]
    assert read_model(WRITER, again[0].value or b"") == WriterRecord(1, 0, "one", NOW)
    assert list(one.flush()) == []


def test_keys_that_a_deposed_writer_touched_are_written_again() -> None:
    log, people = Log(), People()
    old = writing(log, "old")
    old.on_states([people.do("u", ("click", "both"), ("click", "kept"))])
    log.append(old.checkpoint())
    new = writing(log, "new")
    old.on_states([people.do("v", ("click", "both"), ("click", "stray"))])  # it does not know yet
    assert list(new.flush()) == []
    new.on_model(log.append([*old.flush(), Output("shop.model.v1", b"v:kept", None, [], 0)]))
    assert not new.learner.knows(hash_id("stray"))
    again = {record.key: record.value for record in log.append(new.flush())}
    assert {b"v:both", b"l:both", b"v:kept", b"v:stray", b"l:stray"} <= again.keys()
    assert again[b"v:stray"] is again[b"l:stray"] is None
    assert all(one.epoch == 2 for one in read(log.records[-len(again) :]))
    reader = core()
    reader.on_model(log.records)
    assert not reader.learner.knows(hash_id("stray"))
    assert reader.learner.knows(hash_id("kept"))


def test_a_writer_record_that_a_deposed_writer_wrote_over_is_written_again() -> None:
    log = Log()
    old = core()
    late = old.begin_writing("old", NOW)  # sent, but stuck on its way
    writing(log, "one")
    new = writing(log, "two")
    new.on_model(log.append([late]))
    assert [(output.key, read_model(WRITER, output.value or b"").epoch) for output in new.flush()] == [(WRITER, 2)]


def test_followers_drop_what_a_deposed_writer_wrote() -> None:
    log, people = Log(), People()
    old = writing(log, "old")
    writing(log, "new")
    old.on_states([people.do("v", ("click", "stray"))])
    log.append(old.checkpoint())
    reader = core()
    reader.on_model(log.records)
    assert not reader.learner.knows(hash_id("stray"))
    assert reader.positions == {}
    assert reader.counts["model_deposed"] == 2  # one item's vectors, the checkpoint: alone it has no lists
    assert reader.model.epoch == 2


def test_echoes_change_nothing() -> None:
    log, people = Log(), People()
    trainer = writing(log)
    trainer.on_states(people.browse(0, 30))
    records = log.append(trainer.checkpoint())
    trainer.learner.delete(hash_id("i3"))
    records += log.append(trainer.flush())
    trainer.on_model(records)
    assert list(trainer.flush()) == []


# -------------------------------------------------------------------- the catalogue
def catalog(item: str, *, deleted: bool) -> Consumed:
    record = Gravestone(item, hash_id(item), NOW, 7) if deleted else CatalogItem(item, hash_id(item), 8)
    return Consumed(item.encode(), encode_catalog(record), [], "shop.catalog.v1", 0, 0)


def test_a_gravestone_becomes_tombstones_and_ends_learning() -> None:
    log, people = Log(), People()
    trainer = writing(log)
    trainer.on_states(people.browse(0, 60, items=5))
    log.append(trainer.checkpoint())
    trainer.on_catalog([catalog("i3", deleted=True)])
    assert [(output.key, output.value) for output in trainer.flush()] == [(b"v:i3", None), (b"l:i3", None)]
    trainer.on_states([people.do("w", ("click", "i3"), ("click", "i4"))])
    assert trainer.counts["of_deleted_items"] == 1
    assert b"v:i3" not in {output.key for output in trainer.flush()}
    trainer.on_catalog([catalog("i3", deleted=False)])
    trainer.on_states([people.do("w", ("click", "i3"))])
    assert b"v:i3" in {output.key for output in trainer.flush()}


def test_a_null_in_the_catalogue_ends_a_gravestone() -> None:
    trainer, people = core(), People()
    trainer.on_catalog([catalog("a", deleted=True)])
    trainer.on_catalog([dataclasses.replace(catalog("a", deleted=True), value=None)])
    trainer.on_states([people.do("u", ("click", "a"))])
    assert trainer.counts["learned"] == 1


def test_a_deletion_while_nobody_wrote_is_made_up_for() -> None:
    log, people = Log(), People()
    trainer = writing(log)
    trainer.on_states(people.browse(0, 60, items=5))
    log.append(trainer.checkpoint())
    heir = core()
    heir.on_catalog([catalog("i3", deleted=True)])
    heir.on_model(log.records)
    heir.on_model(log.append([heir.begin_writing("heir", NOW)]))
    assert {output.key: output.value for output in heir.flush()} == {b"v:i3": None, b"l:i3": None}


# -------------------------------------------------------------------- bad records
@pytest.mark.parametrize(
    "seen", [b"", b"no zlib", zlib.compress(b"short"), zlib.compress(bytes(10_000_000))],
    ids=["empty", "not compressed", "short", "a bomb"],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_read_is_counted_and_the_one_before_stands(seen: bytes) -> None:
    log, people = Log(), People()
    trainer = writing(log)
    trainer.on_states(people.browse(0, 10))
    log.append(trainer.checkpoint())
    bad = encode_checkpoint(CheckpointRecord(1, 9, {2: 99}, {2: seen}))
    reader = core()
    reader.on_model([*log.records, Consumed(CHECKPOINT, bad, [], "shop.model.v1", 0, 99)])
    assert reader.counts["model_unreadable"] == 1
    assert reader.positions == {2: 10}


def test_unreadable_model_and_catalogue_records_are_counted() -> None:
    trainer = core()
    trainer.on_model([Consumed(vectors_key("a"), b"\xc1", [], "shop.model.v1", 0, 0)])
    trainer.on_catalog([Consumed(b"a", b"\xc1", [], "shop.catalog.v1", 0, 0)])
    assert (trainer.counts["model_unreadable"], trainer.counts["catalog_unreadable"]) == (1, 1)
    trainer.on_model([Consumed(None, b"x"), Consumed(b"#later", None), Consumed(b"#later", b"\x92\x01\x02")])
    assert (trainer.model.epoch, trainer.model.version) == (1, 2)


def test_warming_up_leaves_no_trace() -> None:
    trainer = core()
    trainer.warm_up()
    assert (len(trainer.model.rows), trainer.positions, dict(trainer.counts)) == (0, {}, {})


def test_a_writer_record_of_a_later_epoch_is_remembered() -> None:
    trainer = core()
    later = encode_writer(WriterRecord(41, 7, "someone", NOW))
    trainer.on_model([Consumed(WRITER, later, [], "shop.model.v1", 0, 0)])
    record = read_model(WRITER, trainer.begin_writing("me", NOW).value or b"")
    assert record == WriterRecord(42, 7, "me", NOW)


def test_what_items_say_is_known_to_the_learner_while_they_stand() -> None:
    trainer, vector = core(), np.ones(ENCODING.dimension, np.float32) / np.sqrt(np.float32(ENCODING.dimension))

    def said(code: int) -> Consumed:
        record = CatalogItem("i3", hash_id("i3"), 8).encoded(vector, code)
        return Consumed(b"i3", encode_catalog(record), [], "shop.catalog.v1", 0, 0)

    def described() -> bool:
        return bool(trainer.catalog.described[trainer.model.rows.row(hash_id("i3"))])

    trainer.on_catalog([said(ENCODING.code)])
    assert described()
    trainer.on_catalog([said(ENCODING.code ^ 1)])
    assert not described(), "another encoding made it"
    trainer.on_catalog([said(ENCODING.code), catalog("i3", deleted=True)])
    assert described(), "the gravestone is older"
    stone = encode_catalog(Gravestone("i3", hash_id("i3"), NOW, 9))
    trainer.on_catalog([Consumed(b"i3", stone, [], "shop.catalog.v1", 0, 0)])
    assert not described()
