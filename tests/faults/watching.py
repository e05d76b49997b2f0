"""Progress and ownership while a fault happens: sampled from the store, four times a second."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.faults.run import Run
from workers.store import Position

_EVERY_S = 0.25


@dataclass
class _Partition:
    """What was seen of one partition."""

    next: int = -1
    moved_at: float = 0.0
    longest_s: float = 0.0  # without progress
    stints: list[tuple[str, int]] = field(default_factory=list)  # owner, and where it began


class Watched:
    """What was seen of all partitions."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def look(self, positions: dict[int, Position], now: float) -> None:
        """Take in a sample."""
        for p, position in positions.items():
            seen = self._partitions.setdefault(p, _Partition(moved_at=now))
            seen.longest_s = max(seen.longest_s, now - seen.moved_at)
            if position.next > seen.next:
                seen.next, seen.moved_at = position.next, now
            if position.owner and (not seen.stints or seen.stints[-1][0] != position.owner):
                seen.stints.append((position.owner, position.next))

    @property
    def standstill_s(self) -> float:
        """The longest that any partition stood still."""
        return max(seen.longest_s for seen in self._partitions.values())

    @property
    def moves(self) -> int:
        """How often a partition changed its owner."""
        return sum(len(seen.stints) - 1 for seen in self._partitions.values())

    @property
    def returns(self) -> int:
        """How often a partition came back to an owner that it had had, and had taken in events elsewhere meanwhile."""
        found = 0
        for seen in self._partitions.values():
            left: dict[str, int] = {}
            for (owner, began), (_, ended) in zip(seen.stints, [*seen.stints[1:], ("", seen.next)], strict=True):
                found += owner in left and began > left[owner]
                left[owner] = ended
        return found


@contextlib.asynccontextmanager
async def watching(run: Run) -> AsyncIterator[Watched]:
    """Sample for as long as the block runs."""
    watched = Watched()

    async def sample() -> None:
        while True:
            watched.look(await run.positions(), time.monotonic())
            await asyncio.sleep(_EVERY_S)

    sampling = asyncio.create_task(sample())
    try:
        yield watched
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
