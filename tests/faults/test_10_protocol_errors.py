"""The broker answers one request with an error, for each request that consuming and producing takes.

Each time all is applied and announced again within 60 s: by the client's own repetition, or because the worker ends,
which is the answer to an error that parks its client for ever, and is started again. Users equal byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka import errors

from tests.faults.account import Fault
from tests.faults.mock_cluster import Api, MockCluster, mock_cluster
from tests.faults.run import FAST, SLOW, Run
from tests.stores import opened
from tests.waiting import eventually
from tests.waiting import run as finish
from workers import kafka, topics
from workers.settings import Settings, load

pytestmark = pytest.mark.slow

WITHIN_S = 60.0
UNKNOWN = errors.UnknownError.errno  # nothing that a client repeats by itself
# Of each request the answers; the short form knows the first alone. A worker ends on what its client does not repeat.
ANSWERS: dict[Api, tuple[int, ...]] = {
    Api.FIND_COORDINATOR: (UNKNOWN, errors.CoordinatorNotAvailableError.errno),
    Api.JOIN_GROUP: (errors.UnknownMemberIdError.errno, errors.CoordinatorLoadInProgressError.errno, UNKNOWN),
    Api.SYNC_GROUP: (errors.RebalanceInProgressError.errno, errors.NotCoordinatorForGroupError.errno, UNKNOWN),
    Api.HEARTBEAT: (errors.IllegalGenerationError.errno, errors.UnknownMemberIdError.errno, UNKNOWN),
    Api.OFFSET_FETCH: (errors.CoordinatorLoadInProgressError.errno, UNKNOWN),
    Api.OFFSET_COMMIT: (UNKNOWN, errors.NotCoordinatorForGroupError.errno, errors.RebalanceInProgressError.errno),
    Api.FETCH: (UNKNOWN, errors.NotLeaderForPartitionError.errno),
    Api.PRODUCE: (UNKNOWN, errors.NotLeaderForPartitionError.errno),
}
# What a group asks only when it changes: an error of a heartbeat makes it.
AFTER_HEARTBEAT = {
    Api.FIND_COORDINATOR: errors.NotCoordinatorForGroupError.errno,
    Api.JOIN_GROUP: errors.RebalanceInProgressError.errno,
    Api.SYNC_GROUP: errors.RebalanceInProgressError.errno,
    Api.OFFSET_FETCH: errors.RebalanceInProgressError.errno,
}
ROLES = ("embedding", "retrieval")  # the lanes: positions in the store, and in the group's commits
MANY = 8  # errors of a fetch, so that among followers and lanes each lane meets one


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with mock_cluster() as made:
        yield made


@pytest.fixture
def settings(cluster: MockCluster, store_url: str, prefix: str) -> Settings:
    """A prefix of its own on the mock cluster."""
    flags = {"prefix": prefix, "kafka_bootstrap": cluster.bootstrap, "kafka_partitions": 4, "store_url": store_url}
    settings = load(environ={}, flags={**flags, **FAST})
    for topic in topics.declared(settings):
        cluster.create(topic.name, topic.partitions)

    async def install() -> None:
        async with opened(settings):
            pass

    finish(install())
    return settings


@contextlib.asynccontextmanager
async def supervised(run: Run) -> AsyncIterator[None]:
    """A worker of each role, started again whenever it ends, as a deployment does."""
    alive = {role: run.spawn(role, **SLOW) for role in ROLES}

    async def supervise() -> None:
        while True:
            for role, worker in alive.items():
                if not worker.runs:
                    alive[role] = run.spawn(role, **SLOW)
            await asyncio.sleep(0.1)

    supervising = asyncio.create_task(supervise())
    try:
        yield
    finally:
        supervising.cancel()
        await asyncio.gather(supervising, return_exceptions=True)


def inject(cluster: MockCluster, api: Api, error: int) -> None:
    """One error a lane, where both ask; and what makes them ask."""
    if api in AFTER_HEARTBEAT:
        cluster.push(Api.HEARTBEAT, [AFTER_HEARTBEAT[api]] * len(ROLES))
    both = 1 if api in (Api.OFFSET_COMMIT, Api.PRODUCE) else len(ROLES)
    cluster.push(api, [error] * (MANY if api is Api.FETCH else both))


async def answer_with(run: Run, cluster: MockCluster, api: Api, error: int) -> None:
    """Inject, wait until it was met, and until both lanes have consumed all that was written before and after."""
    if api is Api.PRODUCE:  # the driver must not meet it: the worker still has to announce these
        await run.drive(100)
        inject(cluster, api, error)
    else:
        inject(cluster, api, error)
        await run.drive(100)

    async def met() -> bool:
        return cluster.waiting(api) == 0

    await eventually(met, within_s=WITHIN_S)
    await run.drive(100)
    await run.drained(within_s=WITHIN_S)
    await eventually(lambda: retrieved(run), within_s=WITHIN_S)


async def retrieved(run: Run) -> bool:
    """Whether the retrieval lane has committed all that is on `states`."""
    settings, ends = run.settings, await run.log_ends("states")
    group, topic = settings.topic("retrieval"), settings.topic("states")
    return await kafka.commits(settings, group, topic, ends) == {p: end for p, end in ends.items() if end}


def test_protocol_errors(fault: Fault, settings: Settings, cluster: MockCluster) -> None:
    each = fault.amount("answers each", short=1, long=3)

    async def proof(run: Run) -> None:
        async with supervised(run):
            await run.drive(300)
            await run.drained()
            for api, answers in ANSWERS.items():
                for error in answers[:each]:
                    with fault.recovery():
                        await answer_with(run, cluster, api, error)
                    fault.bit(api.name.lower(), 1)
            verdict = await fault.settled(run)
        fault.saw("announced again", verdict.announced_again)
        fault.saw("restarts", len(run.workers) - len(ROLES))
        for worker in run.workers:
            assert worker.runs or worker.last_words(1).startswith("headrace: "), worker.last_words()

    fault.prove(settings, proof)
