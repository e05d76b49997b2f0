"""kill -9 a worker again and again under load.

Each time the one that is hit owns partitions that lag, and is between the store's answer and the announcement more
often than not. The others and its successors carry on: users equal byte for byte, nobody's last version unannounced.
The same for workers of retrieval, between the store's answer and their feeds: everyone has the feed that is due.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.feeds import answered
from tests.faults.processes import Worker
from tests.faults.run import FAST, SLOW, Run
from tests.waiting import eventually
from workers import kafka


def test_worker_killed(fault: Fault, make_settings: MakeSettings) -> None:
    kills = fault.amount("kills", short=3, long=20)
    workers = fault.amount("workers", short=2, long=3)
    events = fault.amount("events", short=2_000, long=200_000)
    rng = np.random.default_rng(fault.seed)

    async def proof(run: Run) -> None:
        alive = [run.spawn(**SLOW) for _ in range(workers)]
        async with run.load():
            await run.owning_with_lag(*alive)
            for kill in range(kills):
                victim = alive.pop(rng.integers(len(alive)))
                await run.owning_with_lag(victim)
                if kill == 0:  # so that something is announced again, whatever the others hit
                    await run.at_its_worst(victim)
                victim.kill()
                fault.bit("killed", 1)
                alive.append(run.spawn(**SLOW))
                fault.recovered(await run.all_moving())
        await run.drive_up_to(events)
        verdict = await fault.settled(run)
        fault.bit("announced again", verdict.announced_again)

    fault.prove(make_settings(**FAST), proof)


async def committed(run: Run) -> dict[int, int]:
    """Up to where each partition of `states` is answered."""
    settings = run.settings
    found = await kafka.commits(
        settings, settings.topic("retrieval"), settings.topic("states"), range(settings.kafka.partitions)
    )
    return {p: found.get(p, 0) for p in range(settings.kafka.partitions)}


def claimed(worker: Worker) -> list[int]:
    """The partitions that a worker of retrieval said last that it has."""
    said = [json.loads(line) for line in worker.log.read_text().splitlines() if '"claimed"' in line]
    return list(said[-1]["partitions"]) if said else []


async def frozen_behind(run: Run, worker: Worker) -> int:
    """Freeze a SLOW worker of retrieval between the store's answer and its feeds; how many states of its partitions it
    has not committed."""
    await run.at_its_worst(worker)
    worker.freeze()
    ends, commits = await run.log_ends("states"), await committed(run)
    return sum(max(0, ends[p] - commits[p]) for p in claimed(worker))


async def all_answered_further(run: Run) -> None:
    """Wait, under load, until every partition's commit has moved on from where `states` ends now."""
    ends = await run.log_ends("states")

    async def further() -> bool:
        return all(at >= ends[p] for p, at in (await committed(run)).items())

    await eventually(further, 90)


@pytest.mark.slow
def test_retrieval_killed(fault: Fault, make_settings: MakeSettings) -> None:
    kills = fault.amount("kills", short=2, long=20)
    workers = fault.amount("workers", short=2, long=3)
    rng = np.random.default_rng(fault.seed)

    async def proof(run: Run) -> None:
        run.spawn()
        alive = [run.spawn("retrieval", **SLOW) for _ in range(workers)]
        async with run.load(batch=40):
            for _ in range(kills):
                victim = alive.pop(rng.integers(len(alive)))
                fault.bit("states behind the commits", await frozen_behind(run, victim))
                victim.kill()
                fault.bit("killed", 1)
                alive.append(run.spawn("retrieval", **SLOW))
                with fault.recovery():
                    await all_answered_further(run)
        await fault.settled(run)
        fault.saw("users answered", await answered(run))
        assert all(worker.runs for worker in alive)

    fault.prove(make_settings(**FAST), proof)
