"""kill -9 Redis under load, once with its append-only file's tail lost.

States and positions go back together: the worker finds a GAP, claims again and replays what was lost; it does not
restart. Users equal byte for byte, and everyone has the feed that is due on `feeds`. (The copy in Redis may have gone
back further than its user's state: it stays so until that user's next feed.)
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.backing import url_of
from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.feeds import answered
from tests.faults.run import FAST, SLOW, Run
from tests.waiting import eventually
from workers.embedded import Server


def newest(folder: Path) -> Path:
    """The append-only file that is written to."""
    (found,) = folder.glob("appendonlydir/*.incr.aof")
    return found


def lose_tail(folder: Path, size: int) -> None:
    """Cut `size` bytes off the append-only file, as a crash of the machine does."""
    if size:
        file = newest(folder)
        os.truncate(file, file.stat().st_size - size)


@pytest.mark.parametrize("own_store", ["any"], indirect=True)
def test_redis_killed(fault: Fault, make_settings: MakeSettings, own_store: Server) -> None:
    kills = fault.amount("kills", short=2, long=6)
    lost_bytes = fault.amount("bytes of the file's tail lost at one", short=20_000, long=100_000)
    events = fault.amount("events", short=2_000, long=100_000)
    settings = make_settings(**FAST, store_url=url_of(own_store))

    async def proof(run: Run) -> None:
        worker, retrieval = run.spawn(**SLOW), run.spawn("retrieval")
        await run.running(retrieval)

        async def enough() -> bool:  # while a sync is under way Redis answers before it writes
            return newest(own_store.folder).stat().st_size > 5 * lost_bytes

        for last in [False] * (kills - 1) + [True]:
            async with run.load():
                await run.owning_with_lag(worker)
                if last:  # what is lost has been answered, and lies behind functions and claims
                    await eventually(enough)
                    await run.at_its_worst(worker)
                pid = own_store.pid
                own_store.kill()
                lose_tail(own_store.folder, lost_bytes if last else 0)
                own_store.start()
                assert own_store.pid != pid
                fault.bit("killed", 1)
                fault.recovered(await run.all_moving())
        await run.drive_up_to(events)
        await fault.settled(run)
        fault.bit("outages met", worker.logged("store not ready"))
        fault.bit("gaps", worker.logged("gap:"))
        fault.bit("outages met by retrieval", retrieval.logged("store not ready"))
        fault.saw("users answered", await answered(run))
        assert worker.runs
        assert retrieval.runs

    fault.prove(settings, proof)
