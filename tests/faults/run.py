"""One prefix with its topics and its store: workers, a driver, and what becomes of the events.

What the proofs of all faults are written with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ParamSpec, Self, Unpack

import numpy as np

from tests.faults import looking, processes
from tests.faults.driving import Driver, Shares
from tests.faults.processes import COMMAND_LINE, Stopwatch, Worker
from tests.faults.verdict import Verdict, judge
from tests.waiting import eventually
from workers.settings import Settings
from workers.store import Position

P = ParamSpec("P")
SESSION_S = 6.0  # the shortest that a broker's defaults allow
# A dead member is noticed as soon as a broker's defaults allow; small embeddings.
FAST: dict[str, Any] = {"kafka_session_timeout_s": SESSION_S, "kafka_heartbeat_s": 0.5, "model_dimension": 16}
# Holds a worker between the store's answer and the announcement, so that it lags and a kill hits the worst moment.
SLOW = {"HEADRACE_FAILPOINT_AFTER_APPLY": "pause:0.2"}


def timed(wait: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Coroutine[Any, Any, float]]:
    """`wait`, which returns the seconds it took: whatever it asks before it waits is part of them."""

    @functools.wraps(wait)
    async def waited(*args: P.args, **kwargs: P.kwargs) -> float:
        watch = Stopwatch()
        await wait(*args, **kwargs)
        return watch.seconds()

    return waited


class Run:
    """One prefix: its topics, its store, a model that does not move, workers, a driver."""

    def __init__(
        self,
        settings: Settings,
        folder: Path = Path(),
        seed: int | Sequence[int] = 1,
        entry: tuple[str, ...] = COMMAND_LINE,
        passing: float = 0.0,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.workers: list[Worker] = []
        self.driver = Driver(settings, np.random.default_rng(seed), passing)
        self._lookout = looking.Lookout(settings)
        self._entry = entry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def prepare(self) -> None:
        """A frozen model: fixed records, no trainer. Topics and store are there."""
        await self.driver.freeze_model()

    async def stop(self) -> None:
        """End every process that is left, and let go of broker and store."""
        for worker in self.workers:
            processes.end(worker)
        await self.driver.close()
        await self._lookout.close()

    # ---------------------------------------------------------------- workers
    def spawn(self, role: str = "embedding", *options: str, **environ: str) -> Worker:
        """A worker process of this prefix. `environ` adds variables, fail points among them."""
        log = self.folder / f"{role}-{len(self.workers)}.log"
        worker = processes.start(role, log, {**self.environ(), **environ}, self._entry, options)
        self.workers.append(worker)
        return worker

    def environ(self) -> dict[str, str]:
        """The settings as a worker process reads them."""
        return processes.environ_of(self.settings)

    def logged(self, text: str) -> int:
        """How often lines of all workers' logs have `text`."""
        return sum(worker.logged(text) for worker in self.workers)

    # ---------------------------------------------------------------- driving
    async def drive(self, events: int, **shares: Unpack[Shares]) -> None:
        """Write events; see `Driver.drive`."""
        await self.driver.drive(events, **shares)

    async def drive_up_to(self, events: int) -> None:
        """Write what is missing of `events` in all."""
        while self.driver.sent < events:
            await self.driver.drive(min(5000, events - self.driver.sent))

    def load(self, batch: int = 200, **shares: Unpack[Shares]) -> AbstractAsyncContextManager[None]:
        """Write events for as long as the block runs; see `Driver.load`."""
        return self.driver.load(batch, **shares)

    # ---------------------------------------------------------------- looking
    async def read(self, dataset: str) -> list[Any]:
        """Every record of a topic, read from its beginning."""
        return await looking.read(self.settings, dataset)

    async def positions(self) -> dict[int, Position]:
        """Where each partition of `events` stands in the store."""
        return await self._lookout.positions()

    async def log_ends(self, dataset: str = "events") -> dict[int, int]:
        """Where each partition of a topic of users ends."""
        return await self._lookout.log_ends(dataset)

    async def owned_by(self, worker: Worker) -> set[int]:
        """The partitions that `worker` has claimed, and nobody after it."""
        return {p for p, position in (await self.positions()).items() if f":{worker.pid}:" in position.owner}

    async def lag_of(self, worker: Worker) -> int:
        """Events not yet applied in the partitions that `worker` owns now."""
        ends, positions = await self.log_ends(), await self.positions()
        return sum(ends[p] - position.next for p, position in positions.items() if f":{worker.pid}:" in position.owner)

    # ---------------------------------------------------------------- waiting
    async def owning_with_lag(self, *workers: Worker, within_s: float = 90.0) -> None:
        """Wait until each of `workers` owns partitions that lag, so that a fault now interrupts something."""

        async def lagging() -> bool:
            return all([await self.lag_of(worker) > 0 for worker in workers])

        await eventually(lagging, within_s)

    async def running(self, worker: Worker, within_s: float = 60.0) -> None:
        """Wait until `worker` has started: from then on SIGTERM is an orderly end."""

        async def runs() -> bool:
            assert worker.runs, worker.last_words()
            return worker.logged('"running"') > 0

        await eventually(runs, within_s)

    async def at_its_worst(self, worker: Worker, within_s: float = 60.0) -> None:
        """Wait until a SLOW worker has just come to stand between the store's answer and the announcement."""
        before = worker.logged("fail point after_apply")

        async def stands() -> bool:
            return worker.logged("fail point after_apply") > before

        await eventually(stands, within_s)

    async def owning(self, *workers: Worker, within_s: float = 60.0) -> None:
        """Wait until each of `workers` has claimed partitions."""

        async def all_have_some() -> bool:
            return all([await self.owned_by(worker) for worker in workers])

        await eventually(all_have_some, within_s)

    @timed
    async def owns_all(self, worker: Worker, within_s: float = 60.0) -> None:
        """Wait until `worker` has claimed every partition, and nobody after it; the seconds it took."""

        async def all_its() -> bool:
            return len(await self.owned_by(worker)) == self.settings.kafka.partitions

        await eventually(all_its, within_s)

    @timed
    async def all_moving(self, within_s: float = 90.0) -> None:
        """Wait, under load, until every partition's position has moved on from where it is now; the seconds it took."""
        before = await self.positions()

        async def moved() -> bool:
            now = await self.positions()
            return all(
                p in now and now[p].next > (before[p].next if p in before else 0)
                for p in range(self.settings.kafka.partitions)
            )

        await eventually(moved, within_s)

    @timed
    async def drained(self, within_s: float = 90.0) -> None:
        """Wait until everything is applied, and everything applied is announced; the seconds it took."""
        ends = await self.log_ends()

        async def at_end() -> bool:
            positions = await self.positions()
            return all(
                p in positions and positions[p].next == end == positions[p].sent for p, end in ends.items() if end
            )

        await eventually(at_end, within_s)

    async def verdict(self, log: Sequence[Any] | None = None) -> Verdict:
        """Replay the log (or `log`, read before retention cut it) in the oracle and compare."""
        return await judge(self.settings, self.driver.vectors, self._lookout, log)
