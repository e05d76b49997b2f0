"""What the tests of the store share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import redis

from tests.backing import url_of
from tests.waiting import eventually
from workers.embedded import Server
from workers.settings import Settings
from workers.store import Applied, Apply, Claim, Store, Write

OK, DUP, FENCED, LOST = Applied("OK"), Applied("DUP"), Applied("FENCED"), Applied("LOST")
DAY_S = 86_400


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    """A store with its functions."""
    store = await Store.connect(settings)
    try:
        await store.install()
        yield store
    finally:
        await store.close()


def batch(
    epoch: int, expected: int, next_: int, sent: int = 0, writes: Sequence[Write] = (), partition: int = 3
) -> Apply:
    return Apply(partition, epoch, expected, next_, sent, writes)


async def claimed(store: Store, owner: str = "a", partition: int = 3) -> Claim:
    return (await store.claim([partition], owner, [partition]))[partition]


async def written(server: Server) -> None:
    """Wait until all that a Redis with a file of calls has answered is written there, synced or not: while a sync of
    a second ago is under way it answers before it writes, and a kill then loses what it has answered."""
    with redis.Redis.from_url(url_of(server)) as client:

        async def whole() -> bool:
            found: dict[str, int] = client.info("persistence")
            return found["aof_buffer_length"] == 0

        await eventually(whole)
