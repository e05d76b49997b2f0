"""kill -9 a worker again and again under load.

Each time the one that is hit owns partitions that lag, and is between the store's answer and the announcement more
often than not. The others and its successors carry on: users equal byte for byte, nobody's last version unannounced.
"""

from __future__ import annotations

import numpy as np

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.run import FAST, SLOW, Run


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
