"""SIGSTOP a worker for three sessions in the middle of its work, then SIGCONT.

Its partitions have another owner meanwhile. When it wakes up it is refused (FENCED, or GAP) and changes nothing: users
equal byte for byte.
"""

from __future__ import annotations

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.run import FAST, Run
from tests.waiting import eventually


def test_frozen_worker(fault: Fault, make_settings: MakeSettings) -> None:
    async def proof(run: Run) -> None:
        zombie = run.spawn(HEADRACE_FAILPOINT_BEFORE_APPLY="pause:1")
        async with run.load():
            await run.owning_with_lag(zombie)

            async def in_the_middle() -> bool:
                return zombie.logged("fail point before_apply") > 0

            await eventually(in_the_middle)
            zombie.freeze()
        fault.bit("frozen", 1)
        heir = run.spawn()

        async def taken_over() -> bool:
            return len(await run.owned_by(heir)) == run.settings.kafka.partitions

        await eventually(taken_over, within_s=60)
        await run.drive(500)
        zombie.thaw()

        async def refused() -> int:
            return zombie.logged("fenced:") + zombie.logged("gap:")

        fault.bit("refused", await eventually(refused, within_s=30))
        await run.drive(500)
        await fault.settled(run)

    fault.prove(make_settings(**FAST), proof)
