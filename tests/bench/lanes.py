"""`./dev bench lanes [--json] [--only PART] [--recipe NAME]`: what shipped workers do here, on a real broker and store.

Every worker is a process of its own with everything on. "A core" is a second of CPU of that process; broker and store
run beside it. The conditions are printed with the figures: as the clients and settings say them before, and after it
what the workers counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.recipe import RECIPES
from tests.bench.latency import latency
from tests.bench.load import Load
from tests.bench.memory import CONSUMED, of_feeds, of_states
from tests.bench.servers import Servers, embedded_pair, servers
from tests.bench.topics import backlog, copy, count, prepare
from workers import kafka
from workers.settings import ENV, Settings, flat_names, load

EMBEDDED = "embedded"  # event to feed on the embedded pair
PARTS = ("embedding", "retrieval", "trainer", "latency", "memory", EMBEDDED)
SMALL, LARGE = Load(users=5_000, items=10_000), Load(users=100_000, items=10_000)
WIDE = Load(users=5_000, items=100_000)
EVENTS = 400_000
RATES = (100, 500, 1_000)
SECONDS = 30  # of each rate
EMBEDDED_EVENTS, EMBEDDED_RATES = 40_000, (100, 500)  # the embedded broker keeps all in memory
EMBEDDED_IDLE = 0.8  # of a core: its fetches come back empty every 20 ms


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
        self._counted: Counter[str] = Counter()  # by the workers that were measured

    def rows(self, parts: tuple[str, ...]) -> Iterator[Row]:
        """Measure one after the other."""
        if "trainer" in parts:
            for of in (SMALL, WIDE):
                yield Row("trainer", f"{of.items:,} items", 12, self._school(of)[1])
        for partitions in (12, 4):
            if "embedding" in parts:
                yield Row("embedding", f"{LARGE.users:,} users", partitions, self._embedded(LARGE, partitions)[1])
            sizes = "memory" in parts and partitions == 12
            if sizes or {"embedding", "retrieval", "latency"} & set(parts):
                settings, figures = self._embedded(SMALL, partitions)
                if "embedding" in parts:
                    yield Row("embedding", f"{SMALL.users:,} users", partitions, figures)
                    enveloped = self._embedded(SMALL, partitions, bare=False)[1]
                    yield Row("embedding", f"{SMALL.users:,} users, CloudEvents", partitions, enveloped)
                yield from self._answers(parts, settings, SMALL, partitions)
                if sizes:
                    yield from self._sizes(settings)
            if "retrieval" in parts:
                settings, _ = self._embedded(WIDE, partitions)
                yield from self._answers(("retrieval",), settings, WIDE, partitions)

    def on_the_pair(self) -> Iterator[Row]:
        """Event to feed, each rate on a prefix of its own."""
        school = self._settings(12, "bench-pair-school", model_flush_bytes=load(environ={}).model.flush_bytes)
        asyncio.run(prepare(school))
        asyncio.run(backlog(school, SMALL.events(EMBEDDED_EVENTS, school.prefix)))
        for role in ("embedding", "trainer"):
            self._measure(role, school, EMBEDDED_EVENTS)
        for rate in EMBEDDED_RATES:
            settings = self._settings(12, f"bench-pair-{rate}")
            asyncio.run(prepare(settings))
            asyncio.run(copy(school, settings, "model"))
            asyncio.run(backlog(settings, SMALL.events(EMBEDDED_EVENTS, settings.prefix)))
            figures = latency(settings, environment(settings), SMALL, rate, SECONDS, EMBEDDED_IDLE)
            yield Row(EMBEDDED, f"{rate:,} events/s", 12, figures)

    def conditions(self) -> str:
        """What holds for all figures, as machine, servers, clients and settings say it."""
        settings = self._settings(12, "bench")
        lives = f"states live {settings.users.ttl_days:g} days, cached feeds {settings.feed.cache_days:g}"
        return "; ".join(
            (
                machine(), self._on.names, f"recipe {self._recipe}", asyncio.run(_writes(settings)), lives,
                f"dimension {settings.model.dimension}", f"load before: {os.getloadavg()[0]:.1f}",
            )
        )  # fmt: skip

    def counted(self) -> str:
        """What the workers counted of all that was drained, each model's school included."""
        found = self._counted
        return (
            f"{found['records']:,} events were read and validated: {found['dead_letters']:,} dead letters, "
            f"{found['duplicate']:,} with an id seen before; models learned from {found['learned']:,} events"
        )

    def _sizes(self, settings: Settings) -> Iterator[Row]:
        figures = asyncio.run(of_states(settings))
        yield Row("memory", f"state of a user with {CONSUMED} consumed items", 12, figures)
        for recipe in RECIPES:
            self._say(f"feeds of the users of {settings.prefix} by recipe {recipe}")
            made_by = self._settings(12, f"bench-memory-{recipe}", feed_recipe=recipe)
            yield Row("memory", f"cached feed, recipe {recipe}", 12, asyncio.run(of_feeds(settings, made_by)))

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
        settings = self._settings(partitions, prefix)
        asyncio.run(prepare(settings))
        if model is not None:
            asyncio.run(copy(model, settings, "model"))
        asyncio.run(backlog(settings, Load(of.users, of.items, seed).events(EVENTS, prefix), bare=bare))
        return settings, self._measure("embedding", settings, EVENTS)

    def _settings(self, partitions: int, prefix: str, **more: Any) -> Settings:
        where = {"kafka_bootstrap": self._on.bootstrap, "store_url": self._on.store_url, "kafka_partitions": partitions}
        flags = {**self._on.flags, **where, "prefix": prefix, "feed_recipe": self._recipe, **more}
        return load(environ={}, flags=flags)

    def _measure(self, role: str, settings: Settings, records: int) -> dict[str, Any]:
        self._say(f"{role} worker drains {records:,} records of {settings.prefix}")
        command = [sys.executable, "-m", "tests.bench.measured", role, str(records)]
        done = subprocess.run(command, env=environment(settings), stdout=subprocess.PIPE, check=True, text=True)
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        wanted = {"embedding": ("records", "dead_letters", "duplicate"), "trainer": ("learned",)}.get(role, ())
        self._counted.update({name: figures["stats"].get(name, 0) for name in wanted})
        return figures


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a process these settings, whatever this one's say."""
    usual = load(environ={})
    given = {name: (_at(settings, path), _at(usual, path)) for name, path in flat_names()}
    named = {f"{ENV}{name.upper()}": str(value) for name, (value, other) in given.items() if value != other}
    others = {name: value for name, value in os.environ.items() if not name.startswith(ENV)}
    return {**others, "OPENBLAS_NUM_THREADS": "1", **named}


def _at(settings: Settings, path: tuple[str, ...]) -> Any:
    found: Any = settings
    for name in path:
        found = getattr(found, name)
    return found


async def _writes(settings: Settings) -> str:
    """How the workers' producer writes to this broker."""
    client = await kafka.start_producer(settings)
    try:
        acks = "all" if client._sender._acks == -1 else client._sender._acks
        ids = "an idempotent producer" if client._txn_manager is not None else "no producer ids, so no idempotence"
        return f"acks={acks} of {settings.kafka.replication} replica, {ids}"
    finally:
        await client.stop()


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
    if row.part == "memory":
        result = f"{f['bytes']:,} bytes each, for a value of {f['value']:,} (mean of {f['users']} users)"
    elif row.part in ("latency", EMBEDDED):
        result = f"p50 {f['p50']} ms, p95 {f['p95']} ms, p99 {f['p99']} ms ({f['cpu_percent']} % of a core)"
    else:
        made = f"{f['per_core_s']:,} events/s and core"
        if row.part == "retrieval":  # several states of a user may be answered by one feed
            made = f"{f['per_core_s']:,} feeds/s and core of {f['taken_per_core_s']:,} states"
        steps = ", ".join(f"{step} {us}" for step, us in f["steps_us"].items())
        result = f"{made}, {f['us_each']} us each" + (f" ({steps})" if steps else "")
    return f"| {row.part} | {row.what} | {row.partitions} | {result} |"


def measured(parts: tuple[str, ...], recipe: str, say: Callable[[str], None]) -> Iterator[str | Row]:
    """Of the real servers, then of the embedded pair: conditions, rows, what the workers counted."""
    real = tuple(part for part in parts if part != EMBEDDED)
    if real:
        with servers() as on:
            bench = Bench(on, say, recipe)
            yield bench.conditions()
            yield from bench.rows(real)
            yield bench.counted()
    if EMBEDDED in parts:
        with embedded_pair() as on:
            bench = Bench(on, say, recipe)
            yield bench.conditions()
            yield from bench.on_the_pair()
            yield bench.counted()


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench lanes", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part only; repeatable")
    parser.add_argument("--recipe", default="home", choices=RECIPES, help="what feeds are made by")
    asked = parser.parse_args()

    def say(text: str) -> None:
        print(f"bench: {text}", file=sys.stderr, flush=True)

    conditions: list[str] = []
    rows: list[dict[str, Any]] = []
    for one in measured(tuple(asked.only or PARTS), asked.recipe, say):
        if isinstance(one, str):
            conditions.append(one)
            begins = len(conditions) % 2 == 1
            text = f"{one}\n\n| worker | load | partitions | result |\n|---|---|---|---|" if begins else f"\n{one}\n"
        else:
            rows.append(asdict(one))
            text = readable(one)
        if not asked.json:
            print(text, flush=True)
    if asked.json:
        print(json.dumps({"conditions": conditions, "rows": rows}))


if __name__ == "__main__":
    main()
