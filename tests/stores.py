"""What the tests of the store share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

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
