"""One role in a process of its own, measured while it drains a backlog. Prints one JSON object.

    python -m tests.bench.measured ROLE RECORDS      (settings from HEADRACE_ variables)

What it counts begins when a fifth of the records is behind it: kernels are compiled, caches are warm.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import uvloop

from tests.bench.steps import Steps
from workers.roles import Process, calm_the_collector, hosted
from workers.settings import load

WARM = 0.2
STUCK_S = 120.0
_POLL_S = 0.2  # adding up statistics costs a millisecond, which would be counted
# Role -> the counters, in its statistics, of what it has taken in and of what it has made of it.
COUNTERS = {
    "embedding": ("records", "records"),
    "trainer": ("learned", "learned"),
    "retrieval": ("records", "feeds"),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """What was spent and done until now."""

    taken: int
    made: int
    wall: float
    cpu: float
    steps: dict[str, float]


def moment(process: Process, role: str, steps: Steps) -> Moment:
    stats = process.stats()[role]
    taken, made = COUNTERS[role]
    return Moment(
        stats.get(taken, 0), stats.get(made, 0), time.perf_counter(), time.process_time(), dict(steps.seconds)
    )


async def drain(role: str, records: int) -> dict[str, Any]:
    """Run `role` until `records` are behind it."""
    steps = Steps(role)
    async with hosted(load(), [role]) as process:
        await process.ready()
        calm_the_collector()
        begun = await reached(process, role, steps, int(records * WARM))
        ended = await reached(process, role, steps, records)
        stats = process.stats()[role]
    made, cpu = max(1, ended.made - begun.made), ended.cpu - begun.cpu  # 0 of a backlog that was gone in a moment
    return {
        "made": made,
        "taken": ended.taken - begun.taken,
        "cpu_s": round(cpu, 3),
        "wall_s": round(ended.wall - begun.wall, 3),
        "per_core_s": round(made / cpu),
        "taken_per_core_s": round((ended.taken - begun.taken) / cpu),
        "per_s": round(made / (ended.wall - begun.wall)),
        "us_each": round(1e6 * cpu / made, 2),
        "steps_us": {
            step: round(1e6 * (seconds - begun.steps.get(step, 0.0)) / made, 2) for step, seconds in ended.steps.items()
        },
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "stats": {name: value for name, value in stats.items() if isinstance(value, int | float)},
    }


async def reached(process: Process, role: str, steps: Steps, records: int) -> Moment:
    """Wait until `records` are taken in. SystemExit when nothing moves."""
    last, moved = -1, time.monotonic()
    while True:
        if process.failed.done():
            process.failed.result()
        now = moment(process, role, steps)
        if now.taken >= records:
            return now
        if now.taken != last:
            last, moved = now.taken, time.monotonic()
        elif time.monotonic() - moved > STUCK_S:
            raise SystemExit(f"bench: {role} stands at {now.taken} of {records} records: {process.stats()}")
        await asyncio.sleep(_POLL_S)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(drain(sys.argv[1], int(sys.argv[2])))))
