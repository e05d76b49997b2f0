"""Redis is slow, hangs, is full, read-only, loads its data, or has lost its functions: one after the other, under load.

While it will not write, nothing is acknowledged: no position moves, nothing is announced. A slow one is waited for, and
work goes on. Each time the same worker recovers by itself. Users equal byte for byte.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import redis

from tests.backing import url_of
from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.processes import Worker
from tests.faults.proxy import Proxy, proxied
from tests.faults.run import FAST, Run
from tests.waiting import eventually
from workers.embedded import HOST, Server

pytestmark = pytest.mark.slow

IMPATIENT = {"HEADRACE_STORE_CALL_TIMEOUT_S": "2"}  # a hung store is noticed sooner
FILLER = 200  # keys that make loading slow
SLOWLY = {"key-load-delay": "20000", "loading-process-events-interval-bytes": "1024"}  # us a key

Trouble = Callable[[Server], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def hung(store: Server) -> AsyncIterator[None]:
    """It takes calls and answers none; when it wakes up it carries all of them out, given up or not."""
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)


@asynccontextmanager
async def full(store: Server) -> AsyncIterator[None]:
    """OOM."""
    with client(store) as server:
        server.config_set("maxmemory", 1)
        yield
        server.config_set("maxmemory", 0)


@asynccontextmanager
async def read_only(store: Server) -> AsyncIterator[None]:
    """READONLY: it became the replica of a primary that is not there."""
    with client(store) as server:
        server.replicaof(HOST, "1")
        yield
        server.replicaof("NO", "ONE")


@asynccontextmanager
async def without_functions(store: Server) -> AsyncIterator[None]:
    """FUNCTION FLUSH; `headrace store apply` mends it."""
    with client(store) as server:
        (library,) = server.function_list(library="headrace", withcode=True)
        server.function_flush("SYNC")
        yield
        server.function_load(dict(zip(library[::2], library[1::2], strict=True))[b"library_code"])


@asynccontextmanager
async def loading(store: Server) -> AsyncIterator[None]:
    """LOADING: it was killed, and reads its data back slowly."""
    with client(store) as server:
        for n in range(FILLER):
            server.set(f"filler:{n}", os.urandom(2048))
        server.bgrewriteaof()
        await eventually(lambda: asyncio.to_thread(rewritten, server))
    store.kill()
    command = list(store.command)
    store.command += [word for name, value in SLOWLY.items() for word in (f"--{name}", value)]
    starting = asyncio.create_task(asyncio.to_thread(store.start))
    try:
        with client(store) as server:
            await eventually(lambda: asyncio.to_thread(loads, server))
            yield
            server.config_set("key-load-delay", 0)
    finally:
        await starting
        store.command = command


def client(store: Server) -> redis.Redis:
    return redis.Redis.from_url(url_of(store))


def rewritten(server: redis.Redis) -> bool:
    return not server.info("persistence")["aof_rewrite_in_progress"]


def loads(server: redis.Redis) -> bool:
    try:
        return bool(server.info("persistence")["loading"])
    except redis.ConnectionError:  # it does not listen yet
        return False


TROUBLES: dict[str, Trouble] = {
    "hung": hung,
    "OOM": full,
    "READONLY": read_only,
    "FUNCTION FLUSH": without_functions,
    "LOADING": loading,
}
READABLE = {"OOM", "READONLY", "FUNCTION FLUSH"}


def outages(worker: Worker) -> int:
    """How often the worker began to repeat a call."""
    return worker.logged("store not ready") + worker.logged("store functions missing")


async def stands_still(run: Run, worker: Worker, store: Server, name: str, events: int) -> None:
    """From when the worker has met the trouble until so many more events wait, nothing is announced, and no position
    moves where the store tells positions."""
    before = outages(worker)
    async with TROUBLES[name](store):

        async def met() -> bool:
            return outages(worker) > before

        await eventually(met, within_s=60)
        announced = await run.log_ends("states")
        stood = await run.positions() if name in READABLE else None
        waiting = run.driver.sent

        async def piled_up() -> bool:
            return run.driver.sent - waiting >= events

        await eventually(piled_up, within_s=300)
        assert await run.log_ends("states") == announced, "announced what the store did not take"
        if stood is not None:
            assert await run.positions() == stood, "a position moved in a store that will not write"


@pytest.mark.parametrize("own_store", ["any"], indirect=True)
def test_redis_unwilling(fault: Fault, make_settings: MakeSettings, own_store: Server) -> None:
    rounds = fault.amount("rounds", short=1, long=3)
    events = fault.amount("events while it will not", short=300, long=5_000)

    async def proof(run: Run, proxy: Proxy) -> None:
        worker = run.spawn(**IMPATIENT)
        async with run.load():
            await run.all_moving()
            for _ in range(rounds):
                proxy.delay(0.5)
                await run.all_moving()
                proxy.forward()
                for name in TROUBLES:
                    await stands_still(run, worker, own_store, name, events)
                    fault.bit(name, 1)
                    fault.recovered(await run.all_moving())
        await fault.settled(run)
        fault.bit("slow answers", proxy.delayed)
        assert worker.runs

    with proxied(own_store.port) as proxy:
        settings = make_settings(**FAST, store_url=f"redis://{HOST}:{proxy.port}/0")
        fault.prove(settings, lambda run: proof(run, proxy))
