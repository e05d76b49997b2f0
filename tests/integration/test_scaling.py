"""Two workers of a role in one group: partitions move to and fro under load, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeSettings
from tests.faults.run import Run
from tests.pipelines import FAST, Pipeline, pipeline
from tests.waiting import eventually
from workers.outside.audit import audit
from workers.outside.drain import drained
from workers.roles import Process, hosted

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SCALED = ("embedding", "retrieval")


async def owned_by(pipe: Pipeline, workers: int) -> bool:
    """Whether so many have claimed the partitions of `events`, by what the store says."""
    positions = await pipe.store.positions(range(pipe.settings.kafka.partitions))
    return len({position.owner for position in positions.values()}) == workers


def handled(process: Process) -> list[int]:
    """Records that each lane of a process has settled."""
    stats = process.stats()
    return [stats[role]["records"] for role in SCALED]


async def go_on(*processes: Process) -> None:
    """Wait until every lane of every process has settled something more."""
    before = [handled(process) for process in processes]

    async def more() -> bool:
        now = [handled(process) for process in processes]
        return all(a > b for after, least in zip(now, before, strict=True) for a, b in zip(after, least, strict=True))

    await eventually(more, within_s=60)


@pytest.mark.real_broker("tells wrong end offsets")
def test_workers_come_and_go_under_load(make_settings: MakeSettings) -> None:
    """A second process takes its share of both lanes and gives it back: every user is announced and has their feed."""
    settings = make_settings(**FAST)

    async def body() -> None:
        async with Run(settings) as run, pipeline(settings) as pipe:
            async with run.load(50, forget=0.0, bad=0.0):
                await go_on(pipe.process)
                await eventually(lambda: owned_by(pipe, 1))
                async with hosted(settings, SCALED) as second:
                    await asyncio.wait_for(second.ready(), 60)
                    await go_on(pipe.process, second)
                    await eventually(lambda: owned_by(pipe, 2))
                    assert not second.failed.done()
                await go_on(pipe.process)
                await eventually(lambda: owned_by(pipe, 1))
            lag = await drained(settings, pipe.store, pipe.process.lag)
            assert lag.total == 0
            found = await audit(settings)
            assert found.events == run.driver.sent
            assert len(found.newest) > 100
            assert (found.stale, found.unannounced, found.dead_letters) == ([], [], 0)
            verdict = await run.verdict()
            assert (verdict.wrong, verdict.positions_wrong, verdict.unannounced) == ([], [], [])

    asyncio.run(body())
