"""The demo: every role in one process, a world or real ratings played at a steady rate, and figures taken from outside.

The order: topics and functions, roles, catalogue (through the catalog worker), events, drain, audit. Nothing is
reported that a worker says of itself, but for the live hit rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from workers import topics
from workers.demo.gauge import Gauge, live
from workers.importers.dataset import Dataset
from workers.importers.play import Player
from workers.outside.audit import audit
from workers.outside.drain import drained, settled
from workers.outside.screen import Figures
from workers.outside.watch import Watch, following
from workers.producer import Producer
from workers.roles import ROLES, Process, hosted
from workers.settings import Settings
from workers.store import Store

T = TypeVar("T")
Show = Callable[[Figures], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played, and how."""

    title: str
    dataset: Dataset
    rate: float  # events/s
    host: bool  # run the roles in this process; else play to workers that run already
    stay: bool  # when all is played, go on showing until interrupted
    broker: str  # as it is reported


async def play(settings: Settings, plan: Plan, show: Show | None, every_s: float = 0.25) -> dict[str, Any]:
    """Play the plan; figures go to `show` all the while, the report is returned.

    An interrupt ends the playing; what was played is still drained and audited; another one ends that too. Raises what
    a role died of.
    """
    async with _stage(settings, plan) as stage:
        _on_interrupt(stage.end)
        showing = asyncio.create_task(stage.show(show, every_s)) if show is not None else None
        try:
            await stage.guard(stage.perform())
            return await stage.guard(stage.report())
        finally:
            if showing is not None:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)


def flawless(report: dict[str, Any]) -> bool:
    """Whether everything that was played was taken, announced and answered."""
    return not any(report[name] for name in ("dead_letters", "lag", "stale_users", "unannounced"))


def _on_interrupt(end: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def once() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        end()

    for number in numbers:
        loop.add_signal_handler(number, once)


@contextlib.asynccontextmanager
async def _stage(settings: Settings, plan: Plan) -> AsyncIterator[Stage]:
    """Topics, functions, roles and the watch: all that must run before the first event."""
    async with contextlib.AsyncExitStack() as stack:
        await topics.ensure(settings)
        store = await Store.connect(settings)
        stack.push_async_callback(store.close)
        await store.install()
        producer = await Producer(settings).start()
        stack.push_async_callback(producer.stop)
        process = await stack.enter_async_context(hosted(settings, ROLES)) if plan.host else None
        stage = Stage(settings, plan, store, producer, process)
        for follower in stage.watch.followers:
            stage.vital.append(await stack.enter_async_context(following(follower)))
        await stage.guard(stage.begin())
        yield stage


class Stage:
    """A demo that runs."""

    def __init__(
        self, settings: Settings, plan: Plan, store: Store, producer: Producer, process: Process | None
    ) -> None:
        self.watch = Watch(settings)
        self._settings, self._plan, self._store, self._process = settings, plan, store, process
        self._player = Player(settings, producer, self.watch.wrote)
        self._gauge = Gauge(plan.title, self.watch)
        self._ended = asyncio.Event()
        self.vital: list[asyncio.Future[Any]] = [process.failed] if process is not None else []

    async def begin(self) -> None:
        """Wait until the watch sees everything and every lane works."""
        await asyncio.gather(*(follower.caught_up.wait() for follower in self.watch.followers))
        if self._process is not None:
            await self._process.ready()

    def end(self) -> None:
        """Stop playing: an interrupt."""
        self._player.stop()
        self._ended.set()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` unless a role or the watch dies: then raise what it died of."""
        task: asyncio.Future[T] = asyncio.ensure_future(work)
        await asyncio.wait({task, *self.vital}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await next(dead for dead in self.vital if dead.done())
        return await task

    async def perform(self) -> None:
        """Load the catalogue through the catalog worker, play the stream, and stay if that is the plan."""
        self._gauge.note = "loading the catalogue"
        await self._player.play(self._plan.dataset.catalog)
        await settled(self._unlisted)
        self._gauge.note = "Ctrl-C ends"
        await self._player.play(self._plan.dataset.stream, self._plan.rate)
        if self._plan.stay and not self._ended.is_set():
            self._gauge.note = "all is played; Ctrl-C ends"
            await self._ended.wait()

    async def show(self, show: Show, every_s: float) -> None:
        """Hand figures to `show`, again and again."""
        while True:
            show(self._gauge.figures(self._player.events, self._live()))
            await asyncio.sleep(every_s)

    async def report(self) -> dict[str, Any]:
        """Drain, read the topics back, and say what was found."""
        self._gauge.note = "reading everything back"
        lag = await drained(self._settings, self._store, self._process.lag if self._process is not None else lambda: 0)
        unlisted = await settled(self._unlisted)
        found = await audit(self._settings)
        return {
            "events": self._player.events,
            "feeds": found.feeds,
            "users": len(found.newest),
            "items": len(self.watch.listed),
            "dead_letters": found.dead_letters,
            "lag": lag.total + unlisted,
            "stale_users": len(found.stale),
            "unannounced": len(found.unannounced),
            "event_to_feed_ms": self.watch.percentiles(),
            "broker": self._plan.broker,
            "store": (await self._store.show())["server"],
            "live": self._live(),
        }

    def _live(self) -> dict[str, float]:
        return live(self._process.stats()) if self._process is not None else {}

    async def _unlisted(self) -> int:
        return self.watch.unlisted
