"""Where a lane stands, on a real broker and store: claims, what stays cached, fences, commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.waiting import run
from workers import kafka
from workers.positions import Batch, GroupPositions, LaneRefused, Result, Stand, StoredPositions
from workers.producer import Producer
from workers.settings import Settings
from workers.store import Position, Store
from workers.wire.output import Output

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.real_broker("tells wrong end offsets")]

Body = Callable[[Store, AIOKafkaConsumer], Awaitable[None]]


def beside(settings: Settings, dataset: str, body: Body, group: str | None = None) -> None:
    """Run `body` with a store, and a consumer of 10 records in partition 0 of a topic."""

    async def main() -> None:
        async with _clients(settings, dataset, group) as (store, consumer):
            await body(store, consumer)

    run(main())


@asynccontextmanager
async def _clients(settings: Settings, dataset: str, group: str | None) -> AsyncIterator[tuple[Store, Any]]:
    producer = await Producer(settings).start()
    await producer.send([Output(settings.topic(dataset), b"u", b"{}", [], 0)] * 10)
    await producer.stop()
    store = await Store.connect(settings)
    consumer = await kafka.start_consumer(settings, group)
    consumer.assign([TopicPartition(settings.topic(dataset), 0)])
    try:
        yield store, consumer
    finally:
        await consumer.stop()
        await store.close()


async def five_more(settings: Settings, dataset: str) -> None:
    """Five records more in partition 0."""
    producer = await Producer(settings).start()
    await producer.send([Output(settings.topic(dataset), b"u", b"{}", [], 0)] * 5)
    await producer.stop()


def always(partition: int) -> bool:
    """A member whose heartbeats are taken."""
    return True


def applied(next_: int, expected: int) -> Result:
    return Result(Batch(0, [], expected, next_))


def test_what_is_cached_belongs_to_a_claim(settings: Settings) -> None:
    """Kept only by whoever was there last and left it where it stands."""

    async def body(store: Store, consumer: Any) -> None:
        ours, other = (StoredPositions(store, settings.topic("events"), owner) for owner in ("ours", "other"))
        assert await ours.claim(consumer, [0], always) == {0: Stand(0, 0, kept=False)}
        await ours.advance((await ours.apply([applied(4, 0)]))[0])
        await ours.release([0])
        assert (await store.positions([0]))[0] == Position(4, 4, 1, "ours")
        assert await ours.claim(consumer, [0], always) == {0: Stand(4, 4, kept=True)}
        assert await other.claim(consumer, [0], always) == {0: Stand(4, 4, kept=False)}
        assert await ours.claim(consumer, [0], always) == {0: Stand(4, 4, kept=False)}
        restarted = StoredPositions(store, settings.topic("events"), "ours")
        assert await restarted.claim(consumer, [0], always) == {0: Stand(4, 4, kept=False)}

    beside(settings, "events", body)


def test_a_member_that_was_frozen_while_it_asked_claims_nothing(settings: Settings) -> None:
    """Whether it may is asked last, when the broker has told the offsets: nobody is fenced by it."""

    async def body(store: Store, consumer: Any) -> None:
        heir, frozen = (StoredPositions(store, settings.topic("events"), owner) for owner in ("heir", "frozen"))
        await heir.claim(consumer, [0], always)
        assert await frozen.claim(consumer, [0], lambda partition: False) == {}
        assert (await store.positions([0]))[0].owner == "heir"
        assert await heir.apply([applied(4, 0)]) == ([applied(4, 0)], {})

    beside(settings, "events", body)


def test_a_claim_begins_at_what_was_not_announced(settings: Settings) -> None:
    async def body(store: Store, consumer: Any) -> None:
        positions = StoredPositions(store, settings.topic("events"), "ours")
        await positions.claim(consumer, [0], always)
        await positions.apply([applied(4, 0)])  # and died before anything was sent
        successor = StoredPositions(store, settings.topic("events"), "successor")
        assert await successor.claim(consumer, [0], always) == {0: Stand(0, 4, kept=False)}
        stand, lost = await successor.apply([Result(Batch(0, [], 0, 4, again=True))])
        assert (len(stand), lost) == (1, {})
        await successor.advance(stand)
        assert await successor.idle() == set()
        assert (await store.positions([0]))[0].sent == 4

    beside(settings, "events", body)


def test_a_claim_that_was_held_up_is_measured_by_the_log_of_now(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen before it claims: others go on beyond the end that the log had then. It is the same log."""

    async def body(store: Store, consumer: Any) -> None:
        ours, other = (StoredPositions(store, settings.topic("events"), owner) for owner in ("ours", "other"))
        await other.claim(consumer, [0], always)

        async def others_go_on(name: str) -> None:
            if name == "before_claim":
                await five_more(settings, "events")
                monkeypatch.undo()
                await other.apply([applied(15, 0)])

        monkeypatch.setattr("workers.positions.fail_point", others_go_on)
        assert await ours.claim(consumer, [0], always) == {0: Stand(0, 15)}

    beside(settings, "events", body)


def test_a_group_that_goes_on_meanwhile_keeps_its_commit(settings: Settings) -> None:
    async def body(store: Store, consumer: Any) -> None:
        class Meanwhile:
            """The consumer; before it tells the commit, others have gone on and committed."""

            def __getattr__(self, name: str) -> Any:
                return getattr(consumer, name)

            async def committed(self, tp: TopicPartition) -> int:
                await five_more(settings, "states")
                return 15

        of_group = GroupPositions(store, settings.topic("states"))
        assert await of_group.claim(Meanwhile(), [0], always) == {0: Stand(15, 15)}

    beside(settings, "states", body, group=settings.prefix)


def test_fences_count_wherever_they_are_met(settings: Settings) -> None:
    """Idle or not: each once, and the third within a minute is the last."""

    async def body(store: Store, consumer: Any) -> None:
        ours = StoredPositions(store, settings.topic("events"), "ours")

        async def fenced(at: int) -> None:
            await ours.claim(consumer, [0], always)
            stand, _ = await ours.apply([applied(at + 1, at)])
            await ours.advance(stand)
            await store.claim([0], "thief", [])

        await fenced(0)
        assert await ours.idle() == {0}
        assert await ours.idle() == set()
        await ours.release([0])
        await fenced(1)
        assert (await ours.apply([applied(3, 2)]))[1] == {0: "FENCED"}
        assert ours.counts["fenced"] == 2
        await fenced(2)
        with pytest.raises(LaneRefused, match=r"\[0\]@3: fenced 3 times in 60 s"):
            await ours.idle()

    beside(settings, "events", body)


def test_a_gap_tells_where_the_store_stands(settings: Settings) -> None:
    async def body(store: Store, consumer: Any) -> None:
        ours = StoredPositions(store, settings.topic("events"), "ours")
        await ours.claim(consumer, [0], always)
        stand, lost = await ours.apply([applied(9, 7)])
        assert (stand, lost, ours.counts["gaps"]) == ([], {0: "GAP"}, 1)
        assert await ours.claim(consumer, [0], always) == {0: Stand(0, 0, kept=False)}

    beside(settings, "events", body)


def test_a_group_whose_topic_was_made_anew_begins_at_its_beginning(settings: Settings) -> None:
    """Nothing is there yet: it waits at the beginning, not where the old log stood."""

    async def body(store: Store, consumer: Any) -> None:
        empty = TopicPartition(settings.topic("states"), 1)
        consumer.assign([empty])
        await consumer.commit({empty: 7})
        assert await GroupPositions(store, empty.topic).claim(consumer, [1], always) == {1: Stand(0, 0)}

    beside(settings, "states", body, group=settings.prefix)


def test_a_group_begins_at_its_commit_or_at_the_beginning(settings: Settings) -> None:
    """Also where its commit is of a log that is no more: nothing would ever come there."""

    async def body(store: Store, consumer: Any) -> None:
        topic = settings.topic("states")
        positions = GroupPositions(store, topic)
        assert await positions.claim(consumer, [0], always) == {0: Stand(0, 0)}
        await positions.advance([applied(7, 0)])
        await positions.release([0])
        assert await positions.claim(consumer, [0], always) == {0: Stand(7, 7)}
        await consumer.commit({TopicPartition(topic, 0): 10})
        assert await positions.claim(consumer, [0], always) == {0: Stand(10, 10)}
        await consumer.commit({TopicPartition(topic, 0): 11})
        assert await positions.claim(consumer, [0], always) == {0: Stand(0, 0)}

    beside(settings, "states", body, group=settings.prefix)
