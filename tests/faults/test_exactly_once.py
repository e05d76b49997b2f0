"""The five proofs: each event changes its user's durable state exactly once, and is announced, whatever crashes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backing import url_of
from tests.conftest import MakeSettings
from tests.faults.harness import Run
from tests.waiting import eventually
from workers.embedded import Server
from workers.settings import Settings

pytestmark = [pytest.mark.fault, pytest.mark.kafka, pytest.mark.redis]

SESSION_S = 6.0  # the shortest that a broker's defaults allow


# A dead member is noticed as soon as a broker's defaults allow; small embeddings.
FAST: dict[str, Any] = {"kafka_session_timeout_s": SESSION_S, "kafka_heartbeat_s": 0.5, "model_dimension": 16}
# Holds a worker between the store's answer and the announcement, so that it lags and a kill hits the worst moment.
SLOW = {"HEADRACE_FAILPOINT_AFTER_APPLY": "pause:0.2"}


def prove(settings: Settings, folder: Path, proof: Callable[[Run], Awaitable[None]]) -> None:
    """Run a proof on a prefix of its own; no process survives it."""

    async def proved() -> None:
        run = Run(settings, folder)
        try:
            await run.prepare()
            await proof(run)
        finally:
            await run.stop()

    asyncio.run(proved())


async def owning_with_lag(run: Run, *workers: Any) -> None:
    """Wait until each of `workers` owns partitions that lag, so that a kill now interrupts something."""

    async def lagging() -> bool:
        return all([await run.lag_of(worker) > 0 for worker in workers])

    await eventually(lagging, within_s=90)


def lose_tail(folder: Path, size: int) -> None:
    """Cut `size` bytes off the append-only file, as a crash of the machine does."""
    if size:
        (newest,) = folder.glob("appendonlydir/*.incr.aof")
        os.truncate(newest, newest.stat().st_size - size)


def test_killed_worker_under_load(make_settings: MakeSettings, tmp_path: Path) -> None:
    """kill -9 a worker again and again; others and its successors carry on."""

    async def proof(run: Run) -> None:
        first, second = run.spawn(**SLOW), run.spawn(**SLOW)
        async with run.load():
            for _ in range(3):
                await owning_with_lag(run, first)
                first.kill()
                first, second = second, run.spawn(**SLOW)
        await run.drained()
        verdict = await run.verdict()
        verdict.assert_equal()
        assert verdict.announced_again > 0, "nothing was redelivered: the kills bit nothing"

    prove(make_settings(**FAST), tmp_path, proof)


def test_restart_of_all(make_settings: MakeSettings, tmp_path: Path) -> None:
    """kill -9 every worker at once, twice: new ones find states and positions together in the store."""

    async def proof(run: Run) -> None:
        workers = [run.spawn(**SLOW), run.spawn(**SLOW)]
        async with run.load():
            for _ in range(2):
                await owning_with_lag(run, *workers)
                for worker in workers:
                    worker.kill()
                workers = [run.spawn(**SLOW), run.spawn(**SLOW)]
        await run.drained()
        verdict = await run.verdict()
        verdict.assert_equal()
        assert verdict.announced_again > 0, "nothing was redelivered: the kills bit nothing"

    prove(make_settings(**FAST), tmp_path, proof)


def test_zombie(make_settings: MakeSettings, tmp_path: Path) -> None:
    """A worker frozen for two sessions wakes up in the middle of its work: it is refused, and changes nothing."""

    async def proof(run: Run) -> None:
        zombie = run.spawn(HEADRACE_FAILPOINT_BEFORE_APPLY="pause:1")
        async with run.load():
            await owning_with_lag(run, zombie)

            async def in_the_middle() -> bool:
                return zombie.logged("fail point before_apply") > 0

            await eventually(in_the_middle)
            zombie.signal(signal.SIGSTOP)
        heir = run.spawn()

        async def taken_over() -> bool:
            positions = await run.positions()
            return all(f":{heir.pid}:" in position.owner for position in positions.values())

        await eventually(taken_over, within_s=60)
        await run.drive(500)
        zombie.signal(signal.SIGCONT)

        async def refused() -> bool:
            return zombie.logged("fenced:") + zombie.logged("gap:") > 0

        await eventually(refused, within_s=30)
        await run.drive(500)
        await run.drained()
        (await run.verdict()).assert_equal()

    prove(make_settings(**FAST), tmp_path, proof)


@pytest.mark.parametrize("own_store", ["redis"], indirect=True)
def test_redis_killed(make_settings: MakeSettings, tmp_path: Path, own_store: Server) -> None:
    """kill -9 Redis under load, once with its file's tail lost: states and positions go back together."""
    settings = make_settings(**FAST, store_url=url_of(own_store))

    async def proof(run: Run) -> None:
        worker = run.spawn(**SLOW)
        for lost_bytes in (0, 20_000):
            async with run.load():
                await owning_with_lag(run, worker)
                pid = own_store.pid
                own_store.kill()
                lose_tail(own_store.folder, lost_bytes)
                own_store.start()
                assert own_store.pid != pid
        await run.drained()
        (await run.verdict()).assert_equal()
        assert worker.logged("store not ready") > 0, "no call met the outage"
        assert worker.logged("gap:") > 0, "the store went back, and nobody saw a gap"
        assert worker.process.poll() is None

    prove(settings, tmp_path, proof)


def test_duplicate_ids(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Events that their producers send twice are counted and change nothing."""

    async def proof(run: Run) -> None:
        worker = run.spawn()
        await run.drive(3000, resend=0.05, forget=0.0)
        await run.drained()
        verdict = await run.verdict()
        verdict.assert_equal()
        assert worker.stop() == 0
        assert run.resent > 0
        assert worker.counted("duplicate") == verdict.duplicates == run.resent

    prove(make_settings(**FAST), tmp_path, proof)
