"""Headrace broken on purpose, to see the faults' tests fail: a worker's entry that takes one promise away first.

    python -m tests.faults.mutants offset_check_off worker embedding

Nothing of this is in what is shipped: a mutation is a patch of the process that runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any

from workers import kernels

kernels.prepare()  # before anything imports numba

from aiokafka import TopicPartition  # noqa: E402

from workers import cli, roles  # noqa: E402
from workers.positions import MayClaim, Result, Stand, StoredPositions  # noqa: E402
from workers.store import store  # noqa: E402

_OFFSET_CHECK = b"  if next == args[3] then return 'DUP' end\n  if next ~= args[2] then return {'GAP', next} end\n"


def library_without_offset_check() -> bytes:
    """The store's functions, with an `apply` that writes wherever the position stands."""
    assert store.LIBRARY.count(_OFFSET_CHECK) == 1
    return store.LIBRARY.replace(_OFFSET_CHECK, b"")


def offset_check_off() -> None:
    """The store applies a batch although it stands elsewhere."""
    store.LIBRARY = library_without_offset_check()


def sent_missing() -> None:
    """A lane starts at the first offset not applied: what was applied and not announced stays so."""
    checked = StoredPositions._checked_start

    def from_next(self: StoredPositions, partition: int, next_: int, sent: int, log_start: int) -> int:
        return max(next_, checked(self, partition, next_, sent, log_start))

    StoredPositions._checked_start = from_next  # type: ignore[method-assign]


class CommittedPositions(StoredPositions):
    """Commits to the group what it has sent, and starts at the group's commit instead of the store's position."""

    _consumer: Any = None

    async def claim(self, consumer: Any, partitions: Collection[int], may: MayClaim) -> dict[int, Stand]:
        self._consumer = consumer
        stands = await super().claim(consumer, partitions, may)
        for partition, stand in stands.items():
            committed = await consumer.committed(TopicPartition(self._topic, partition))
            stand.start = stand.start if committed is None else committed
        return stands

    async def advance(self, results: list[Result]) -> None:
        await super().advance(results)
        done = {TopicPartition(self._topic, r.batch.partition): r.batch.next for r in results}
        if done:
            await self._consumer.commit(done)


def committed_position() -> None:
    """The position of Kafka's group counts, not the one beside the states."""
    vars(roles)["StoredPositions"] = CommittedPositions


MUTATIONS: dict[str, Callable[[], None]] = {
    "offset_check_off": offset_check_off,
    "sent_missing": sent_missing,
    "committed_position": committed_position,
}

if __name__ == "__main__":
    MUTATIONS[sys.argv[1]]()
    cli.main(sys.argv[2:])
