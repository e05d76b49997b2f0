"""Redis cannot be reached for twenty minutes while events keep coming.

For half of the time connections are refused, then they are taken and nothing is answered. Nothing is lost, workers keep
running and their memory stays flat; afterwards they catch up without a restart. Users equal byte for byte.
"""

from __future__ import annotations

import pytest

from tests.conftest import MakeSettings
from tests.faults import looking
from tests.faults.account import Fault
from tests.faults.processes import Stopwatch, Worker
from tests.faults.proxy import Proxy, proxied
from tests.faults.run import FAST, Run
from tests.waiting import eventually
from workers.embedded import HOST, Server

pytestmark = pytest.mark.slow

FLAT = 16 * 2**20  # bytes that a worker's memory may grow by once its fetches are full
DESCRIPTORS = 8


async def outlast(watch: Stopwatch, seconds: float) -> None:
    """Wait until the outage is so old."""

    async def old() -> bool:
        return watch.seconds() >= seconds

    await eventually(old, within_s=seconds + 60)


async def outage(run: Run, proxy: Proxy, workers: list[Worker], seconds: float) -> tuple[int, int]:
    """The store is gone for so long; how much the workers grew meanwhile: bytes, descriptors (the greater one's)."""
    watch = Stopwatch()
    proxy.refuse()
    await outlast(watch, seconds / 4)
    memory, descriptors = [w.resident() for w in workers], [w.descriptors() for w in workers]
    await outlast(watch, seconds / 2)
    proxy.hold()
    await outlast(watch, seconds)
    return (
        max(w.resident() - before for w, before in zip(workers, memory, strict=True)),
        max(w.descriptors() - before for w, before in zip(workers, descriptors, strict=True)),
    )


@pytest.mark.parametrize("own_store", ["any"], indirect=True)
def test_redis_unreachable(fault: Fault, make_settings: MakeSettings, own_store: Server) -> None:
    seconds = fault.amount("s unreachable", short=20.0, long=1200.0)

    async def proof(run: Run, proxy: Proxy) -> None:
        workers = [run.spawn() for _ in range(2)]
        async with run.load(batch=10):
            await run.owning(*workers)
            await run.all_moving()
            grown, opened = await outage(run, proxy, workers, seconds)
            ends, stands = await run.log_ends(), looking.standing(run.settings, own_store)
            fault.bit("events waiting", sum(ends.values()) - sum(stands.values()))
            proxy.forward()
        fault.recovered(await run.drained(within_s=300))
        fault.saw("MiB grown", round(grown / 2**20, 1))
        assert grown < FLAT, f"a worker's memory grew by {grown} bytes while it waited"
        assert opened < DESCRIPTORS, f"a worker opened {opened} descriptors while it waited"
        assert all(worker.runs for worker in workers), "a worker restarted"
        fault.bit("workers that met it", sum(worker.logged("store not ready") > 0 for worker in workers))
        await fault.settled(run)

    with proxied(own_store.port) as proxy:
        settings = make_settings(**FAST, store_url=f"redis://{HOST}:{proxy.port}/0")
        fault.prove(settings, lambda run: proof(run, proxy))
