"""`./dev bench lanes [--json] [--only PART] [--recipe NAME]`: what shipped workers do here, on a real broker and store.

Every worker is a process of its own with everything on: validation, TTLs, distinct event ids, acks of all replicas,
an idempotent producer, a trained model. "A core" is a second of CPU of that process; broker and store run beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.recipe import RECIPES
from tests.bench.latency import latency
from tests.bench.load import Load
from tests.bench.servers import Servers, servers
from tests.bench.topics import backlog, copy, count, prepare
from workers.settings import Settings, load

PARTS = ("embedding", "retrieval", "trainer", "latency")
SMALL, LARGE = Load(users=5_000, items=10_000), Load(users=100_000, items=10_000)
WIDE = Load(users=5_000, items=100_000)
EVENTS = 400_000
RATES = (100, 500, 1_000)
SECONDS = 30  # of each rate


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    part: str
    what: str
    partitions: int
    figures: dict[str, Any]


class Bench:
    """Measures against one pair of servers; prefixes are this run's own."""

    def __init__(self, on: Servers, say: Callable[[str], None], recipe: str = "home") -> None:
        self._on, self._say, self._recipe = on, say, recipe
        self._trained: dict[int, tuple[Settings, dict[str, Any]]] = {}  # items -> where the model is, its measurement

    def rows(self, parts: tuple[str, ...]) -> Iterator[Row]:
        """Measure one after the other."""
        if "trainer" in parts:
            for of in (SMALL, WIDE):
                yield Row("trainer", f"{of.items:,} items", 12, self._school(of)[1])
        for partitions in (12, 4):
            if "embedding" in parts:
                yield Row("embedding", f"{LARGE.users:,} users", partitions, self._embedded(LARGE, partitions)[1])
            if {"embedding", "retrieval", "latency"} & set(parts):
                settings, figures = self._embedded(SMALL, partitions)
                if "embedding" in parts:
                    yield Row("embedding", f"{SMALL.users:,} users", partitions, figures)
                    enveloped = self._embedded(SMALL, partitions, bare=False)[1]
                    yield Row("embedding", f"{SMALL.users:,} users, CloudEvents", partitions, enveloped)
                yield from self._answers(parts, settings, SMALL, partitions)
            if "retrieval" in parts:
                settings, _ = self._embedded(WIDE, partitions)
                yield from self._answers(("retrieval",), settings, WIDE, partitions)

    def _answers(self, parts: tuple[str, ...], settings: Settings, of: Load, partitions: int) -> Iterator[Row]:
        if "retrieval" in parts:
            figures = self._measure("retrieval", settings, asyncio.run(count(settings, "states")))
            yield Row("retrieval", f"{of.items:,} items", partitions, figures)
        if "latency" in parts:
            for rate in RATES:
                figures = latency(settings, environment(settings), of, rate, SECONDS)
                yield Row("latency", f"{rate:,} events/s", partitions, figures)

    def _school(self, of: Load) -> tuple[Settings, dict[str, Any]]:
        """A model trained on a load of its own: its trainer's measurement, and where the model topic is."""
        if of.items not in self._trained:
            settings, _ = self._drained(of, 12, f"bench-school-{of.items}", seed=2)
            figures = self._measure("trainer", settings, EVENTS)
            self._trained[of.items] = settings, figures
        return self._trained[of.items]

    def _embedded(self, of: Load, partitions: int, *, bare: bool = True) -> tuple[Settings, dict[str, Any]]:
        prefix = f"bench-{of.users}-{of.items}-{partitions}{'' if bare else '-ce'}"
        return self._drained(of, partitions, prefix, model=self._school(of)[0], bare=bare)

    def _drained(
        self,
        of: Load,
        partitions: int,
        prefix: str,
        *,
        model: Settings | None = None,
        seed: int = 1,
        bare: bool = True,
    ) -> tuple[Settings, dict[str, Any]]:
        """A backlog, drained by an embedding worker; with `model` it starts with the model that is there."""
        flags = {"kafka_bootstrap": self._on.bootstrap, "store_url": self._on.store_url, "kafka_partitions": partitions}
        settings = load(environ={}, flags={**flags, "prefix": prefix, "feed_recipe": self._recipe})
        asyncio.run(prepare(settings))
        if model is not None:
            asyncio.run(copy(model, settings, "model"))
        asyncio.run(backlog(settings, Load(of.users, of.items, seed).events(EVENTS, prefix), bare=bare))
        return settings, self._measure("embedding", settings, EVENTS)

    def _measure(self, role: str, settings: Settings, records: int) -> dict[str, Any]:
        self._say(f"{role} worker drains {records:,} records of {settings.prefix}")
        command = [sys.executable, "-m", "tests.bench.measured", role, str(records)]
        done = subprocess.run(command, env=environment(settings), stdout=subprocess.PIPE, check=True, text=True)
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a process these settings."""
    return {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "HEADRACE_PREFIX": settings.prefix,
        "HEADRACE_KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
        "HEADRACE_KAFKA_PARTITIONS": str(settings.kafka.partitions),
        "HEADRACE_STORE_URL": settings.store.url,
        "HEADRACE_FEED_RECIPE": settings.feed.recipe,
    }


def machine() -> str:
    """What it ran on."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _lines(file: str) -> list[str]:
    path = Path(file)
    return path.read_text().splitlines() if path.exists() else []


def readable(row: Row) -> str:
    """One row of docs/benchmarks.md."""
    f = row.figures
    if row.part == "latency":
        result = f"p50 {f['p50']} ms, p95 {f['p95']} ms, p99 {f['p99']} ms ({f['cpu_percent']} % of a core)"
    else:
        unit = "feeds" if row.part == "retrieval" else "events"
        steps = ", ".join(f"{step} {us}" for step, us in f["steps_us"].items())
        result = f"{f['per_core_s']:,} {unit}/s and core, {f['us_each']} us each" + (f" ({steps})" if steps else "")
    return f"| {row.part} | {row.what} | {row.partitions} | {result} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench lanes", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part only; repeatable")
    parser.add_argument("--recipe", default="home", choices=RECIPES, help="what feeds are made by")
    asked = parser.parse_args()

    def say(text: str) -> None:
        print(f"bench: {text}", file=sys.stderr, flush=True)

    with servers() as on:
        conditions = f"{machine()}; {on.names}; recipe {asked.recipe}; load before: {os.getloadavg()[0]:.1f}"
        print(
            "" if asked.json else f"{conditions}\n\n| worker | load | partitions | result |\n|---|---|---|---|",
            flush=True,
        )
        rows = []
        for row in Bench(on, say, asked.recipe).rows(tuple(asked.only or PARTS)):
            rows.append(asdict(row))
            if not asked.json:
                print(readable(row), flush=True)
    if asked.json:
        print(json.dumps({"conditions": conditions, "rows": rows}))


if __name__ == "__main__":
    main()
