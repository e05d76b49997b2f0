"""A store that dies, hangs or will not: the same calls go out again until they are answered, and act once.

Each test makes a server of its own misbehave, sees the call under way repeated, mends the server, and sees the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.backing import url_of
from tests.stores import DUP, OK, batch, claimed, opened, written
from tests.waiting import eventually, run
from workers import embedded
from workers.settings import Settings, load
from workers.store import Applied, Apply, FeedWrite, Position, Store, Write

pytestmark = [pytest.mark.redis, pytest.mark.fault]

PARTITION = 3
Mend = Callable[[], Any]


@pytest.fixture
def own_settings(own_store: embedded.Server, prefix: str) -> Settings:
    """Settings that lead to the test's own server."""
    return load(environ={}, flags={"store_url": url_of(own_store), "prefix": prefix, "kafka_partitions": 4})


@pytest.fixture
def hasty_settings(own_store: embedded.Server, prefix: str) -> Settings:
    """The same; a call is given up after 0.3 s. So may one be that a slow machine carries out later: OK becomes DUP."""
    flags = {"store_url": url_of(own_store), "prefix": prefix, "kafka_partitions": 4, "store_call_timeout_s": 0.3}
    return load(environ={}, flags=flags)


@pytest.fixture
def server(own_store: embedded.Server) -> Iterator[redis.Redis]:
    """The server itself, to be made to misbehave."""
    with redis.Redis.from_url(url_of(own_store)) as client:
        yield client


def call_of(store: Store, epoch: int, expected: int = 0, next_: int = 10) -> Apply:
    return batch(epoch, expected, next_, expected, [Write(store.state_key(PARTITION, "u-1"), 600, b"state %d" % next_)])


@asynccontextmanager
async def repeating(store: Store, call: Apply) -> AsyncIterator[asyncio.Task[list[Applied]]]:
    """The call, under way on a store in trouble: at least two attempts were made, and none was answered."""
    before = store.retries

    async def twice() -> bool:
        return store.retries >= before + 2

    task = asyncio.create_task(store.apply([call]))
    try:
        await eventually(twice)
        assert not task.done()
        assert not await store.reachable()
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_killed_store_keeps_what_it_has_written_and_the_call_goes_on(
    own_store: embedded.Server, own_settings: Settings
) -> None:
    """Killed as a process, not as a machine: what was written to its file is there, synced or not. What it had answered
    and not written is a GAP."""

    async def main() -> None:
        async with opened(own_settings) as store:
            claim = await claimed(store)
            assert await store.apply([call_of(store, claim.epoch)]) == [OK]
            await written(own_store)
            pid = own_store.pid
            os.kill(pid, signal.SIGKILL)
            own_store.kill()  # reaps it
            async with repeating(store, call_of(store, claim.epoch, 10, 20)) as task:
                own_store.start()
                assert await asyncio.wait_for(task, 45) == [OK]
            assert own_store.pid != pid
            assert await store.positions([PARTITION]) == {PARTITION: Position(20, 10, claim.epoch, "a")}
            assert await store.read_state(PARTITION, "u-1") == b"state 20"
            assert await store.reachable()

    run(main())


def test_a_hung_store_carries_a_call_out_once(own_store: embedded.Server, hasty_settings: Settings) -> None:
    """All attempts wait in the server's sockets when it wakes: one is carried out, the others change nothing."""

    async def main() -> None:
        async with opened(hasty_settings) as store:
            claim = await claimed(store)
            os.kill(own_store.pid, signal.SIGSTOP)
            try:
                async with repeating(store, call_of(store, claim.epoch)) as task:
                    os.kill(own_store.pid, signal.SIGCONT)
                    assert (await asyncio.wait_for(task, 45))[0] in (OK, DUP)
            finally:
                os.kill(own_store.pid, signal.SIGCONT)
            assert await store.positions([PARTITION]) == {PARTITION: Position(10, 0, claim.epoch, "a")}
            assert (await store.apply([call_of(store, claim.epoch, 10, 20)]))[0] in (OK, DUP)

    run(main())


def test_a_claim_that_may_have_been_made_before_does_not_name_us(
    own_store: embedded.Server, hasty_settings: Settings
) -> None:
    async def main() -> None:
        async with opened(hasty_settings) as store:
            await claimed(store, "b")
            os.kill(own_store.pid, signal.SIGSTOP)
            task = asyncio.create_task(claimed(store, "a"))
            await eventually(lambda: _is(store.retries >= 2))
            os.kill(own_store.pid, signal.SIGCONT)
            claim = await asyncio.wait_for(task, 45)
            assert claim.previous_owner in ("b", "")  # never "a", which would keep a cache that b may have outdated
            assert (await store.apply([call_of(store, claim.epoch)]))[0] in (OK, DUP)

    run(main())


async def _is(value: bool) -> bool:
    return value


def _full(server: redis.Redis) -> Mend:
    server.config_set("maxmemory", 1)
    return lambda: server.config_set("maxmemory", 0)


def _replica(server: redis.Redis) -> Mend:
    server.replicaof("127.0.0.1", 1)
    return lambda: server.replicaof("NO", "ONE")


def _without_replicas(server: redis.Redis) -> Mend:
    server.config_set("min-replicas-to-write", 1)
    return lambda: server.config_set("min-replicas-to-write", 0)


def _busy(server: redis.Redis) -> Mend:
    server.function_load(_ENDLESS)
    server.config_set("busy-reply-threshold", 1)
    port = server.get_connection_kwargs()["port"]
    with redis.Redis(port=port, socket_timeout=2.0, retry=Retry(NoBackoff(), 0)) as caller:
        assert caller.ping()  # connected: what takes too long now is the call
        with pytest.raises(redis.TimeoutError):
            caller.fcall("endless", 0)
    return server.function_kill


_ENDLESS = """#!lua name=endless
redis.register_function{
  function_name = 'endless', flags = {'no-writes'}, callback = function() while true do end end
}
"""
TROUBLES = [_full, _replica, _without_replicas, _busy]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: t.__name__.strip("_"))
def test_a_store_that_will_not_write_is_waited_for(
    own_settings: Settings, server: redis.Redis, trouble: Callable[[redis.Redis], Mend]
) -> None:
    async def main() -> None:
        async with opened(own_settings) as store:
            claim = await claimed(store)
            mend = await asyncio.to_thread(trouble, server)
            async with repeating(store, call_of(store, claim.epoch)) as task:
                await asyncio.to_thread(mend)
                assert await asyncio.wait_for(task, 45) == [OK]
            assert await store.read_state(PARTITION, "u-1") == b"state 10"

    run(main())


def test_a_store_that_loads_its_data_is_waited_for(
    own_store: embedded.Server, own_settings: Settings, server: redis.Redis
) -> None:
    async def main() -> None:
        async with opened(own_settings) as store:
            claim = await claimed(store)
            for n in range(100):
                server.set(f"filler:{n}", os.urandom(2048))
            server.bgrewriteaof()
            await eventually(lambda: _is(not server.info("persistence")["aof_rewrite_in_progress"]))
            own_store.kill()
            slowly = {"key-load-delay": "20000", "loading-process-events-interval-bytes": "1024"}  # us a key
            own_store.command += [word for name, value in slowly.items() for word in (f"--{name}", value)]
            starting = asyncio.create_task(asyncio.to_thread(own_store.start))
            async with repeating(store, call_of(store, claim.epoch)) as task:
                await eventually(lambda: _is(isinstance(store._link.trouble, redis.BusyLoadingError)))
                assert await asyncio.wait_for(task, 30) == [OK]
            await starting

    run(main())


def test_a_cluster_that_is_down_is_waited_for_and_a_partition_is_one_slot(
    own_store: embedded.Server, prefix: str
) -> None:
    own_store.kill()
    own_store.command += ["--cluster-enabled", "yes", "--cluster-port", str(embedded.free_port())]
    own_store.start()
    settings = load(environ={}, flags={"store_url": url_of(own_store), "prefix": prefix})

    async def main() -> None:
        store = await Store.connect(settings)
        try:
            task = asyncio.create_task(store.install())
            await eventually(lambda: _is(store.retries >= 2))
            with redis.Redis.from_url(settings.store.url) as server:
                server.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await asyncio.wait_for(task, 45)
            claim = await claimed(store)
            assert await store.apply([call_of(store, claim.epoch)]) == [OK]
            assert await store.put_feeds([FeedWrite(PARTITION, "u-1", 11, 1, b"{}")]) == [True]
            assert (await store.read_users(PARTITION, ["u-1", "u-2"]))[0].blob == b"state 10"
        finally:
            await store.close()

    run(main())


def test_missing_functions_are_waited_for(own_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(own_settings) as store, opened(own_settings) as deployer:
            claim = await claimed(store)
            server.function_flush("SYNC")
            async with repeating(store, call_of(store, claim.epoch)) as task:
                await deployer.install()
                assert await asyncio.wait_for(task, 45) == [OK]
            assert store.missing >= 2

    run(main())


def test_only_what_was_not_answered_is_sent_again(own_settings: Settings, server: redis.Redis) -> None:
    """One of two calls is refused for now: the other one's answer stands, a repetition would be a DUP."""

    async def main() -> None:
        async with opened(own_settings) as store:
            claims = await store.claim([0, 1], "a", [0, 1])
            calls = [batch(claims[p].epoch, 0, 5, partition=p) for p in (0, 1)]
            name = f"{own_settings.prefix}:o:{{1}}"
            guarded = _LIBRARY_WITH_A_GATE.replace("GATED", name)
            server.function_load(guarded, replace=True)
            task = asyncio.create_task(store.apply(calls))
            await eventually(lambda: _is(store.retries >= 2))
            server.set("gate", "open")
            assert await asyncio.wait_for(task, 45) == [OK, OK]

    run(main())


_LIBRARY_WITH_A_GATE = """#!lua name=headrace
redis.register_function('headrace_apply', function(keys, args)
  if keys[1] == 'GATED' and not redis.call('GET', 'gate') then return redis.error_reply('TRYAGAIN not yet') end
  if redis.call('HGET', keys[1], 'next') == args[3] then return 'DUP' end
  redis.call('HSET', keys[1], 'next', args[3])
  return 'OK'
end)
"""


def test_a_cancelled_call_leaves_the_next_one_its_own_answer(
    own_store: embedded.Server, own_settings: Settings
) -> None:
    async def main() -> None:
        async with opened(own_settings) as store:
            claim = await claimed(store)
            assert await store.apply([call_of(store, claim.epoch)]) == [OK]
            os.kill(own_store.pid, signal.SIGSTOP)
            try:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(store.read_state(PARTITION, "u-1"), 0.1)
            finally:
                os.kill(own_store.pid, signal.SIGCONT)
            assert await store.read_feed(PARTITION, "u-1") is None
            assert await store.read_state(PARTITION, "u-1") == b"state 10"

    run(main())
