"""Alive and silent is ended, on a real broker and store; away is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from pipeline.state import decode
from tests import backing
from tests.conftest import MakeSettings
from tests.integration.test_embedding_lane import Lab, click, in_lab
from tests.stores import written
from tests.waiting import eventually, run
from workers import embedded, kafka, watchdog
from workers.app import GroupRefused
from workers.election import ElectionRefused
from workers.lane import Lane
from workers.positions import LaneRefused, StoredPositions
from workers.roles import hosted
from workers.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

FAST: dict[str, Any] = {"kafka_session_timeout_s": 6.0, "kafka_heartbeat_s": 0.2}
PATIENCE_S = 5.0


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watchdog whose patience is over in seconds, but for which no start is too slow."""
    monkeypatch.setattr(watchdog, "_STUCK_AFTER_S", PATIENCE_S)
    monkeypatch.setattr(watchdog, "_STUCK_AFTER_SESSIONS", 0)
    monkeypatch.setattr(watchdog, "_ENDS_EVERY_S", 0.5)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
    """The lanes of this process, as they are made."""
    lanes_made: list[Lane] = []
    init = Lane.__init__

    def noted(self: Lane, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        lanes_made.append(self)

    monkeypatch.setattr(Lane, "__init__", noted)
    return lanes_made


async def ended(lab: Lab, words: str) -> None:
    with pytest.raises(LaneRefused, match=words):
        await asyncio.wait_for(asyncio.shield(lab.process.failed), 60)


# ---------------------------------------------------------------- a coordinator that takes nobody


@asynccontextmanager
async def stranger(settings: Settings, group: str) -> Any:
    """A member of a group that speaks a protocol which nobody else of it does: the group refuses everyone else."""
    consumer = kafka.consumer(settings, group, partition_assignment_strategy=[RangePartitionAssignor])
    await consumer.start()
    consumer.subscribe([settings.topic("events")])
    try:

        async def member() -> bool:
            return bool(consumer.assignment())

        await eventually(member, 60)
        yield
    finally:
        await consumer.stop()


@pytest.mark.parametrize(
    ("role", "group", "error"),
    [
        ("embedding", "embedding", LaneRefused),
        ("retrieval", "retrieval", LaneRefused),
        ("trainer", "trainer", ElectionRefused),
        ("catalog", "", GroupRefused),
    ],
)
def test_a_group_that_refuses_ends_the_worker(
    make_settings: MakeSettings, role: str, group: str, error: type[Exception]
) -> None:
    """The client parks its coordination then, for good: whoever only waits would wait for ever."""
    settings = make_settings(**FAST)

    async def body() -> None:
        name = settings.topic(group) if group else f"{settings.prefix}-catalog"
        async with stranger(settings, name):
            with pytest.raises(error, match="InconsistentGroupProtocolError"):
                async with hosted(settings, [role]) as process:
                    await asyncio.wait_for(asyncio.shield(process.failed), 60)

    run(body(), 120)


# ---------------------------------------------------------------- alive and silent


@pytest.mark.usefixtures("hasty")
def test_a_consumer_that_fetches_nothing(make_settings: MakeSettings, made: list[Lane]) -> None:
    """It never hears of new records, so its own watermark shows no lag: the log's end is asked for."""

    async def body(lab: Lab) -> None:
        await lab.write("u", click("u"))
        await lab.blob("u")
        consumer = made[0]._consumer
        consumer.pause(*consumer.assignment())
        for _ in range(3):
            await lab.write("u", click("u"))
        await ended(lab, f"no progress for {PATIENCE_S:.0f} s although there is lag")

    in_lab(make_settings(**FAST), body)


@pytest.mark.usefixtures("hasty")
def test_a_partition_that_is_never_claimed(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assigned, and nobody consumes it: there is no queue whose progress could be watched."""
    claim = StoredPositions.claim

    async def never(self: StoredPositions, consumer: Any, partitions: Any, may: Any) -> Any:
        return await claim(self, consumer, [p for p in partitions if p != 2], may)

    monkeypatch.setattr(StoredPositions, "claim", never)
    settings = make_settings(**FAST)

    async def body() -> None:
        async with hosted(settings, ["embedding"]) as process:
            with pytest.raises(LaneRefused, match=rf"\[2\]: assigned, but not claimed for {PATIENCE_S:.0f} s"):
                await asyncio.wait_for(asyncio.shield(process.failed), 60)

    run(body(), 90)


@pytest.mark.usefixtures("hasty")
def test_a_member_whose_heartbeats_end(make_settings: MakeSettings, made: list[Lane]) -> None:
    async def body(lab: Lab) -> None:
        async def never() -> bool:
            await asyncio.Future()
            return True

        made[0]._consumer._coordinator._do_heartbeat = never
        await ended(lab, f"took no heartbeat for {PATIENCE_S:.0f} s")

    in_lab(make_settings(**FAST), body)


# ---------------------------------------------------------------- away


@pytest.fixture
def server() -> Iterator[embedded.Server]:
    """A store of the test's own, to be taken away."""
    with embedded.redis_server(backing.redis_binary() or embedded.valkey_binary()) as own:
        yield own


@pytest.mark.usefixtures("hasty")
def test_a_store_that_is_away_longer_than_patience_restarts_nobody(
    make_settings: MakeSettings, server: embedded.Server
) -> None:
    """Neither while it is away nor in the moment of its return, when every partition has stood still for long."""
    settings = make_settings(store_url=backing.url_of(server), **FAST)

    async def body(lab: Lab) -> None:
        users = [f"u-{i}" for i in range(8)]
        for user in users:
            await lab.write(user, click(user))
            await lab.blob(user)
        await written(server)
        server.kill()
        retries: int = lab.process.stats()["embedding"]["retries"]
        for user in users:
            await lab.write(user, click(user))

        async def for_long() -> bool:  # a repeated call soon waits for half a second at least: longer than patience
            return int(lab.process.stats()["embedding"]["retries"]) > retries + 18

        await eventually(for_long, 60)
        server.start()
        for user in users:

            async def applied(user: str = user) -> bool:
                return int(decode([await lab.blob(user)]).count[0]) == 2

            await eventually(applied, 60)
        assert not lab.process.failed.done()

    in_lab(settings, body)
