"""The catalog worker's agent on a real broker: what it reads, where it goes on, and what it says of its lag."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.conftest import MakeSettings
from tests.faults import processes
from tests.waiting import eventually, run
from workers import catalog, kafka
from workers.catalog import CatalogHandler
from workers.outside.watch import following
from workers.producer import Producer
from workers.replica import Follower
from workers.roles import Process, hosted
from workers.settings import Settings
from workers.wire.catalog import (
    CatalogItem,
    Gravestone,
    catalog_of,
    encode_catalog,
    gravestone_of,
    read_catalog,
)
from workers.wire.item import ItemData
from workers.wire.output import Output

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

FAST: dict[str, Any] = {"kafka_session_timeout_s": 6.0, "kafka_heartbeat_s": 0.2}
COMMITS_S = 3.0  # several rounds of commits: the agent makes one a second
_DAY_MS = 86_400_000


def item(item_id: str) -> bytes:
    return json.dumps({"item_id": item_id}).encode()


async def write(settings: Settings, *ids: str) -> None:
    """Items, all in partition 0."""
    await send(settings, *(Output(settings.topic("items"), i.encode(), item(i), [], 0) for i in ids))


async def send(settings: Settings, *outputs: Output) -> None:
    producer = await Producer(settings).start()
    try:
        await producer.send(outputs)
    finally:
        await producer.stop()


async def committed(settings: Settings) -> int:
    """Where the group stands in partition 0 of `items`; 0 = nowhere."""
    found = await kafka.commits(settings, f"{settings.prefix}-catalog", settings.topic("items"), [0])
    return found.get(0, 0)


def ids(seen: Sequence[Any]) -> list[str]:
    """The items among the records of `catalog`, in order."""
    return [read_catalog(record.value).item_id for record in seen]


async def written(seen: Sequence[Any], *wanted: str) -> None:
    """Wait until all of these items are in `catalog`."""

    async def there() -> bool:
        return set(wanted) <= set(ids(seen))

    await eventually(there, 60)


async def acknowledged(settings: Settings, offset: int) -> None:
    async def there() -> bool:
        return await committed(settings) == offset

    await eventually(there, 60)


async def lag(process: Process, least: int, most: int) -> None:
    """Wait until a process says of itself that its lag lies in [least, most]."""

    async def there() -> bool:
        return least <= process.health().lag <= most

    await eventually(there, 60)


def watched(settings: Settings, body: Callable[[Sequence[Any]], Awaitable[None]]) -> None:
    """Run `body` with what comes to `catalog` meanwhile."""

    async def main() -> None:
        seen: list[Any] = []
        async with following(Follower(settings, settings.topic("catalog"), seen.extend)):
            await body(seen)

    run(main())


@pytest.mark.real_broker("has no transactions")
def test_what_a_transaction_aborted_is_no_item(make_settings: MakeSettings) -> None:
    """Nor is it in the way: the group's commit passes it, even behind the log's very first record, and at the log's end
    it is no lag."""
    settings = make_settings(**FAST)

    async def body(seen: Sequence[Any]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap, transactional_id=settings.prefix)
        await producer.start()
        for names in (["first"], ["never", "neither"], ["last"], ["late"]):  # 0, 2-3, 5, 7, each with its marker
            await producer.begin_transaction()
            for name in names:
                await producer.send_and_wait(settings.topic("items"), item(name), key=name.encode(), partition=0)
            await (producer.commit_transaction() if names[0] in {"first", "last"} else producer.abort_transaction())
        await producer.stop()
        async with hosted(settings, ["catalog"]) as process:
            await written(seen, "first", "last")
            await acknowledged(settings, 6)
            await lag(process, 0, 0)
            assert ids(seen) == ["first", "last"]

    watched(settings, body)


def test_a_process_of_more_roles_goes_on_where_a_catalog_worker_stood(make_settings: MakeSettings) -> None:
    settings = make_settings(**FAST)

    async def body(seen: Sequence[Any]) -> None:
        await write(settings, "a", "b", "c")
        async with hosted(settings, ["catalog"]):
            await written(seen, "a", "b", "c")
            await acknowledged(settings, 3)
        await write(settings, "d")
        async with hosted(settings, ["trainer", "catalog"]) as process:
            await written(seen, "d")
            assert process.stats()["catalog"]["items"] == 1

    watched(settings, body)


def test_a_killed_worker_had_acknowledged_only_what_it_wrote(make_settings: MakeSettings, tmp_path: Path) -> None:
    """It dies with items in hand; the next one writes them."""
    settings = make_settings(**FAST)
    environ = {**processes.environ_of(settings), "HEADRACE_FAILPOINT_BEFORE_CATALOG": "pause:600"}

    async def body(seen: Sequence[Any]) -> None:
        await write(settings, "a", "b")
        worker = processes.start("catalog", tmp_path / "catalog.log", environ)
        try:

            async def in_hand() -> bool:
                assert worker.runs, worker.last_words()
                return worker.logged("fail point before_catalog") == 1

            await eventually(in_hand, 60)
            await asyncio.sleep(COMMITS_S)
            assert await committed(settings) == 0
            worker.kill()
        finally:
            processes.end(worker)
        assert ids(seen) == []
        async with hosted(settings, ["catalog"]):
            await written(seen, "a", "b")
            await acknowledged(settings, 2)

    watched(settings, body)


def test_items_that_wait_are_lag(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the agent has in hand, and those that the broker still has."""
    settings = make_settings(**FAST)
    waiting, handle = 6000, CatalogHandler.handle

    async def body() -> None:
        may = asyncio.Event()

        async def held_up(self: CatalogHandler, records: Sequence[Any]) -> None:
            await may.wait()
            await handle(self, records)

        monkeypatch.setattr(CatalogHandler, "handle", held_up)
        async with hosted(settings, ["catalog"]) as process:
            await write(settings, "one", "two", "three")
            await lag(process, 3, 3)
            await write(settings, *(f"i-{number}" for number in range(waiting)))
            await lag(process, waiting - 1000, waiting + 3)  # a poll's rest that the agent has no room for is left out
            may.set()
            await lag(process, 0, 0)
            assert process.stats()["catalog"]["items"] == waiting + 3

    run(body())


def test_a_worker_removes_old_gravestones_again_and_again(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Younger ones stay, and so does what came back."""
    monkeypatch.setattr(catalog, "_SWEEP_EVERY_S", 0.05)
    settings = make_settings(**FAST)
    topic, now = settings.topic("catalog"), int(time.time() * 1000)

    def of(entry: CatalogItem | Gravestone) -> Output:
        return Output(topic, entry.item_id.encode(), encode_catalog(entry), [], 0)

    def stone(name: str, days: int) -> Output:
        return of(gravestone_of(name, 0, now - days * _DAY_MS))

    async def removed(seen: Sequence[Any], *names: bytes) -> None:
        async def there() -> bool:
            return [record.key for record in seen if record.value is None] == list(names)

        await eventually(there)

    async def body(seen: Sequence[Any]) -> None:
        back = of(catalog_of(ItemData("back"), 1))
        await send(settings, stone("back", 91), back, stone("young", 89), stone("old", 91))
        async with hosted(settings, ["catalog"]):
            await removed(seen, b"old")
            await send(settings, stone("older", 200))
            await removed(seen, b"old", b"older")

    watched(settings, body)
