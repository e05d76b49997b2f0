"""Event to feed: from the writing of an event to its feed's arrival at a subscriber, all roles in one other process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.load import Load
from tests.waiting import eventually
from workers.importers.dataset import Moment
from workers.importers.play import Player
from workers.outside.watch import Watch, following
from workers.producer import Producer
from workers.settings import Settings

WARM_S = 10  # of events at the same rate that are not counted
START_S = 120.0
IDLE = 0.2  # of a core
_TICKS = os.sysconf("SC_CLK_TCK")


def latency(
    settings: Settings, environ: dict[str, str], of: Load, rate: int, seconds: int, idle: float = IDLE
) -> dict[str, Any]:
    """p50, p95, p99 in ms at `rate` events a second, and what the worker spends. It begins when the worker spends less
    than `idle` of a core."""
    worker = subprocess.Popen([sys.executable, "-m", "workers.cli", "worker", "all"], env=environ, stdout=sys.stderr)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(_probe(settings, worker.pid, of, rate, seconds, idle))
        if worker.poll() is not None:
            raise SystemExit(
                f"bench: the worker of {settings.prefix} ended by itself with {worker.returncode}, see above"
            )
        return figures
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)


async def _probe(settings: Settings, pid: int, of: Load, rate: int, seconds: int, idle: float) -> dict[str, Any]:
    producer, watch = await Producer(settings).start(), Watch(settings)
    try:
        async with following(watch.followers[0]):
            await watch.followers[0].caught_up.wait()
            player = Player(settings, producer, watch.wrote)
            await _answers(player, watch, of)
            await eventually(lambda: _idle(pid, idle), START_S)  # the trainer may have a backlog of its own
            await player.play(_moments(of, rate * WARM_S), rate)
            begun, spent = time.perf_counter(), _cpu_s(pid)
            await player.play(_moments(of, rate * seconds), rate)
            spent, took = _cpu_s(pid) - spent, time.perf_counter() - begun
            await asyncio.sleep(1)
            return {
                **watch.percentiles(begun),
                "feeds": sum(at >= begun for at, _ in watch.latencies),
                "events": rate * seconds,
                "rate": round(rate * seconds / took, 1),
                "cpu_percent": round(100 * spent / took),
            }
    finally:
        await producer.stop()


async def _answers(player: Player, watch: Watch, of: Load) -> None:
    """Wait until the worker has started and caught up: an event written now is answered."""

    async def answered() -> bool:
        before = watch.feeds
        await player.play(_moments(of, 1))
        await asyncio.sleep(0.5)
        return watch.feeds > before

    await eventually(answered, START_S)


async def _idle(pid: int, idle: float) -> bool:
    """Whether a process that nobody asks anything spends next to nothing for three seconds."""
    spent = _cpu_s(pid)
    await asyncio.sleep(3)
    return _cpu_s(pid) - spent < 3 * idle


def _moments(of: Load, count: int) -> list[Moment]:
    """Events of now, whose ids nobody has had."""
    moments: list[Moment] = []
    for data in islice(of.events(of.items + count, uuid.uuid4().hex), of.items, None):
        del data["time"]  # that of its record
        moments.append(("event", data))
    return moments


def _cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has spent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
