"""Records of a claimed partition wait in a queue until a batch of them is cut: where it ends. Pure counting."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from workers.positions import Batch, Stand
from workers.wire.envelope import RAW_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a batch of one partition ends, and how much waits in memory for its batch."""

    records: int = 4096
    users: int = 1000  # one call blocks the store
    bytes: int = 16 * 1024 * 1024
    user_records: int = 512
    user_bytes: int = 256 * 1024
    record_bytes: int = RAW_BYTES  # what is larger is refused: it does not count as its user's
    round_users: int = 1_000_000  # of all partitions: a round that takes long holds a rebalance up
    poll_records: int = 8192
    ahead_records: int = 0  # of a backlog are read before a round; 0 = one poll
    ahead_bytes: int = 32 * 1024 * 1024
    newest_wins: bool = False  # a user counts with the last record that waits: the others may be left to that one


# A state stands for all that the same user had before: of a backlog many are read at once, and few answered.
NEWEST_WINS = Limits(
    records=16_384,
    bytes=32 * 1024 * 1024,
    user_records=16_384,
    user_bytes=32 * 1024 * 1024,
    record_bytes=32 * 1024 * 1024,
    round_users=1024,
    poll_records=1024,
    ahead_records=16_384,
    newest_wins=True,
)
_USERS_BESIDE = 4  # times as many users as count may be in a batch, together with those who do not count


@dataclass(slots=True)
class Queue:
    """Records of a claimed partition that are not yet in a batch."""

    stand: Stand
    position: int  # next offset to read
    records: deque[Any] = field(default_factory=deque)
    passed: int = 0  # up to here the client found nothing more to hand out, only transactions' markers
    hole_at: int = -1  # a hole seen here once already
    progressed: float = 0.0

    def cut(self, partition: int, limits: Limits, users: int) -> Batch | None:
        """The next batch, in which at most `users` users count; None where nothing waits. One that is announced again
        ends before the first offset that is not applied."""
        if not self.records:
            return None
        again = self.records[0].offset < self.stand.next
        records = self._take(self.stand.next if again else None, limits, min(users, limits.users))
        expected = records[0].offset if again else self.stand.next
        waiting = self._newest_of({record.key for record in records}) if limits.newest_wins else ()
        return Batch(partition, records, expected, records[-1].offset + 1, again, waiting)

    def _take(self, before: int | None, limits: Limits, most_users: int) -> list[Any]:
        source, total = self.records, 0
        taken: list[Any] = []
        users: dict[bytes | None, list[int]] = {}
        counted = 0  # users
        left = Counter(record.key for record in source) if limits.newest_wins else None
        while source and len(taken) < limits.records and (before is None or source[0].offset < before):
            record = source[0]
            seen = users.get(record.key)
            counts = seen is None if left is None else left[record.key] == 1
            if counted + counts > most_users:
                break
            if seen is None:
                if len(users) == _USERS_BESIDE * most_users:
                    break
                seen = users[record.key] = [0, 0]
            size = len(record.value or b"")
            if taken and total + size > limits.bytes:
                break
            total += size
            size = 0 if size > limits.record_bytes else size
            if seen[0] and (seen[0] == limits.user_records or seen[1] + size > limits.user_bytes):
                break
            seen[0] += 1
            seen[1] += size
            counted += counts
            if left is not None:
                left[record.key] -= 1
            taken.append(source.popleft())
        return taken

    def _newest_of(self, keys: set[bytes | None]) -> list[Any]:
        """The newest waiting record of each user who has one."""
        newest = {record.key: record for record in self.records if record.key in keys}
        return list(newest.values())
