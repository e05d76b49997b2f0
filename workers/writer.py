"""Becoming and being the one writer of the item model: follow, be elected, write until another epoch appears.

One term of office is one model in memory. Whoever is deposed throws the model away and follows anew: what it had
learned and not published is learned again by the new writer, from the same log.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import structlog

from workers.app import Part
from workers.election import Election
from workers.failpoints import fail_point
from workers.producer import Producer
from workers.replica import GATHER_MS, Follower
from workers.settings import Settings
from workers.trainer import Deposed, TrainerCore
from workers.wire.output import Output

log = structlog.get_logger()

_LAST_WORDS_S = 10.0
_POLL_S = 0.02
_LESSONS = 64  # records that are worth a call of the learner: it costs a millisecond in itself
_HURRY = 4.0  # a checkpoint writes all that waits, so many times faster than a flush
_SLICE = 32  # records made before others have their turn


class ModelWriter:
    """Runs a trainer: at most one of a group learns and publishes, the others stand by with the model in memory."""

    def __init__(
        self, settings: Settings, producer: Producer, owner: str, make_core: Callable[[], TrainerCore]
    ) -> None:
        self.standing_by = asyncio.Event()  # the model is in memory: could write at once
        self.core = make_core()
        self.terms = 0
        self._settings, self._producer, self._owner = settings, producer, owner
        self._make_core = make_core
        self._election = Election(settings, settings.topic("model"), settings.topic("trainer"))
        self._pace = settings.model.flush_bytes / settings.model.flush_s  # bytes a second
        self._states: Follower | None = None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Follow and, while elected, write, until `stop`.

        Raises ProduceError, ElectionRefused or what a client raises.
        """
        async with _running([self._election]) as resigned:
            while not self._stop.is_set():
                try:
                    await self._term(resigned)
                except Deposed as deposed:
                    log.warning("another trainer writes the model now", reason=str(deposed))
                if not self._stop.is_set():
                    self.core = self._make_core()

    def stop(self) -> None:
        self._stop.set()

    def lag(self) -> int:
        """Records of `states` that the writer has not learned from; 0 for one that stands by."""
        return self._states.lag() if self._states else 0

    async def _term(self, resigned: asyncio.Future[None]) -> None:
        core = self.core
        model = Follower(self._settings, self._settings.topic("model"), core.on_model, gather_ms=GATHER_MS)
        catalog = Follower(self._settings, self._settings.topic("catalog"), core.on_catalog, gather_ms=GATHER_MS)
        async with _running([model, catalog]) as failed:
            ended = (failed, resigned)
            if not await self._wait(ended, model.caught_up.wait(), catalog.caught_up.wait()):
                return
            self.standing_by.set()
            if not await self._wait(ended, self._election.elected.wait()):
                return
            owner = f"{self._owner}:{self.terms}"  # never used before: a record read back tells whose it is
            self.terms += 1
            begin = min(model.begins.values(), default=0)
            await self._producer.send([core.begin_writing(owner, int(time.time() * 1000), begin)])
            if await self._wait(ended, _holds(lambda: core.writing)):
                log.info("writing the model", epoch=core.model.epoch, owner=owner)
                await self._write(core, model, *ended)

    async def _write(self, core: TrainerCore, model: Follower, *ended: asyncio.Future[None]) -> None:
        """Learn from `states` and `examples` and publish, until deposed or stopped."""
        topic, start = self._settings.topic("states"), core.positions
        self._states = Follower(self._settings, topic, core.on_states, start, fewest=_LESSONS, gather_ms=GATHER_MS)
        topic, start = self._settings.topic("examples"), {0: core.examples}
        examples = Follower(self._settings, topic, core.on_examples, start, gather_ms=GATHER_MS)
        checkpoint_at = time.monotonic() + self._settings.model.checkpoint_s
        try:
            async with _running([self._states, examples]) as failed:
                while await self._pause(failed, *ended):
                    await self._publish(core.flush(), self._pace)
                    if time.monotonic() > checkpoint_at:
                        if await model.was_cut():
                            log.error("the model was cut: all of it is published again", topic=model.topic)
                            core.publish_again()
                            await self._publish(core.flush(), self._pace)
                        await self._publish(core.checkpoint(), _HURRY * self._pace)
                        checkpoint_at = time.monotonic() + self._settings.model.checkpoint_s
            with contextlib.suppress(TimeoutError):  # learned again from the log if there is no time for it
                await asyncio.wait_for(self._publish(core.checkpoint()), _LAST_WORDS_S)
        finally:
            self._states = None

    async def _publish(self, outputs: Iterator[Output], pace: float = math.inf) -> None:
        """Send in slices, at most `pace` bytes a second: making records costs, following them too, and feeds share the
        loop with both."""
        while chunk := list(islice(outputs, _SLICE)):
            await self._producer.send(chunk)
            await fail_point("in_flush")
            await asyncio.sleep(sum(len(output.value or b"") for output in chunk) / pace)

    async def _pause(self, *failed: asyncio.Future[None]) -> bool:
        """Wait for the next flush; False when it is time to stop. Raises what a follower died of."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait(
                [*failed, stopping], timeout=self._settings.model.flush_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stopping.cancel()
        for future in failed:
            if future.done():
                future.result()
        return not self._stop.is_set()

    async def _wait(self, failed: Sequence[asyncio.Future[None]], *conditions: Any) -> bool:
        """Wait for all of `conditions`; False when it is time to stop. Raises what one of `failed` died of."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        reached: asyncio.Future[Any] = asyncio.gather(*conditions)
        try:
            await asyncio.wait([reached, stopping, *failed], return_when=asyncio.FIRST_COMPLETED)
            for future in failed:
                if future.done():
                    future.result()
            return reached.done() and not self._stop.is_set()
        finally:
            stopping.cancel()
            reached.cancel()
            await asyncio.gather(stopping, reached, return_exceptions=True)


async def _holds(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the core is pure: it has no event to wait for
        await asyncio.sleep(_POLL_S)


@contextlib.asynccontextmanager
async def _running(parts: Sequence[Part]) -> AsyncIterator[asyncio.Future[None]]:
    """Run parts beside the block; the future fails with the first of them, and the block's end stops all."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not failed.done():
            failed.set_exception(error)

    tasks = [asyncio.create_task(part.run()) for part in parts]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield failed
    finally:
        for part in parts:
            part.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
        if failed.done():
            failed.exception()
