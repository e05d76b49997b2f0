"""What users cost in the store: states and feeds that workers made, as the server tells, keys and expiry counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import redis

from pipeline.blob import decode
from tests.bench.topics import copy, prepare
from tests.waiting import eventually
from workers.roles import hosted
from workers.settings import Settings
from workers.store import Store

CONSUMED = 50
MOST = 500  # users that are looked at
_WITHIN_S = 300.0


async def of_states(settings: Settings) -> dict[str, Any]:
    """Of users who consumed CONSUMED items."""
    store = await Store.connect(settings)
    found: dict[bytes, int] = {}
    try:
        async for users in store.scan_users("u"):
            for partition, user in users:
                blob = await store.read_state(partition, user) or b""
                if len(decode([blob]).consumed) == CONSUMED:
                    found[store.state_key(partition, user)] = len(blob)
    finally:
        await store.close()
    return _figures(settings, found)


async def of_feeds(settings: Settings, made_by: Settings) -> dict[str, Any]:
    """Of the users of `settings`, answered by a retrieval worker of another prefix, with the settings `made_by`."""
    await prepare(made_by)
    await copy(settings, made_by, "model")
    await copy(settings, made_by, "recent")
    users = await copy(settings, made_by, "states", newest=True)
    async with hosted(made_by, ["retrieval"]) as process:

        async def answered() -> bool:
            if process.failed.done():
                process.failed.result()
            return bool(process.stats()["retrieval"]["records"] >= users)

        await eventually(answered, _WITHIN_S)
    store = await Store.connect(made_by)
    found: dict[bytes, int] = {}
    try:
        async for some in store.scan_users("f"):
            for partition, user in some:
                feed = await store.read_feed(partition, user)
                found[store.feed_key(partition, user)] = len(feed or b"")
    finally:
        await store.close()
    return _figures(made_by, found)


def _figures(settings: Settings, found: dict[bytes, int]) -> dict[str, Any]:
    """Means of at most MOST of the keys in `found`, whose values have so many bytes."""
    some = dict(list(found.items())[:MOST])
    if not some:
        raise SystemExit(f"bench: no user of {settings.prefix} has what is to be measured")
    with redis.Redis.from_url(settings.store.url) as server:
        taken = [int(server.memory_usage(key, samples=0) or 0) for key in some]
    return {
        "users": len(some),
        "value": round(float(np.mean(list(some.values())))),
        "bytes": round(float(np.mean(taken))),
    }
