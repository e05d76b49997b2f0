"""A position is deleted, states are deleted, or retention passes a position: refused or alarmed, with the exact number.

Never silent: a worker that would have to guess ends and says why; `headrace verify` names the users whose states are
gone; what the runbook says mends it. Afterwards users are equal byte for byte to what the applied log makes of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import redis
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.state import durable
from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.processes import ROOT, Worker
from tests.faults.run import FAST, Run
from tests.waiting import eventually
from workers import kafka
from workers.failpoints import EXIT_CODE

pytestmark = pytest.mark.slow

COMMAND_S = 120
LEFT = 10  # events of a partition that retention leaves


async def headrace(run: Run, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of an operator on this prefix."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "workers.cli", *words],
        cwd=ROOT, env={**os.environ, **run.environ()}, capture_output=True, text=True, timeout=COMMAND_S, check=False,
    )  # fmt: skip


async def ended(worker: Worker) -> str:
    """Wait until a worker has refused to go on; its last line."""

    async def gone() -> bool:
        return not worker.runs

    await eventually(gone, within_s=90)
    assert worker.process.returncode == 1, worker.last_words()
    return worker.last_words(1)


async def cut(run: Run, before: dict[int, int]) -> None:
    """Retention, at once: events before these offsets are gone."""
    topic = run.settings.topic("events")
    async with kafka.admin(run.settings) as client:
        await client.delete_records({TopicPartition(topic, p): RecordsToDelete(at) for p, at in before.items()})


def server(run: Run) -> redis.Redis:
    return redis.Redis.from_url(run.settings.store.url)


def states(run: Run) -> dict[bytes, bytes]:
    """The durable state under each user's key."""
    with server(run) as client:
        found = {key: client.get(key) for key in client.scan_iter(f"{run.settings.prefix}:u:*", 1000)}
    return {key: durable(blob) for key, blob in found.items()}


async def rebuilt(run: Run) -> None:
    """What the runbook says: rebuild, start workers, let them read the log that is there, verify."""
    done = await headrace(run, "users", "rebuild")
    assert done.returncode == 0, done.stderr
    run.spawn()
    await run.drained()
    verified = await headrace(run, "verify")
    assert verified.returncode == 0, verified.stdout


def test_position_deleted(fault: Fault, make_settings: MakeSettings) -> None:
    """The running worker ends. While the log begins at 0 its successor reads all of it again, and every state skips
    what it holds; after retention it refuses, until the states are rebuilt."""
    events = fault.amount("events", short=1_500, long=50_000)

    async def lose_position(run: Run) -> str:
        worker = run.spawn()
        await run.owns_all(worker)
        await run.drained()
        with server(run) as client:
            fault.bit("positions deleted", client.delete(f"{run.settings.prefix}:o:{{2}}"))
        await run.drive(200)
        said = await ended(worker)
        assert "[2]@" in said
        assert "the store has lost its position" in said
        return said

    async def proof(run: Run) -> None:
        await run.drive(events)
        await lose_position(run)
        heir = run.spawn()
        await fault.settled(run)
        assert heir.stop() == 0
        fault.bit("events read again", heir.counted("replayed"))
        await lose_position(run)
        log = await run.read("events")
        await cut(run, {p: at.next // 2 for p, at in (await run.positions()).items()} | {2: 1})
        said = await ended(run.spawn())
        assert "no position for partition 2 while the log does not begin at 0" in said
        fault.bit("refused", 1)
        await rebuilt(run)
        (await run.verdict(log)).assert_equal()

    fault.prove(make_settings(**FAST), proof)


def test_states_deleted(fault: Fault, make_settings: MakeSettings) -> None:
    """`verify` counts them, and names them; rebuilding brings them back."""
    events = fault.amount("events", short=1_500, long=50_000)
    deleted = fault.amount("states", short=17, long=100)

    async def proof(run: Run) -> None:
        worker = run.spawn()
        await run.drive(events)
        await run.drained()
        assert worker.stop() == 0
        before = states(run)
        chosen = np.random.default_rng(fault.seed).choice(sorted(before), deleted, replace=False)
        with server(run) as client:
            fault.bit("states deleted", client.delete(*chosen.tolist()))
        verified = await headrace(run, "verify", "--json")
        found = [one for part in json.loads(verified.stdout)["partitions"] for one in part["differences"]]
        assert verified.returncode == 1
        assert sorted(one["user"] for one in found) == sorted(key.decode().split("}:", 1)[1] for key in chosen.tolist())
        assert {one["what"] for one in found} == {"not in the store"}
        fault.bit("named by verify", len(found))
        await rebuilt(run)
        assert states(run) == before
        await fault.settled(run)

    fault.prove(make_settings(**FAST), proof)


def test_position_out_of_retention(fault: Fault, make_settings: MakeSettings) -> None:
    """A worker that stood still while retention passed it refuses to go on, and so does its successor, with the number
    of events that are gone; told to accept that, it goes on, and announces everything that is left."""
    unread = fault.amount("events unread", short=2_000, long=50_000)

    async def proof(run: Run) -> None:
        worker = run.spawn()
        await run.drive(1_000)
        await run.drained()
        worker.freeze()
        await run.drive(unread)
        log = await run.read("events")
        begins = {p: end - LEFT for p, end in (await run.log_ends()).items()}
        await cut(run, begins)
        worker.thaw()
        words = [await ended(worker)]
        # A fetch that was under way when it froze was answered all the same: of some partitions nothing is gone.
        stood = {p: at.next for p, at in (await run.positions()).items()}
        words.append(await ended(run.spawn()))
        for said in words:
            (p,) = (p for p in begins if f"events.v1[{p}]: the store stands at {stood[p]}, " in said)
            gone = f"{begins[p] - stood[p]} events are gone before they were applied; go on without them with"
            assert gone in said
            fault.bit("refused", 1)
        fault.bit("events gone", sum(max(0, begins[p] - stood[p]) for p in begins))
        going_on = run.spawn("embedding", "--accept-loss")
        await run.drained()
        (await run.verdict([r for r in log if not stood[r.partition] <= r.offset < begins[r.partition]])).assert_equal()
        assert going_on.runs

    fault.prove(make_settings(**FAST), proof)


def test_announcements_out_of_retention(fault: Fault, make_settings: MakeSettings) -> None:
    """A worker dies between storing and announcing, and retention passes what it did not announce: its successor alarms
    with the number, and goes on, for the states are whole."""

    async def proof(run: Run) -> None:
        await run.drive(1_000)
        log = await run.read("events")
        dying = run.spawn(HEADRACE_FAILPOINT_AFTER_APPLY="exit")
        assert await asyncio.to_thread(dying.process.wait, 60) == EXIT_CODE
        stood = await run.positions()
        await cut(run, {p: at.next for p, at in stood.items()})
        heir = run.spawn()
        await run.drained()
        alarms = [json.loads(line) for line in heir.log.read_text().splitlines() if "announcements lost" in line]
        told = {alarm["where"]: alarm["lost"] for alarm in alarms if alarm["level"] == "error"}
        lost = {p: at.next - at.sent for p, at in stood.items() if at.next > at.sent}
        assert told == {f"{run.settings.topic('events')}[{p}]": number for p, number in lost.items()}
        fault.bit("announcements lost and told", sum(told.values()))
        verdict = await run.verdict(log)
        assert not verdict.wrong
        assert not verdict.positions_wrong
        fault.saw("users unannounced", len(verdict.unannounced))

    fault.prove(make_settings(**FAST), proof)
