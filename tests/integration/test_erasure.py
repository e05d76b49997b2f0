"""A user who was forgotten: every key, every compacted topic, every memory is searched for the id and its hash, and the
marker alone is found. Each place is searched before too, so that a search that sees nothing cannot pass."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.conftest import MakeSettings
from tests.pipelines import FAST, Pipeline, pipeline, read
from tests.traces import Traces, memories
from tests.waiting import eventually, run
from workers import cli, kafka, topics
from workers.settings import Settings
from workers.wire.output import Output
from workers.wire.times import rfc3339

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

USER = "erase-me-7Qx2kV9"
OTHERS = [f"other-{n}" for n in range(12)]
COMPACTED = [topic.dataset for topic in topics.TOPICS if "compact" in topic.cleanup]
# What a topic has after days, at once: segments end, every record may be compacted, a null needs nobody to see it.
AT_ONCE = {
    "segment.ms": "1",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1",
    "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": "0",
}


async def live(pipe: Pipeline) -> None:
    """Everyone does everything, one user among them; all of it is answered, and learned."""
    for number in range(6):
        await pipe.publish(f"i-{number}", title=f"Item {number}", creator_id="acme")
    for user in [USER, *OTHERS]:
        await pipe.act(user, action="profile", attributes={"market": "de", "muted_creators": ["noise"]})
        for number in range(4):
            await pipe.act(user, f"i-{number}", event_id=f"{user}-{number}", session_id=f"s-{user}")
        shown = await pipe.feed(user, "i-4", "dislike")
        await pipe.act(user, action="impression", items=[item.item_id for item in shown.items], feed_id=shown.feed_id)
        await pipe.answer(user, await pipe.act(user, shown.items[0].item_id if shown.items else "i-5"))
    await pipe.counted("trainer", "learned", 5 * (1 + len(OTHERS)))


async def forget(pipe: Pipeline, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """By the command, which waits; the receipt."""
    settings = pipe.settings
    where = ["--prefix", settings.prefix, "--broker", settings.kafka.bootstrap, "--store", settings.store.url]
    arguments = ["forget", USER, "--wait", "--json", *where, "--set", f"kafka_partitions={settings.kafka.partitions}"]
    assert await asyncio.to_thread(cli.run, arguments) == 0
    receipt: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return receipt


def test_only_the_marker_is_left(make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    traces = Traces(USER)

    async def main(settings: Settings) -> None:
        async with pipeline(settings) as pipe:
            await live(pipe)
            marker = pipe.store.marker_key(pipe.home(USER), USER)
            with redis.Redis.from_url(settings.store.url) as server:
                before = traces.in_store(server)
                assert {key.split(b":")[1] for key in before} == {b"u", b"f"}
                held = "".join(traces.in_memory(pipe.process))
                for place in ("StateCache", "Rules", "HitRate", "WaitingLists", "Neighbourhood"):
                    assert place in held, "where it certainly was, it is not found: the search is blind"
                receipt = await forget(pipe, capsys)
                assert receipt["forgotten"] is True
                await go_on(pipe)
                assert traces.in_store(server).keys() == {marker}
                value = server.get(marker) or b""
                assert not traces.in_bytes(value)
                assert receipt == json.loads(value[24:])
                assert receipt["time"] == rfc3339(int.from_bytes(value[16:24], "big"))
            assert traces.in_memory(pipe.process) == []
            assert [(one.__name__, *traces.in_memory(one)) for one in memories() if traces.in_memory(one)] == []
            examples = await read(settings, "examples")
            assert examples
            assert traces.in_records(examples) == []

    run(main(make_settings(**FAST, kafka_partitions=2)), 150)


async def go_on(pipe: Pipeline) -> None:
    """The others carry on: what a client held of its last fetch makes room."""
    before = pipe.process.stats()
    for user in OTHERS:
        await pipe.answer(user, await pipe.act(user, "i-1"))
    await pipe.publish("i-9", title="Item 9")
    await pipe.counted("trainer", "learned", before["trainer"]["learned"] + len(OTHERS))
    await pipe.counted("recent", "recent_events", before["recent"]["recent_events"] + len(OTHERS))


@pytest.mark.real_broker("compacts nothing")
def test_compaction_leaves_nothing(make_settings: MakeSettings) -> None:
    """Of the compacted topics, and of the model that is learned from them."""
    traces = Traces(USER)

    async def main(settings: Settings) -> None:
        async with pipeline(settings) as pipe:
            await live(pipe)
            named = {dataset for dataset in COMPACTED if traces.in_records(await read(settings, dataset))}
            assert named == {"states", "feeds"}, "what is compacted and names users"
            version = await pipe.act(USER, action="forget")

            async def nulls() -> bool:
                return all([r.value for r in pipe.of(dataset, USER)[-1:]] == [None] for dataset in named)

            await eventually(nulls)
            assert len(pipe.of("states", USER)) > 1
            assert version > 0
            for dataset in COMPACTED:
                await reconfigure(settings, settings.topic(dataset), AT_ONCE)

            async def gone() -> bool:
                await roll(pipe, named)
                return not [r for dataset in COMPACTED for r in traces.in_records(await read(settings, dataset))]

            await eventually(gone, 90)
            assert {record.key.decode() for record in await read(settings, "states")} >= set(OTHERS)

    run(main(make_settings(**FAST, kafka_partitions=2)), 170)


async def reconfigure(settings: Settings, topic: str, config: dict[str, str]) -> None:
    async with kafka.admin(settings) as client:
        (declared,) = (one for one in topics.declared(settings) if one.name == topic)
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={**declared.config, **config})
        await client.alter_configs([resource])


async def roll(pipe: Pipeline, datasets: Sequence[str] | set[str]) -> None:
    """A segment ends with the next record, here one of others, in every partition; compaction comes behind that."""
    for dataset in datasets:
        last = {record.partition: record for record in await read(pipe.settings, dataset) if record.value is not None}
        await pipe.producer.send(
            Output(pipe.settings.topic(dataset), r.key, r.value, list(r.headers), r.partition) for r in last.values()
        )
    await asyncio.sleep(0.5)
