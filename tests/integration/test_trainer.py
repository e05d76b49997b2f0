"""The trainer on a real broker: what it learns is on `model`, one writes at a time, and a restart goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from pipeline.model import Model
from pipeline.model.covisitation import HALF_LIFE_MS
from pipeline.types import ItemLists, hash_id
from tests.conftest import MakeSettings
from tests.faults.configs import cut
from tests.pipelines import FAST, Pipeline, pipeline, read
from tests.waiting import eventually
from workers import kafka
from workers.items import ItemReplica
from workers.outside.watch import following
from workers.producer import Producer
from workers.settings import Settings
from workers.trainer import TrainerCore
from workers.wire.model import (
    CHECKPOINT,
    WRITER,
    WriterRecord,
    encode_lists,
    encode_vectors,
    encode_writer,
    item_of_key,
    read_model,
)
from workers.wire.output import Output
from workers.wire.rules import Rules
from workers.wire.state import decode_state
from workers.writer import ModelWriter

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

USERS, ITEMS = 6, ("a", "b", "c", "d")
EVENTS = USERS * len(ITEMS)


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """A flush every 0.2 s, a checkpoint only at the end."""
    return make_settings(**FAST, model_checkpoint_s=3600)


@asynccontextmanager
async def training(settings: Settings, name: str, *, crash: bool = False) -> AsyncIterator[ModelWriter]:
    """A trainer without a host, whose model can be looked at; the block's end stops it, or kills it."""
    producer = await Producer(settings).start()
    writer = ModelWriter(settings, producer, name, lambda: TrainerCore(settings, Rules.of(settings)))
    running = asyncio.create_task(writer.run())
    try:
        await asyncio.wait_for(writer.standing_by.wait(), 60)
        yield writer
    finally:
        if crash:
            running.cancel()
        else:
            writer.stop()
        await asyncio.wait([running], timeout=30)
        await producer.stop()
    assert running.cancelled() if crash else running.result() is None


async def crowd(pipe: Pipeline, name: str = "u") -> None:
    """Users who take all items in the same order, EVENTS events; returns when they are announced."""
    before = announced(pipe)
    for item in ITEMS:
        for number in range(USERS):
            await pipe.act(f"{name}-{number}", item)
    await until(lambda: announced(pipe) == before + EVENTS)


def announced(pipe: Pipeline) -> int:
    return int(pipe.process.stats()["embedding"].get("applied", 0))


async def until(holds: Callable[[], bool]) -> None:
    async def asked() -> bool:
        return holds()

    await eventually(asked)


async def learned(writer: ModelWriter, events: int) -> None:
    """Wait until a writer has learned from `events`, no more and no less."""
    await until(lambda: writer.core.writing and writer.core.counts["learned"] >= events)
    assert writer.core.counts["learned"] == events


def records_of(model: Model) -> dict[str, tuple[bytes, bytes]]:
    """What a model would publish of each item that it knows, without its stamp."""
    rows = [row for row in range(len(model.rows)) if model.sequence.known[row] and model.rows.named[row]]
    return {
        model.rows.ids[row]: (encode_vectors(model.vectors(row), 0, 0), encode_lists(model.lists(row), 0, 0))
        for row in rows
    }


def alike(model: Model, other: Model) -> bool:
    """Whether the same was learned. Each counts the weights of its lists from the first record that it met."""
    ours, theirs = ({item: vectors for item, (vectors, _) in records_of(one).items()} for one in (model, other))
    return ours == theirs and all(
        _alike(model.lists(row_of(model, item)), other.lists(row_of(other, item))) for item in theirs
    )


def _alike(lists: ItemLists, other: ItemLists) -> bool:
    shift = np.float32(2.0 ** ((other.reference - lists.reference) / HALF_LIFE_MS))
    return all(
        hashes.tolist() == expected.tolist() and np.allclose(weights, shift * heavy, rtol=1e-5)
        for hashes, expected, weights, heavy in zip(
            lists.hashes, other.hashes, lists.weights, other.weights, strict=True
        )
    )


def row_of(model: Model, item: str) -> int:
    (row,) = model.rows.find(np.array([hash_id(item)], np.uint64)).tolist()
    return int(row)


def count(model: Model, item: str) -> float:
    """All-time weight of an item's events."""
    row = row_of(model, item)
    return float(model.trends.count[row]) if row >= 0 else 0.0


async def keys(settings: Settings) -> list[bytes]:
    """The keys on `model`, as they were written."""
    return [record.key for record in await read(settings, "model")]


async def published(settings: Settings, *wanted: bytes) -> None:
    async def there() -> bool:
        return set(wanted) <= set(await keys(settings))

    await eventually(there)


# ---------------------------------------------------------------- learning


def test_what_is_learned_is_published_and_followed(settings: Settings) -> None:
    """Every item has its vectors and lists on `model`; a replica that follows holds what the trainer holds."""

    async def body() -> None:
        replica = ItemReplica(settings, catalog=False)
        async with pipeline(settings, ["embedding"]) as pipe, training(settings, "one") as writer:
            await crowd(pipe)
            await learned(writer, EVENTS)
            async with following(replica.parts[0]):
                await until(lambda: records_of(replica.model) == records_of(writer.core.model))
            assert set(records_of(writer.core.model)) == set(ITEMS)
            assert replica.model.epoch == writer.core.model.epoch == 1
            assert 0 < replica.model.version <= writer.core.model.version
            model = writer.core.model
            assert [count(model, item) for item in ITEMS] == [USERS] * len(ITEMS)
            (row,) = model.rows.find(np.array([hash_id("a")], np.uint64)).tolist()
            assert hash_id("b") in model.lists(row).hashes[0].tolist(), "b was taken after a"
        written = await keys(settings)
        assert written[0] == WRITER
        assert written[-1] == CHECKPOINT
        assert {item_of_key(key) for key in written if not key.startswith(b"#")} == set(ITEMS)

    asyncio.run(body())


# ---------------------------------------------------------------- restarts


def test_a_restart_goes_on_from_the_checkpoint(settings: Settings) -> None:
    """The model is as it was, only new events are learned, and what is announced again is not learned again."""

    async def body() -> None:
        async with pipeline(settings, ["embedding"]) as pipe:
            async with training(settings, "one") as first:
                await crowd(pipe)
                await learned(first, EVENTS)
            before = records_of(first.core.model)
            again = (await read(settings, "states"))[0]
            await pipe.producer.send([Output(again.topic, again.key, again.value, [], again.partition)])
            async with training(settings, "two") as second:
                assert records_of(second.core.model) == before
                assert sum(second.core.positions.values()) >= 4
                await until(lambda: second.core.counts["learned_before"] > 0)
                await crowd(pipe, "later")
                await learned(second, EVENTS)
                assert second.core.counts["learned_before"] == len(decode_state(again.value).fresh)
                assert second.core.model.epoch == 2
                assert count(second.core.model, "a") == 2 * USERS

    asyncio.run(body())


def test_without_a_checkpoint_everything_is_learned_again(settings: Settings) -> None:
    """A trainer that dies after a flush: the next one learns from the last checkpoint on, here from the start."""

    async def body() -> None:
        async with pipeline(settings, ["embedding"]) as pipe:
            async with training(settings, "one", crash=True) as first:
                await crowd(pipe)
                await learned(first, EVENTS)
                await published(settings, b"v:a", b"l:a")
            assert CHECKPOINT not in await keys(settings)
            async with training(settings, "two") as second:
                await learned(second, EVENTS)
                assert second.core.counts["learned_before"] == 0

    asyncio.run(body())


# ---------------------------------------------------------------- one writer


def test_a_second_trainer_stands_by_and_takes_over(settings: Settings) -> None:
    """Of two never both write; when the writer stops, the other goes on where it stood."""

    async def body() -> None:
        async with pipeline(settings, ["embedding"]) as pipe, training(settings, "one") as one:
            await until(lambda: one.core.writing)
            async with training(settings, "two") as two:
                for _ in range(2):  # "Stable" may be told before both know whom it chose: to ask again takes longer
                    await eventually(lambda: members(settings, 2))
                await until(lambda: elected(one) != elected(two) and writes(one) == elected(one) != writes(two))
                active, idle = (one, two) if writes(one) else (two, one)
                await crowd(pipe)
                await learned(active, EVENTS)
                assert idle.core.counts["learned"] == 0
                epoch = active.core.model.epoch
                active.stop()
                await until(lambda: idle.core.writing)
                assert idle.core.model.epoch == epoch + 1
                await crowd(pipe, "later")
                await learned(idle, EVENTS)
                assert count(idle.core.model, "a") == 2 * USERS

    asyncio.run(body())


def elected(writer: ModelWriter) -> bool:
    return writer._election.elected.is_set()


def writes(writer: ModelWriter) -> bool:
    return writer.core.writing


async def members(settings: Settings, wanted: int) -> bool:
    """Whether the trainers' group is settled, with so many members."""
    async with kafka.admin(settings) as client:
        (answer,) = await client.describe_consumer_groups([settings.topic("trainer")])
    (group,) = answer.groups
    return (group[2], len(group[5])) == ("Stable", wanted)


def test_a_higher_epoch_deposes_the_writer_and_not_the_process(settings: Settings) -> None:
    """It gives up its model, follows anew, and being elected still takes the pen again with a higher epoch."""

    async def body() -> None:
        async with pipeline(settings, ["trainer"]) as pipe:
            await until(lambda: pipe.process.stats()["trainer"]["terms"] == 1)
            await published(settings, WRITER)
            rival = WriterRecord(7, 0, "someone else", 0)
            await pipe.producer.send([Output(settings.topic("model"), WRITER, encode_writer(rival), [], 0)])
            await until(lambda: pipe.process.stats()["trainer"]["terms"] == 2)

            async def took_over() -> bool:
                epochs = [read_model(r.key, r.value).epoch for r in await read(settings, "model") if r.key == WRITER]
                return epochs == [1, 7, 8]

            await eventually(took_over)
            assert not pipe.process.failed.done()

    asyncio.run(body())


# ---------------------------------------------------------------- a model that is gone


async def rebuilt(settings: Settings) -> Model:
    """The model as a replica that is started now finds it."""
    replica = ItemReplica(settings, catalog=False)
    replica.on_model(await read(settings, "model"))
    return replica.model


@pytest.mark.real_broker("deletes no records")
def test_a_model_that_is_cut_under_its_writer_is_written_whole_again(make_settings: MakeSettings) -> None:
    """It is all in memory still, also what does not change any more; the writer's own record and a checkpoint too."""
    settings = make_settings(**FAST, model_checkpoint_s=0.5)

    async def body() -> None:
        async with pipeline(settings, ["embedding"]) as pipe, training(settings, "one") as writer:
            await crowd(pipe)
            await learned(writer, EVENTS)
            await published(settings, CHECKPOINT, *(b"v:%b" % item.encode() for item in ITEMS))
            await cut(settings, "model")
            await until(lambda: writer.core.counts["published_again"] == 1)
            await published(settings, WRITER, CHECKPOINT)

            async def whole() -> bool:
                return records_of(await rebuilt(settings)) == records_of(writer.core.model)

            await eventually(whole)
            assert writer.terms == 1

    asyncio.run(body())


@pytest.mark.real_broker("deletes no records")
def test_a_model_that_is_cut_without_a_writer_is_learned_anew(settings: Settings) -> None:
    """From `states`; and replicas that remember the epochs that are gone follow the new writer."""

    async def body() -> None:
        replica = ItemReplica(settings, catalog=False)
        async with pipeline(settings, ["embedding"]) as pipe, following(replica.parts[0]):
            async with training(settings, "one") as first:
                await crowd(pipe)
                await learned(first, EVENTS)
            await until(lambda: set(records_of(replica.model)) == set(ITEMS))
            await cut(settings, "model")
            async with training(settings, "two") as second:
                await learned(second, EVENTS)
                await until(lambda: replica.model.epoch == second.core.model.epoch > first.core.model.epoch)
                await until(lambda: alike(replica.model, second.core.model))

    asyncio.run(body())


# ---------------------------------------------------------------- deletion


def test_the_records_of_a_deleted_item_are_tombstoned(settings: Settings) -> None:
    """Vectors and lists get nulls, replicas drop what they had, and it is learned anew once it is published again."""

    async def body() -> None:
        replica = ItemReplica(settings, catalog=False)
        async with (
            pipeline(settings, ["embedding", "catalog"]) as pipe,
            training(settings, "one") as writer,
            following(replica.parts[0]),
        ):
            await pipe.publish("a")
            await crowd(pipe)
            await until(lambda: set(records_of(replica.model)) == set(ITEMS))
            await pipe.delete("a")
            await until(lambda: set(records_of(replica.model)) == set(ITEMS) - {"a"})
            last = {record.key: record.value for record in await read(settings, "model")}
            assert (last[b"v:a"], last[b"l:a"]) == (None, None)
            assert last[b"v:b"] is not None
            await pipe.act("u-0", "a")  # too late
            await until(lambda: writer.core.counts["of_deleted_items"] == 1)
            await pipe.publish("a")

            async def learned_anew() -> bool:  # the trainer follows the catalogue a moment behind
                counts = writer.core.counts
                before, refused = counts["learned"] + counts["of_deleted_items"], counts["of_deleted_items"]
                await pipe.act("u-0", "a")
                await until(lambda: counts["learned"] + counts["of_deleted_items"] > before)
                return counts["of_deleted_items"] == refused

            await eventually(learned_anew)
            await until(lambda: set(records_of(replica.model)) == set(ITEMS))
            assert count(replica.model, "a") < USERS, "what was learned before is gone"

    asyncio.run(body())
