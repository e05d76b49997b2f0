"""The roles of a process: what each consists of, and how a process runs one, some or all of them.

Everything that a handler needs is made here and given to it: store, producer, replicas, lanes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop

from workers import kafka, kernels, topics
from workers.allocator import keep_freed_memory
from workers.app import STOP_WITHIN_S, Host, OnRecords, Part, hosting
from workers.batching import NEWEST_WINS, Limits
from workers.catalog import CatalogHandler, Keeper
from workers.embedding import EmbeddingHandler
from workers.health import Health, Heartbeat
from workers.items import ItemReplica
from workers.lane import Lane
from workers.positions import GroupPositions, StoredPositions
from workers.producer import Producer
from workers.recent import RecentReplica
from workers.recipes import recipe_of
from workers.retrieval import DefaultFeed, RetrievalHandler
from workers.settings import Settings
from workers.store import FunctionsMissing, Store
from workers.trainer import TrainerCore
from workers.wire.rules import Rules
from workers.writer import ModelWriter

log = structlog.get_logger()

ROLES = ("embedding", "trainer", "retrieval", "catalog")


class CaughtUpLane:
    """A lane that joins its group when the items it needs are in memory, not before."""

    def __init__(self, lane: Lane, caught_up: Callable[[], Awaitable[None]]) -> None:
        self.lane = lane
        self._caught_up = caught_up
        self._stop = asyncio.Event()

    async def run(self) -> None:
        waits = [asyncio.ensure_future(self._caught_up()), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if not self._stop.is_set():
            await self.lane.run()

    def stop(self) -> None:
        self._stop.set()
        self.lane.stop()


class Process:
    """The roles of one process, hosted by one Faust app."""

    def __init__(self, settings: Settings, roles: Sequence[str], *, accept_loss: bool = False) -> None:
        """Nothing is connected yet. Raises SettingsError for a recipe that nobody knows."""
        if {"trainer", "retrieval"} & set(roles):
            recipe_of(settings)  # a mistake is said before broker and store are waited for
        self.settings, self.roles = settings, tuple(roles)
        self._accept_loss = accept_loss
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._parts: list[Part] = []
        self._agent: tuple[str, OnRecords] | None = None
        self._resources = contextlib.AsyncExitStack()
        self._warm: list[Callable[[], None]] = []
        self._ready: list[asyncio.Event] = []
        self._stats: list[Callable[[], dict[str, Any]]] = []
        self._lag: list[Callable[[], int]] = []
        self._host: Host | None = None

    async def start(self) -> None:
        """Connect, build the roles, run them.

        Raises StoreUnavailable, BrokerUnavailable, StoreRefused, TopicsRefused.
        """
        keep_freed_memory()
        try:
            async with self._beating():
                await self._build()
                self._warm_up()
                self._host = await self._resources.enter_async_context(hosting(self._hosted()))
        except BaseException:
            await self._resources.aclose()
            raise

    async def stop(self) -> None:
        """Stop every role within 20 s, then let go of broker and store."""
        await self._resources.aclose()

    @property
    def failed(self) -> asyncio.Future[None]:
        """Done, with the error, when a role has died: the process must end."""
        if self._host is None:
            raise RuntimeError("the process was not started")
        return self._host.failed

    async def ready(self) -> None:
        """Wait until every lane has claimed what its group gave it. Raises what a role died of."""
        waiting: asyncio.Future[Any] = asyncio.gather(*(event.wait() for event in self._ready))
        try:
            await asyncio.wait([waiting, self.failed], return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                self.failed.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    def health(self) -> Health:
        """Whether it is ready now, and how far behind it is. Nothing is ready while it starts."""
        return Health(self._host is not None and all(event.is_set() for event in self._ready), self.lag())

    def stats(self) -> dict[str, Any]:
        """Counters of every role, by name."""
        merged: dict[str, Any] = {}
        for stats in self._stats:
            merged |= stats()
        return merged

    def lag(self) -> int:
        """Records not yet behind this process: high watermark - position, over lanes, replicas and the agent."""
        return sum(lag() for lag in self._lag)

    @contextlib.asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        """Live, though not ready, while servers and functions are waited for; then the hosted heartbeat goes on."""
        if not self.settings.health_file:
            yield
            return
        heartbeat = Heartbeat(Path(self.settings.health_file), self.health)
        beating = asyncio.create_task(heartbeat.run())
        try:
            yield
            beating.cancel()
        finally:
            heartbeat.stop()  # of one that did not start no sign of life is left
            await asyncio.gather(beating, return_exceptions=True)

    def _warm_up(self) -> None:
        """Load or compile kernels now: nobody waits for us yet, and there is no heartbeat to miss."""
        with _ends_at_once():
            if not kernels.compiled():
                log.warning("compiling kernels, once for this version on this machine: about half a minute")
            for warm in self._warm:
                warm()

    # ---------------------------------------------------------------- what each role consists of
    async def _build(self) -> None:
        if {"embedding", "retrieval"} & set(self.roles):
            await topics.check(self.settings)
        replica = self._replica() if {"embedding", "retrieval"} & set(self.roles) else None
        for role in self.roles:
            await getattr(self, f"_build_{role}")(replica)
        if self.settings.health_file:
            self._parts.append(Heartbeat(Path(self.settings.health_file), self.health))

    def _replica(self) -> ItemReplica:
        """The items in memory; for retrieval also what all users did lately. Lanes wait until both have caught up."""
        replica = ItemReplica(self.settings, catalog="retrieval" in self.roles)
        self._stats.append(lambda: {"items": dict(replica.counts)})
        if "retrieval" in self.roles:
            recent = RecentReplica(self.settings, Rules.of(self.settings), replica.model)
            replica.parts.append(recent.follower)
            self._warm.append(recent.warm_up)
            self._stats.append(lambda: {"recent": dict(recent.counts)})
        self._parts += replica.parts
        self._lag.append(replica.lag)
        return replica

    async def _build_embedding(self, replica: ItemReplica) -> None:
        store, producer = await self._store(), await self._producer()
        handler = EmbeddingHandler(self.settings, store, Rules.of(self.settings), replica.model)
        topic = self.settings.topic("events")
        positions = StoredPositions(
            store, topic, self._owner, accept_loss=self._accept_loss, ends_told=await self._ends_told()
        )
        lane = Lane(
            self.settings,
            topic,
            self.settings.topic("embedding"),
            positions,
            handler,
            producer,
            Limits(),
        )
        self._add_lane(
            "embedding", lane, replica, handler.warm_up, lambda: {**handler.counts, "retries": store.retries}
        )

    async def _build_retrieval(self, replica: ItemReplica) -> None:
        store, producer = await self._store(), await self._producer()
        handler = RetrievalHandler(self.settings, Rules.of(self.settings), replica.model, replica.catalog)
        topic = self.settings.topic("states")
        positions = GroupPositions(store, topic, ends_told=await self._ends_told())
        lane = Lane(
            self.settings,
            topic,
            self.settings.topic("retrieval"),
            positions,
            handler,
            producer,
            NEWEST_WINS,
        )
        self._add_lane(
            "retrieval", lane, replica, handler.warm_up, lambda: {**handler.stats(), "retries": store.retries}
        )
        self._parts.append(DefaultFeed(self.settings, store, handler, replica.caught_up))

    def _add_lane(
        self,
        name: str,
        lane: Lane,
        replica: ItemReplica,
        warm_up: Callable[[], None],
        stats: Callable[[], dict[str, Any]],
    ) -> None:
        self._parts.append(CaughtUpLane(lane, replica.caught_up))
        self._warm.append(warm_up)
        self._ready.append(lane.claimed)
        self._lag.append(lane.lag)
        self._stats.append(lambda: {name: {**lane.counts, **lane.positions.counts, **stats(), "lag": lane.lag()}})

    async def _build_trainer(self, _: ItemReplica | None) -> None:
        make = functools.partial(TrainerCore, self.settings, Rules.of(self.settings))
        writer = ModelWriter(self.settings, await self._producer(), self._owner, make)
        self._parts.append(writer)
        self._warm.append(writer.core.warm_up)
        self._ready.append(writer.standing_by)
        self._lag.append(writer.lag)
        self._stats.append(lambda: {"trainer": {**writer.core.counts, "terms": writer.terms, "lag": writer.lag()}})

    async def _build_catalog(self, _: ItemReplica | None) -> None:
        producer = await self._producer()
        keeper = Keeper(self.settings, producer)
        handler = CatalogHandler(self.settings, producer, keeper)
        self._parts += [keeper.follower, keeper]
        self._warm.append(handler.warm_up)
        self._ready.append(keeper.follower.caught_up)
        self._lag.append(keeper.follower.lag)
        self._agent = (self.settings.topic("items"), handler.handle)
        self._stats.append(lambda: {"catalog": dict(handler.counts)})

    def _hosted(self) -> Host:
        host = Host(self.settings, f"{self.settings.prefix}-catalog", self._parts)  # whatever roles run beside it
        if self._agent is not None:
            host.agent(*self._agent, most=500, within_s=0.05)
            self._lag.append(host.lag)
        return host

    async def _store(self) -> Store:
        """A connection of its own a role: one role's large call must not hold another's up."""
        store = await Store.connect(self.settings)
        self._resources.push_async_callback(store.close)
        await _wait_for_functions(store)
        return store

    async def _ends_told(self) -> bool:
        return (await kafka.wait_for_broker(self.settings)).tells_ends

    async def _producer(self) -> Producer:
        producer = await Producer(self.settings).start()
        self._resources.push_async_callback(producer.stop)
        return producer


@contextlib.contextmanager
def _ends_at_once() -> Iterator[None]:
    """While kernels are compiled the loop stands still, and with it what the loop makes of a SIGTERM: the process ends
    here and now. Nothing is claimed yet."""
    handled = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(handled):
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handled)


async def _wait_for_functions(store: Store) -> None:
    """A store that misses its functions or its contract will get them; any other refusal is final."""
    said = False
    while True:
        try:
            return await store.check()
        except FunctionsMissing as missing:
            if not said:
                log.warning("waiting for the store's functions", reason=str(missing))
                said = True
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def hosted(settings: Settings, roles: Sequence[str]) -> AsyncIterator[Process]:
    """Run roles in the running loop: for the demo, tests and benchmarks."""
    process = Process(settings, roles)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


async def _serve(settings: Settings, roles: Sequence[str], accept_loss: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    process = Process(settings, roles, accept_loss=accept_loss)
    if not await _started(process, stopping):
        return
    calm_the_collector()
    log.info("running", roles=list(roles), prefix=settings.prefix)
    await asyncio.wait([stopping, process.failed], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    # Nothing that is unfinished was acknowledged: leaving hard after the time is safe, hanging is not.
    loop.call_later(STOP_WITHIN_S + 5, os._exit, 1)
    await process.stop()
    for name, counts in process.stats().items():
        log.info("stopped", part=name, **counts)
    if process.failed.done():
        process.failed.result()


async def _started(process: Process, stopping: asyncio.Future[Any]) -> bool:
    """Start; False when it is to stop before that is done, for a missing broker or store is waited for."""
    starting: asyncio.Future[None] = asyncio.ensure_future(process.start())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return False
    starting.result()
    return True


def calm_the_collector() -> None:
    """What is here now stays. The rest is looked through once a quarter of a million objects more are alive than at the
    last time: a round of records holds fewer, so a lane that leaves no cycles is not held up (it was, by a fifth)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(250_000, 20, 100)


def run(settings: Settings, roles: Sequence[str], *, accept_loss: bool = False) -> None:
    """Host `roles` until SIGTERM or SIGINT; returns when all is stopped. Raises what a role died of."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, roles, accept_loss))
