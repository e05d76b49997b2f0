"""What an operator's commands ask of the store and no worker ever does: scan its keys, write users anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from workers.store.link import Link, StoreError, pack

_SCANNED = 1000  # keys that the server looks at in one call: about a millisecond


class AnyWrite(Protocol):
    """A key to set, or to delete when the value is empty."""

    @property
    def key(self) -> bytes: ...
    @property
    def ttl_s(self) -> int: ...
    @property
    def value(self) -> bytes: ...


class NotOurs(StoreError):
    """Another rebuilding has begun, or this one was ended: nothing was written."""


class Rebuilding:
    """The users of partitions, written anew. From `begin` to `end` a partition has no position: no worker can claim it,
    and whoever had is fenced. One that is broken off is begun again from the start."""

    def __init__(self, link: Link, position_key: Callable[[int], bytes], owner: str) -> None:
        self._link, self._position_key, self._owner = link, position_key, owner
        self._epochs: dict[int, int] = {}

    async def begin(self, partitions: Sequence[int]) -> None:
        """Take the positions away."""
        calls = [pack(b"FCALL", b"headrace_rebuild", 1, self._position_key(p), self._owner) for p in partitions]
        answers = await self._link.run(calls)
        self._epochs |= {p: int(epoch) for p, epoch in zip(partitions, answers, strict=True)}

    async def write(self, partition: int, writes: Sequence[AnyWrite]) -> None:
        """Set and delete keys of a partition, all or nothing; at most a thousand, for it blocks the store.

        Raises NotOurs.
        """
        args: list[Any] = [b"FCALL", b"headrace_restore", 1 + len(writes), self._position_key(partition)]
        args += [write.key for write in writes]
        args.append(self._epochs[partition])
        for write in writes:
            args += (write.ttl_s, write.value)
        await self._run(partition, pack(*args))

    async def end(self, partition: int, next_: int) -> None:
        """Let the partition stand at `next_`: a worker may claim it. Raises NotOurs."""
        key, epoch = self._position_key(partition), self._epochs[partition]
        await self._run(partition, pack(b"FCALL", b"headrace_rebuilt", 1, key, epoch, next_))

    async def _run(self, partition: int, call: bytes) -> None:
        (answer,) = await self._link.run([call])
        if answer != b"OK":
            raise NotOurs(f"store: someone else rebuilds partition {partition} now; wait for them, or run it again")


async def scan(link: Link, pattern: bytes) -> AsyncIterator[list[bytes]]:
    """Keys that match `pattern`, some at a time; a key may come twice."""
    cursor = b"0"
    while True:
        ((cursor, keys),) = await link.run([pack(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCANNED)])
        if keys:
            yield keys
        if cursor == b"0":
            return
