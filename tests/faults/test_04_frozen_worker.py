"""SIGSTOP a worker in the middle of its work for longer than its session lasts, then SIGCONT.

Wherever it stands (inside a claim, between compute and apply, between apply and announce), every partition moves on
under another owner within 30 s. When it wakes up it changes nothing: what it would apply is refused (FENCED or GAP), it
joins again, and all partitions move on within 30 s. Users equal byte for byte.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.processes import Stopwatch, Worker
from tests.faults.run import FAST, SESSION_S, Run
from tests.waiting import eventually

OWNED_AGAIN_S = 30.0


async def stands_at(place: str, worker: Worker) -> None:
    """Wait until the worker has come to a fail point."""

    async def there() -> bool:
        return worker.logged(f"fail point {place}") > 0

    await eventually(there, within_s=60)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("before_claim", marks=pytest.mark.slow),
        pytest.param("after_claim", marks=pytest.mark.slow),
        "before_apply",
        pytest.param("after_apply", marks=pytest.mark.slow),
    ],
)
def test_frozen(fault: Fault, make_settings: MakeSettings, place: str) -> None:
    times = fault.amount("times", short=1, long=3)
    sessions = fault.amount("sessions frozen", short=1.5, long=3.0)

    async def freeze(run: Run) -> None:
        """One worker more, frozen where it should be, for its sessions; then it works on with the others."""
        zombie = run.spawn(**{f"HEADRACE_FAILPOINT_{place.upper()}": "pause:2"})
        await stands_at(place, zombie)
        zombie.freeze()
        frozen = Stopwatch()
        fault.bit("frozen", 1)
        fault.recovered(await run.all_moving(within_s=OWNED_AGAIN_S))
        await asyncio.sleep(max(0.0, sessions * SESSION_S - frozen.seconds()))  # how long it is frozen is the fault
        zombie.thaw()
        fault.recovered(await run.all_moving(within_s=OWNED_AGAIN_S))
        assert await zombie.stopped() == 0

    async def proof(run: Run) -> None:
        survivor = run.spawn()
        async with run.load():
            await run.owns_all(survivor)
            for _ in range(times):
                await freeze(run)
        await fault.settled(run)
        refused = run.logged("fenced:") + run.logged("gap:")
        if place == "before_apply":  # elsewhere it may hear of its loss before it tries to apply anything
            fault.bit("refused", refused)
        else:
            fault.saw("refused", refused)

    fault.prove(make_settings(**FAST), proof)
