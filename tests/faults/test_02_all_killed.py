"""kill -9 every worker at once, again and again.

New ones find states and positions together in the store and resume within the session timeout and 30 s: users equal
byte for byte, nobody's last version unannounced.
"""

from __future__ import annotations

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.processes import Stopwatch
from tests.faults.run import FAST, SESSION_S, SLOW, Run


def test_all_killed(fault: Fault, make_settings: MakeSettings) -> None:
    times = fault.amount("times", short=2, long=5)
    count = fault.amount("workers", short=2, long=3)

    async def proof(run: Run) -> None:
        workers = [run.spawn(**SLOW) for _ in range(count)]
        async with run.load():
            for number in range(times):
                await run.owning_with_lag(*workers)
                if number == 0:  # so that something is announced again, whatever the others hit
                    await run.at_its_worst(workers[0])
                for worker in workers:
                    worker.kill()
                fault.bit("killed", count)
                watch, workers = Stopwatch(), [run.spawn(**SLOW) for _ in range(count)]
                for worker in workers:  # how long a machine takes to start a process is its own affair
                    await run.running(worker)
                await run.all_moving(within_s=SESSION_S + 30)
                fault.recovered(watch.seconds())
        verdict = await fault.settled(run)
        fault.bit("announced again", verdict.announced_again)

    fault.prove(make_settings(**FAST), proof)
