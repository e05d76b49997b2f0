"""The broker does not take outputs: they are too large for the topic, or it does not answer.

Nothing is acknowledged without its output: the worker ends or waits with `sent` behind `next`, its successor announces
what was stored, feeds are made again, and in the end everyone's last version is announced and answered.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.backing import Backing
from tests.conftest import MakeSettings, settings_maker
from tests.faults.account import Fault
from tests.faults.configs import configured
from tests.faults.feeds import answered
from tests.faults.nodes import Nodes, broker_nodes
from tests.faults.processes import Worker
from tests.faults.run import FAST, Run
from tests.waiting import eventually

pytestmark = pytest.mark.slow

STANDS = {"HEADRACE_FAILPOINT_AFTER_APPLY": "pause:2"}  # long enough to freeze the broker meanwhile
TOO_SMALL = "600"  # bytes of a batch that the topic takes: less than what announces one user


async def ended(worker: Worker) -> None:
    """Wait until a worker has ended by itself, and see that it said why."""

    async def gone() -> bool:
        return not worker.runs

    await eventually(gone, 90)
    assert worker.process.returncode == 1
    assert worker.logged("headrace: produce:") == 1


async def unannounced(run: Run) -> int:
    """Events that are stored, and whose announcements are not acknowledged."""
    return sum(position.next - position.sent for position in (await run.positions()).values())


def test_announcements_too_large_for_the_topic(fault: Fault, make_settings: MakeSettings) -> None:
    events = fault.amount("events", short=1_000, long=20_000)
    restarts = fault.amount("restarts", short=1, long=5)

    async def proof(run: Run) -> None:
        async with configured(run.settings, "states", max_message_bytes=TOO_SMALL):
            await run.drive(events)
            for _ in range(1 + restarts):
                worker = run.spawn()
                await ended(worker)
                fault.bit("refused", worker.logged("MessageSizeTooLarge"))
                fault.bit("stored, not announced", await unannounced(run))
        worker = run.spawn()
        verdict = await fault.settled(run)
        fault.bit("announced again", verdict.announced_again)
        assert worker.runs

    fault.prove(make_settings(**FAST), proof)


def test_announcements_not_taken_in_time(fault: Fault, store_url: str) -> None:
    """The broker stands still between a batch's apply and its acknowledgement. For a while: the same worker waits and
    goes on. For longer than it waits for an acknowledgement: it ends, and its successor announces again."""
    events = fault.amount("events", short=1_000, long=20_000)
    ends = fault.amount("workers ended", short=0, long=1)

    async def proof(run: Run, nodes: Nodes) -> None:
        worker = run.spawn(**STANDS)
        await run.drive(events)
        await run.at_its_worst(worker)
        await asyncio.to_thread(nodes.freeze, 1)
        fault.bit("frozen", 1)

        async def waits() -> int:
            return await unannounced(run)

        fault.bit("stored, not announced", await eventually(waits, 30))
        if ends:
            await ended(worker)
        await asyncio.to_thread(nodes.thaw, 1)
        with fault.recovery():
            if ends:
                worker = run.spawn()
            verdict = await fault.settled(run)
        fault.saw("announced again", verdict.announced_again)
        assert worker.runs

    with broker_nodes(1) as nodes:
        backing = Backing(nodes.bootstrap, "one node", real=True, flags={"kafka_bootstrap": nodes.bootstrap})
        with settings_maker(backing, store_url) as make:
            fault.prove(make(**FAST), lambda run: proof(run, nodes))


def test_feeds_too_large_for_the_topic(fault: Fault, make_settings: MakeSettings) -> None:
    """The store has such a feed already when the broker refuses it: it is made again, newer, and sent."""
    events = fault.amount("events", short=500, long=10_000)

    async def proof(run: Run) -> None:
        run.spawn()
        await run.drive(events, forget=0.0)
        await run.drained()
        async with configured(run.settings, "feeds", max_message_bytes=TOO_SMALL):
            worker = run.spawn("retrieval")
            await ended(worker)
            fault.bit("refused", worker.logged("MessageSizeTooLarge"))
            assert await run.read("feeds") == []
        run.spawn("retrieval")
        fault.saw("users answered", await answered(run))
        await fault.settled(run)

    fault.prove(make_settings(**FAST), proof)
