"""What a store must be before it is used, and what a user costs in it; on Redis and on Valkey."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import numpy as np
import pytest
import redis

from pipeline.state import Users, advance, stamp
from pipeline.types import CONSUMES, POSITIVE, Events, hash_id
from tests.backing import url_of
from tests.bench.costs import School, Size
from tests.stores import OK, batch, claimed, opened
from tests.waiting import run
from workers import embedded
from workers.feeds import CHUNK, Asked, FeedMaker
from workers.settings import Settings, load
from workers.store import FeedWrite, FunctionsMissing, Store, StoreError, StoreRefused, StoreUnavailable, Write
from workers.wire.feed import read_feed
from workers.wire.state import Cause

pytestmark = pytest.mark.redis

KB = 1024


def test_a_store_is_used_only_with_its_contract(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            await store.check()
            await store.install()  # again: nothing changes
            await store.check()
            shown = await store.show()
            assert shown["library"]["expected"] == shown["library"]["found"]
            assert shown["meta"]["expected"] == shown["meta"]["found"] == {
                "layout": "1", "dimension": "64", "partitions": "4", "partitioner": "murmur2", "clock": "wall",
            }  # fmt: skip
            assert (shown["policy"], shown["append_only"]) == ("noeviction", True)
            assert shown["server"].split()[0] in ("Redis", "Valkey")

    run(main())


def test_a_prefix_without_contract_waits_for_apply(store_settings: Settings) -> None:
    async def main() -> None:
        store = await Store.connect(store_settings)
        try:
            with pytest.raises(FunctionsMissing, match=r"found none.*run `headrace store apply`"):
                await store.check()
        finally:
            await store.close()

    run(main())


CHANGES = [
    ("model_dimension", 32, "dimension = 32, found 64"),
    ("kafka_partitions", 8, "partitions = 8, found 4"),
    ("partitioner", "crc32", "partitioner = crc32, found murmur2"),
    ("clock", "stream", "clock = stream, found wall"),
]


@pytest.mark.parametrize(("name", "value", "message"), CHANGES, ids=[name for name, _, _ in CHANGES])
def test_another_contract_is_refused(store_settings: Settings, name: str, value: Any, message: str) -> None:
    flags = {"store_url": store_settings.store.url, "prefix": store_settings.prefix, "kafka_partitions": 4, name: value}

    async def main() -> None:
        async with opened(store_settings) as first:
            other = await Store.connect(load(environ={}, flags=flags))
            try:
                for use in (other.check, other.check_meta, other.install):
                    with pytest.raises(StoreRefused, match=message):
                        await use()
            finally:
                await other.close()
            await first.check()  # the refused one has changed nothing

    run(main())


def test_another_layout_is_refused(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            server.hset(f"{store_settings.prefix}:meta", "layout", "2")
            with pytest.raises(StoreRefused, match="layout = 1, found 2"):
                await store.check()

    run(main())


def test_a_missing_store_is_one_line_in_time(prefix: str) -> None:
    flags = {"store_url": "redis://:secret@127.0.0.1:1/0", "prefix": prefix, "store_connect_timeout_s": 0.3}
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 did not answer within 0\.3 s") as error:
        run(Store.connect(load(environ={}, flags=flags)), within_s=30)
    assert "secret" not in str(error.value)


def test_a_bad_option_of_an_address_is_one_line(prefix: str) -> None:
    with pytest.raises(StoreRefused, match=r"cannot use store\.url"):
        run(Store.connect(load(environ={}, flags={"store_url": "redis://127.0.0.1/0?nope=1", "prefix": prefix})))


def test_what_is_no_redis_is_one_line(prefix: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
            url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            with pytest.raises(StoreError, match="does not talk to us as a Redis does"):
                await Store.connect(load(environ={}, flags={"store_url": url, "prefix": prefix}))

    run(main())


def test_an_evicting_store_is_refused(own_store: embedded.Server, prefix: str) -> None:
    settings = load(environ={}, flags={"store_url": url_of(own_store), "prefix": prefix})

    async def main() -> None:
        async with opened(settings) as store:
            with redis.Redis.from_url(settings.store.url) as server:
                server.config_set("maxmemory-policy", "allkeys-lru")
            with pytest.raises(StoreRefused, match="expected maxmemory-policy noeviction, found allkeys-lru"):
                await store.check()

    run(main())


def test_another_version_of_the_functions_is_refused(own_store: embedded.Server, prefix: str) -> None:
    settings = load(environ={}, flags={"store_url": url_of(own_store), "prefix": prefix})

    async def main() -> None:
        async with opened(settings) as store:
            with redis.Redis.from_url(settings.store.url) as server:
                other = "#!lua name=headrace\nredis.register_function('headrace_claim', function() return 1 end)"
                server.function_load(other, replace=True)
            with pytest.raises(FunctionsMissing, match=r"expected functions headrace \w{16}, found \w{16}; run"):
                await store.check()
            await store.install()
            await store.check()

    run(main())


def test_a_wrong_password_is_one_line(own_store: embedded.Server, prefix: str) -> None:
    url = url_of(own_store).replace("redis://", "redis://:wrong@")
    with redis.Redis.from_url(url_of(own_store)) as server:
        server.config_set("requirepass", "right")
    for given in (url, url_of(own_store)):
        with pytest.raises(StoreRefused, match="refused user or password") as error:
            run(Store.connect(load(environ={}, flags={"store_url": given, "prefix": prefix})), within_s=30)
        assert "wrong" not in str(error.value)
    right = load(environ={}, flags={"store_url": url.replace("wrong", "right"), "prefix": prefix})

    async def main() -> None:
        async with opened(right) as store:
            await store.check()

    run(main())


# ------------------------------------------------------------------ memory


def typical_state() -> bytes:
    """The state of a user after 50 events, each with an id of its own, that consumed 50 items."""
    m = 50
    number = np.arange(m)
    hashes = np.array([hash_id(f"i-{n}") for n in number], dtype=np.uint64)
    events = Events(
        user=np.zeros(m, np.int64),
        offset=1_000_000 + number,
        time=1_795_000_000_000 + 1000 * number,
        item=hashes,
        id=hashes,
        action=np.full(m, 3, np.uint8),
        effect=np.full(m, POSITIVE | CONSUMES, np.uint8),
        attributes=[],
    )
    none = np.array([-1], np.int64)
    after = advance(Users([b""], forgotten_time=none, forgotten_version=np.zeros(1, np.int64)), events, 64)
    vectors = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    return stamp(after, vectors, 1, 1)[0]


def served(settings: Settings) -> list[FeedWrite]:
    """Feeds as the retrieval worker makes them by default, on a model that learned a small load: of many sources, with
    reasons, caused by events with a UUID."""
    school, now = School(Size(items=1_000, history=5)), int(time.time() * 1000)
    school.attend()
    maker = FeedMaker(settings, school.model, school.catalog)
    maker.warm_up()  # `took_us` is in the feed
    asked = [
        Asked(f"u-{user:012}", 3, school.blobs[user], Cause(str(uuid.uuid4()), now, None, None, 1_000_000))
        for user in school.guests()[:CHUNK]
    ]
    return [FeedWrite(3, made.asked.user, made.version, made.revision, made.value) for made in maker.make(asked, now)]


def test_a_user_costs_what_the_docs_say(store_settings: Settings, server: redis.Redis) -> None:
    """Measured with the key, by the server: Redis 7.0 takes 1,368 bytes a state and 2,832 a feed of 2.4 KB of JSON."""
    user, state, feeds = "u-123456789012", typical_state(), served(store_settings)
    assert 1000 <= len(state) <= 1100
    items = [item for one in feeds for item in read_feed(one.feed).items]
    assert len(items) == 10 * len(feeds)
    assert all(item.sources and item.parts for item in items)
    assert any(len(item.because) == 2 for item in items)

    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            writes = [Write(store.state_key(3, user), store.state_ttl_s, state)]
            assert await store.apply([batch(claim.epoch, 0, 1, 0, writes)]) == [OK]
            assert all(await store.put_feeds(feeds))
            assert 1000 < cost(store.state_key(3, user)) <= 1.45 * KB
            costs = [cost(store.feed_key(3, one.user)) for one in feeds]
            assert all(taken > len(one.feed) for taken, one in zip(costs, feeds, strict=True))
            assert np.mean(costs) <= 2.8 * KB

    def cost(key: bytes) -> int:
        return server.memory_usage(key, samples=0) or 0

    run(main())
