"""What a worker refuses to start on, and what it says; what it goes on with, and counts. On a real broker and store."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from structlog.testing import capture_logs

from tests.backing import url_of
from tests.conftest import MakeSettings
from tests.waiting import eventually, run
from workers import embedded, kafka, topics
from workers.health import Health, read_health
from workers.producer import Producer
from workers.roles import hosted
from workers.settings import Settings, load
from workers.store import Apply, BeingRebuilt, Store, StoreRefused
from workers.topics import TopicsRefused
from workers.wire.output import Output

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SMALL: dict[str, Any] = {"kafka_partitions": 2, "model_dimension": 8, "kafka_session_timeout_s": 6.0}


def other(settings: Settings, **flags: Any) -> Settings:
    """The same prefix, set otherwise."""
    given = {
        "prefix": settings.prefix,
        "kafka_bootstrap": settings.kafka.bootstrap,
        "kafka_fetch_wait_ms": settings.kafka.fetch_wait_ms,
        "store_url": settings.store.url,
        **SMALL,
        **flags,
    }
    return load(environ={}, flags=given)


def beside_a_store(settings: Settings, body: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await Store.connect(settings)
        try:
            await body(store)
        finally:
            await store.close()

    run(main())


async def starts(settings: Settings, role: str = "embedding") -> None:
    """Start a worker, and see it claim all that it is given."""
    async with hosted(settings, [role]) as process:
        await asyncio.wait_for(process.ready(), 60)


async def stand(store: Store, settings: Settings, next_: int, sent: int, begin: int) -> None:
    """Ten events in partition 0, of which `begin` are gone; the store stands at `next_`, announced up to `sent`."""
    topic = settings.topic("events")
    producer = await Producer(settings).start()
    await producer.send([Output(topic, b"u", b"{}", [], 0)] * 10)
    await producer.stop()
    claim = (await store.claim([0], "earlier", [0]))[0]
    await store.apply([Apply(0, claim.epoch, 0, next_, sent, [])])
    async with kafka.admin(settings) as client:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(begin)})


@pytest.mark.parametrize("role", ["embedding", "retrieval"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model_dimension": 16}, "expected dimension = 16, found 8"),
        ({"partitioner": "crc32"}, "expected partitioner = crc32, found murmur2"),
        ({"clock": "stream"}, "expected clock = stream, found wall"),
    ],
)
def test_a_prefix_that_was_made_otherwise(
    make_settings: MakeSettings, role: str, flags: dict[str, Any], message: str
) -> None:
    settings = make_settings(**SMALL)
    with pytest.raises(StoreRefused, match=f"{message} in {settings.prefix}:meta; set it back, or use another prefix"):
        run(starts(other(settings, **flags), role))


@pytest.mark.real_broker("adds no partitions")
def test_another_number_of_partitions(make_settings: MakeSettings) -> None:
    """Than the settings say, and the store: users would be in other partitions than their states."""
    settings = make_settings(**SMALL)

    async def grow() -> None:
        async with kafka.admin(settings) as client:
            await client.create_partitions({settings.topic("events"): NewPartitions(3)})

        async def grown() -> bool:
            return any(standing.differences for standing in await topics.show(settings))

        await eventually(grown)

    run(grow())
    for role in ("embedding", "retrieval"):
        with pytest.raises(TopicsRefused, match=r"events\.v1, partitions: expected 2, found 3; .*use another prefix"):
            run(starts(settings, role))
    with pytest.raises(TopicsRefused, match="partitions: expected 3, found 2"):
        run(starts(other(make_settings(**SMALL), kafka_partitions=3)))


def test_an_evicting_store(own_store: embedded.Server, make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(**SMALL, store_url=url_of(own_store), health_file=str(tmp_path / "alive"))
    with redis.Redis.from_url(settings.store.url) as server:
        server.config_set("maxmemory-policy", "volatile-ttl")
    with pytest.raises(StoreRefused, match=r"found volatile-ttl: it would drop users' states; run `CONFIG SET"):
        run(starts(settings))
    assert not list(tmp_path.iterdir())  # no sign of life is left


def test_functions_of_another_version_are_waited_for(own_store: embedded.Server, make_settings: MakeSettings) -> None:
    """It says the command that mends it, and goes on when that was run."""
    settings = make_settings(**SMALL, store_url=url_of(own_store))

    async def body(store: Store) -> None:
        with redis.Redis.from_url(settings.store.url) as server:
            older = "#!lua name=headrace\nredis.register_function('headrace_claim', function() return 1 end)"
            server.function_load(older, replace=True)
        with capture_logs() as logs:
            starting = asyncio.create_task(starts(settings))

            async def waits() -> bool:
                return any(line["event"] == "waiting for the store's functions" for line in logs)

            await eventually(waits)
            assert not starting.done()
            (said,) = (line["reason"] for line in logs if "reason" in line)
            assert "run `headrace store apply`" in said
            await store.install()
            await starting

    beside_a_store(settings, body)


def test_who_waits_for_functions_lives_and_is_not_ready(
    own_store: embedded.Server, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """A supervisor that asks for signs of life lets it wait; one that asks for readiness gives it no traffic yet."""
    file = tmp_path / "alive"
    settings = make_settings(**SMALL, store_url=url_of(own_store), health_file=str(file))
    end = asyncio.Event()

    async def serve() -> None:
        async with hosted(settings, ["embedding"]):
            await end.wait()

    async def body(store: Store) -> None:
        with redis.Redis.from_url(settings.store.url) as server:
            server.execute_command("FUNCTION", "FLUSH")
        with capture_logs() as logs:
            serving = asyncio.create_task(serve())

            async def waits() -> bool:
                return any(line["event"] == "waiting for the store's functions" for line in logs)

            async def said() -> Health | None:
                return read_health(file)

            async def is_ready() -> bool:
                return bool((health := read_health(file)) and health.ready)

            await eventually(waits)
            file.unlink(missing_ok=True)
            assert await eventually(said) == Health(ready=False, lag=0)
            await store.install()
            await eventually(is_ready, within_s=90)
            end.set()
            await serving
        assert not file.exists()

    beside_a_store(settings, body)


@pytest.mark.real_broker("deletes no records")
def test_announcements_that_are_lost_are_an_alarm_with_their_number(make_settings: MakeSettings) -> None:
    """The state is whole: it goes on."""
    settings = make_settings(**SMALL)

    async def body(store: Store) -> None:
        await stand(store, settings, next_=9, sent=2, begin=7)
        with capture_logs() as logs:
            async with hosted(settings, ["embedding"]) as process:
                await asyncio.wait_for(process.ready(), 60)
                assert process.stats()["embedding"]["announcements_lost"] == 5

                async def went_on() -> bool:
                    return (await store.positions([0]))[0][:2] == (10, 10)

                await eventually(went_on)
        (alarm,) = (line for line in logs if line["event"].startswith("announcements lost"))
        assert (alarm["log_level"], alarm["sent"], alarm["begins"], alarm["lost"]) == ("error", 2, 7, 5)

    beside_a_store(settings, body)


def test_users_that_are_being_rebuilt(make_settings: MakeSettings) -> None:
    settings = make_settings(**SMALL)

    async def body(store: Store) -> None:
        rebuilding = store.rebuilding("somebody")
        await rebuilding.begin([1])
        with pytest.raises(BeingRebuilt, match="partition 1 are being rebuilt"):
            await starts(settings)
        await rebuilding.end(1, 0)
        await starts(settings)

    beside_a_store(settings, body)


@pytest.mark.real_broker("deletes no records")
def test_a_worker_that_refuses_ends_with_one_line(make_settings: MakeSettings, root: Path) -> None:
    """A process of its own: exit status 1, and the last line says how many events are gone and what to do."""
    settings = make_settings(**SMALL)
    beside_a_store(settings, lambda store: stand(store, settings, next_=3, sent=3, begin=8))
    flags = ["--prefix", settings.prefix, "--broker", settings.kafka.bootstrap, "--store", settings.store.url]
    more = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", "worker", "embedding", *flags, *more],
        cwd=root, env=dict(os.environ), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1, last
    assert last.startswith(f"headrace: {settings.topic('events')}[0]: the store stands at 3, the log begins at 8: ")
    assert "5 events are gone before they were applied; go on without them with --accept-loss" in last
    assert "Traceback" not in done.stderr
