"""A running pipeline, hands to write to it, and eyes on what comes out: what tests of the whole path share."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from tests.waiting import eventually
from workers.outside.audit import read_back
from workers.outside.watch import following
from workers.producer import Producer
from workers.replica import Follower
from workers.roles import ROLES, Process, hosted
from workers.settings import Settings
from workers.store import Store
from workers.wire.feed import Feed, read_feed, read_pair
from workers.wire.output import Output
from workers.wire.partition import partition_of

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]

FAST: dict[str, Any] = {
    "model_flush_s": 0.2,
    "feed_default_every_s": 0.2,
    "feed_sources": 100,  # all that proposed an item
    "kafka_session_timeout_s": 6.0,
}
WHOLE = 200  # a feed of this size holds all that may be shown: what is missing was hidden
WATCHED = ("states", "feeds", "catalog", "dead-letters")


class Pipeline:
    """Roles that run in this process. `seen` holds every record of the watched topics, in order of arrival."""

    def __init__(self, settings: Settings, process: Process, producer: Producer, store: Store) -> None:
        self.settings, self.process, self.producer, self.store = settings, process, producer, store
        self.seen: dict[str, list[Any]] = {dataset: [] for dataset in WATCHED}
        self._ends: defaultdict[int, int] = defaultdict(int)  # of events: only this writes there

    # ---------------------------------------------------------------- writing
    def home(self, user: str) -> int:
        """The partition of a user."""
        return partition_of(user.encode(), self.settings.kafka.partitions, self.settings.partitioner)

    async def write(self, user: str, value: bytes, headers: dict[str, str] | None = None) -> int:
        """A record of `events`; the version of a feed that knows it."""
        partition = self.home(user)
        await self.send("events", user, value, headers, partition)
        self._ends[partition] += 1
        return self._ends[partition]

    async def act(self, user: str, item: str | None = None, action: str = "click", **more: Any) -> int:
        """An event; the version of a feed that knows it."""
        named = {} if item is None else {"item_id": item}
        return await self.write(user, json.dumps({"user_id": user, "action": action, **named, **more}).encode())

    async def publish(self, item: str, **fields: Any) -> None:
        """An item; returns when the catalogue has it."""
        await self.put_item(item, json.dumps({"item_id": item, **fields}).encode())

    async def delete(self, item: str) -> None:
        """An item's null; returns when its gravestone stands."""
        await self.put_item(item, None)

    async def put_item(self, item: str, value: bytes | None) -> None:
        """A record of `items`; returns when something of the item came out of the catalog worker."""
        before = len(self.of("catalog", item))
        await self.send("items", item, value)

        async def came() -> bool:
            return len(self.of("catalog", item)) > before

        await eventually(came)

    async def send(
        self, dataset: str, key: str, value: bytes | None, headers: dict[str, str] | None = None, *partition: int
    ) -> None:
        """A record of any topic, where its key belongs unless told otherwise."""
        pairs = [(name, text.encode()) for name, text in (headers or {}).items()]
        await self.producer.send([Output(self.settings.topic(dataset), key.encode(), value, pairs, *partition)])

    # ---------------------------------------------------------------- looking
    def of(self, dataset: str, key: str) -> list[Any]:
        """The records of a key so far."""
        return [record for record in self.seen[dataset] if record.key == key.encode()]

    async def answer(self, user: str, version: int) -> Any:
        """The record of the first feed that knows the user's event of `version`."""

        async def newest() -> Any:
            found = [
                r for r in self.of("feeds", user) if r.value is not None and read_pair(r.headers).version >= version
            ]
            return found[0] if found else None

        return await eventually(newest)

    async def feed(self, user: str, item: str | None = None, action: str = "profile", **more: Any) -> Feed:
        """What the user is shown after one more event; a `profile` teaches the model nothing."""
        if action == "profile":
            more = {"attributes": more}
        return read_feed((await self.answer(user, await self.act(user, item, action, **more))).value)

    async def shown(self, user: str, **attributes: Any) -> list[str]:
        """The ids of what the user is shown with a profile of these attributes."""
        return [item.item_id for item in (await self.feed(user, **attributes)).items]

    async def until_shown(self, user: str, *items: str) -> list[str]:
        """What the user is shown once `items` are among it: workers follow catalogue and model a moment behind."""

        async def there() -> list[str]:
            shown = await self.shown(user)
            return shown if set(items) <= set(shown) else []

        return await eventually(there)

    async def until_hidden(self, user: str, *items: str) -> list[str]:
        """What the user is shown once none of `items` is among it."""

        async def gone() -> list[str]:
            shown = await self.shown(user)
            return [] if set(items) & set(shown) else shown

        return await eventually(gone)

    async def counted(self, role: str, name: str, times: int = 1) -> int:
        """A counter of a role, once it has come to `times`."""

        async def enough() -> int:
            count = int(self.process.stats()[role].get(name, 0))
            return count if count >= times else 0

        return await eventually(enough)


@asynccontextmanager
async def pipeline(settings: Settings, roles: Sequence[str] = ROLES) -> AsyncIterator[Pipeline]:
    """Host roles in the running loop, and watch; ends when all is stopped. A role that died fails the block's end."""
    async with AsyncExitStack() as stack:
        store = await Store.connect(settings)
        stack.push_async_callback(store.close)
        producer = await Producer(settings).start()
        stack.push_async_callback(producer.stop)
        process = await stack.enter_async_context(hosted(settings, roles))
        piped = Pipeline(settings, process, producer, store)
        for dataset, records in piped.seen.items():
            await stack.enter_async_context(following(Follower(settings, settings.topic(dataset), records.extend)))
        await asyncio.wait_for(process.ready(), 60)
        yield piped
        if process.failed.done():
            process.failed.result()


@contextmanager
def piped(settings: Settings) -> Iterator[tuple[Pipeline, Run[Any]]]:
    """A pipeline for several tests, and what runs a coroutine in its loop. It stands still between two runs."""
    with asyncio.Runner() as runner:
        running = pipeline(settings)
        made = runner.run(running.__aenter__())

        def run(body: Awaitable[Any]) -> Any:
            async def bounded() -> Any:
                return await asyncio.wait_for(body, 120)

            return runner.run(bounded())

        try:
            yield made, run
        finally:
            runner.run(running.__aexit__(None, None, None))


async def read(settings: Settings, dataset: str) -> list[Any]:
    """Every record of a topic."""
    found: list[Any] = []
    await read_back(settings, dataset, found.extend)
    return found
