"""The topics of a benchmark: made, filled, copied, counted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from workers import topics
from workers.importers.dataset import Data
from workers.importers.play import encode
from workers.outside.audit import read_back
from workers.producer import Producer
from workers.settings import Settings
from workers.store import Store
from workers.wire.output import Output

WRITE = 5_000


async def prepare(settings: Settings) -> None:
    """Topics and functions."""
    await topics.ensure(settings)
    store = await Store.connect(settings)
    try:
        await store.install()
    finally:
        await store.close()


async def backlog(settings: Settings, events: Iterable[Data], *, bare: bool = True) -> None:
    """Write events: bare JSON as most producers do, or in CloudEvents' binary mode, seven headers each, as ours do."""
    write_one = _bare if bare else _binary
    await write(settings, (write_one(settings, data) for data in events))


def _bare(settings: Settings, data: Data) -> Output:
    return Output(settings.topic("events"), data["user_id"].encode(), msgspec.json.encode(data))


def _binary(settings: Settings, data: Data) -> Output:
    return encode(settings, ("event", data))


async def copy(source: Settings, target: Settings, dataset: str, *, newest: bool = False) -> int:
    """Write all that stands on a topic of `source` to that of `target`, in order; with `newest` of each key the last
    record. Returns how many there were to write."""
    outputs: dict[Any, Output] = {}
    name = target.topic(dataset)

    def keep(records: Any) -> None:
        for r in records:
            outputs[r.key if newest else len(outputs)] = Output(name, r.key, r.value, list(r.headers), r.partition)

    await read_back(source, dataset, keep)
    await write(target, outputs.values())
    return len(outputs)


async def count(settings: Settings, dataset: str) -> int:
    """Records on a topic."""
    counted = 0

    def add(records: Any) -> None:
        nonlocal counted
        counted += len(records)

    await read_back(settings, dataset, add)
    return counted


async def write(settings: Settings, outputs: Iterable[Output]) -> None:
    """Write outputs and wait for their acknowledgements."""
    producer = await Producer(settings).start()
    try:
        source = iter(outputs)
        while chunk := list(islice(source, WRITE)):
            await producer.send(chunk)
    finally:
        await producer.stop()
