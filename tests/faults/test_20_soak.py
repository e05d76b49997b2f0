"""Load for a long time, and again and again a fault drawn by chance.

The load is the rate at which workers, broker, store and driver together keep the machine's cores busy for 70 % of the
time: what is written faster is still applied, but refreshes of feeds are coalesced, and less is worked for each event.

After each fault the lag returns to what the load makes; at the end it is 0, users are equal byte for byte, everyone
has the feed that is due. Workers that nobody kills hold no more memory and no more descriptors than after a third of
the time: their growth is not certainly above 8 MB an hour, and 4 MB in all where the time is short.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from tests.backing import url_of
from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.feeds import answered
from tests.faults.flatness import Cores, Record, slope
from tests.faults.processes import Stopwatch
from tests.faults.run import FAST, SESSION_S, Run
from tests.waiting import eventually
from workers import kafka
from workers.embedded import Server

pytestmark = pytest.mark.slow

FLAT = 8e6  # bytes an hour
STEP = 4e6  # bytes that a worker may take at once, when partitions come to it, say; in an hour FLAT is the limit
LEAKED = 8  # descriptors more at the end than after the warm-up: connections come and go
LOAD = 0.7  # share of the time that the cores are busy
NEAR = 0.05  # of LOAD: near enough
TRIAL_S = 20  # over which it is measured
TRIALS = 10
SLOWEST = 50.0  # events a second to begin with
FLOOD = 100_000  # events at once, before memory is watched
USERS, ITEMS = 5_000, 5_000  # so many that an event is mostly one feed, and that a feed finds something new
TURN_S = 0.2  # events are written so often
SAMPLE_S = 0.5
START_S = 300.0  # that workers may take to start, all at once, on a busy machine


class Soak:
    """A pipeline under load: workers that are left alone and watched, and others that faults are for."""

    def __init__(self, fault: Fault, run: Run, store: Server) -> None:
        self.fault, self.run, self.store = fault, run, store
        self.rng = np.random.default_rng(fault.seed)
        self.rate = 0.0  # events a second
        self.watch = Stopwatch()
        roles = ["embedding", "retrieval"] + ["trainer"] * fault.long
        self.records = [Record(run.spawn(role)) for role in roles]
        self.victims = {role: run.spawn(role) for role in ("embedding", "retrieval")}

    # ---------------------------------------------------------------- load
    async def find_rate(self) -> float:
        """Move `rate` to where the cores are busy for LOAD of the time, with everything beside the workers too; returns
        the share that was measured last."""
        self.rate = SLOWEST
        async with self.load(sampled=False):
            for _ in range(TRIALS):
                cores = Cores()
                await asyncio.sleep(TRIAL_S)
                busy = cores.busy()
                if abs(busy - LOAD) <= NEAR:
                    break
                self.rate *= min(max(LOAD / busy, 0.5), 2.0)
            await self.keeps_up()
        return busy

    @contextlib.asynccontextmanager
    async def load(self, sampled: bool = True) -> AsyncIterator[None]:
        """Write `rate` events a second, and take samples of every worker that is watched."""
        ended = asyncio.Event()
        parts = [self._write, self._sample] if sampled else [self._write]
        tasks = [asyncio.create_task(part(ended)) for part in parts]
        try:
            yield
        finally:
            ended.set()
            await asyncio.gather(*tasks)

    async def _write(self, ended: asyncio.Event) -> None:
        watch, due = Stopwatch(), 0.0
        while not ended.is_set():
            elapsed, watch = watch.seconds(), Stopwatch()
            due += elapsed * self.rate
            await self.run.drive(int(due))
            due -= int(due)
            await asyncio.sleep(TURN_S)

    async def _sample(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            for record in self.records:
                record.sample(self.watch.seconds())
            await asyncio.sleep(SAMPLE_S)

    # ---------------------------------------------------------------- faults
    async def worker_killed(self) -> None:
        """kill -9; another one comes."""
        role = await self._victim()
        self.victims[role].kill()
        self.victims[role] = self.run.spawn(role)

    async def worker_rolled(self) -> None:
        """SIGTERM; another one comes when it is gone."""
        role = await self._victim()
        assert await self.victims[role].stopped() == 0
        self.victims[role] = self.run.spawn(role)

    async def worker_frozen(self) -> None:
        """It stands still until the group has given it up."""
        victim = self.victims[await self._victim()]
        victim.freeze()
        await asyncio.sleep(1.5 * SESSION_S)  # how long it is frozen is the fault
        victim.thaw()

    async def store_killed(self) -> None:
        """kill -9 Redis; it comes back with what its file has."""
        self.store.kill()
        self.store.start()

    async def store_frozen(self) -> None:
        """Redis stands still for longer than a call waits."""
        os.kill(self.store.pid, signal.SIGSTOP)
        await asyncio.sleep(8)  # how long it is frozen is the fault
        os.kill(self.store.pid, signal.SIGCONT)

    async def _victim(self) -> str:
        """The role of one of them, drawn; it has started by now, so that the fault meets work."""
        role = str(self.rng.choice(sorted(self.victims)))

        async def runs() -> bool:
            return self.victims[role].logged('"running"') > 0

        await eventually(runs, START_S)
        return role

    async def flood(self) -> None:
        """The watched workers meet a backlog of everyone's events alone, as when the others die under load: what they
        hold then is what the bounds of docs/reliability.md allow, and nothing that comes later is more."""
        for victim in self.victims.values():
            assert await victim.stopped() == 0
        for _ in range(FLOOD // 5_000):
            await self.run.drive(5_000)
        await self.without_lag()
        self.victims = {role: self.run.spawn(role) for role in self.victims}
        for victim in self.victims.values():
            await self.run.running(victim, START_S)

    async def one_fault(self) -> None:
        """Draw a fault, let it happen, wait until the workers keep up again."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.worker_killed, self.worker_rolled, self.worker_frozen, self.store_killed, self.store_frozen,
        ]  # fmt: skip
        kind = kinds[self.rng.integers(len(kinds))]
        await kind()
        self.fault.bit(kind.__name__.replace("_", " "), 1)
        with self.fault.recovery():
            await self.keeps_up()

    # ---------------------------------------------------------------- looking
    async def keeps_up(self) -> None:
        """Wait until every partition moves and less than two seconds of load wait."""
        await self.run.all_moving()

        async def little_lag() -> bool:
            ends, positions = await self.run.log_ends(), await self.run.positions()
            return sum(end - positions[p].next for p, end in ends.items()) < 2 * max(self.rate, 100)

        await eventually(little_lag, 120)

    async def without_lag(self) -> None:
        """Wait until both lanes have everything behind them."""
        await self.run.drained(120)
        settings = self.run.settings
        ends = await self.run.log_ends("states")

        async def committed() -> bool:
            found = await kafka.commits(settings, settings.topic("retrieval"), settings.topic("states"), ends)
            return all(found.get(p, 0) >= end for p, end in ends.items() if end)

        await eventually(committed, 120)

    def assert_flat(self) -> None:
        """No worker that was left alone holds more and more."""
        for record in self.records:
            role = record.worker.log.stem.split("-")[0]
            assert record.worker.runs
            memory = slope(record.times_s, record.resident)
            third = len(record.descriptors) // 3
            more = np.mean(record.descriptors[-third:]) - np.mean(record.descriptors[third : 2 * third])
            self.fault.saw(f"MB of {role}", round(record.resident[-1] / 1e6))
            self.fault.saw(f"MB an hour of {role}", round(memory.an_hour / 1e6, 1))
            self.fault.saw(f"+- of {role}", round(2 * memory.error / 1e6, 1))
            self.fault.saw(f"descriptors of {role}", record.descriptors[-1])
            if self.fault.long:  # in a minute caches still fill
                assert not memory.grows(FLAT, STEP), f"{role}: {memory}"
            assert more <= LEAKED, f"{role}: {more:.1f} descriptors more"


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("own_store", ["any"], indirect=True)
def test_soak(fault: Fault, make_settings: MakeSettings, own_store: Server, pytestconfig: pytest.Config) -> None:
    minutes = pytestconfig.option.minutes or fault.amount("minutes", short=0.75, long=60.0)
    every_s = fault.amount("s a fault", short=10, long=180)

    async def proof(run: Run) -> None:
        if fault.long:
            run.driver.users, run.driver.items = USERS, ITEMS
        run.driver.passing = 0.0  # new users fill caches up to their bound: that is no leak, and no flat line either
        soak = Soak(fault, run, own_store)
        for worker in run.workers:
            await run.running(worker, START_S)
        soak.rate = pytestconfig.option.rate or 200.0
        if fault.long and not pytestconfig.option.rate:
            fault.saw("% busy at first", round(100 * await soak.find_rate()))
        if fault.long:
            await soak.flood()
        fault.saw("events/s", round(soak.rate))
        fault.saw("minutes", minutes)
        soak.watch, cores = Stopwatch(), Cores()
        async with soak.load():
            await soak.keeps_up()
            while soak.watch.seconds() < 60 * minutes:
                begun = Stopwatch()
                await soak.one_fault()
                assert all(victim.runs for victim in soak.victims.values())
                await asyncio.sleep(max(0.0, every_s - begun.seconds()))  # the pace of faults
            fault.saw("% busy", round(100 * cores.busy()))
        await soak.without_lag()
        soak.assert_flat()
        if not fault.long:
            await fault.settled(run)  # a frozen model: embeddings are compared too
        else:
            verdict = await run.verdict()
            verdict.wrong_embeddings.clear()  # the trainer moves them
            verdict.assert_equal()
            fault.saw("events", verdict.events)
        fault.saw("users answered", await answered(run, 120))

    fault.prove(make_settings(**FAST, store_url=url_of(own_store)), proof)
