"""States that an embedding worker keeps in memory: what it last wrote, as long as its claim on a partition holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workers.wire.marker import Marker


@dataclass(slots=True)
class _Partition:
    """Users of one partition. Least recently written first."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    markers: dict[str, Marker] = field(default_factory=dict)  # of users that were forgotten


class StateCache:
    """States by partition and user, `most` of them; and the forget markers of these users."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._partitions: dict[int, _Partition] = {}
        self._count = 0

    def blobs(self, partition: int) -> dict[str, bytes]:
        """The states of a partition's users, those that are here; not to be changed."""
        known = self._partitions.get(partition)
        return known.blobs if known else {}

    def markers(self, partition: int) -> dict[str, Marker]:
        """The markers of a partition's users, where there is one here; not to be changed."""
        known = self._partitions.get(partition)
        return known.markers if known else {}

    def put(
        self, partition: int, users: Sequence[str], blobs: Sequence[bytes], markers: Mapping[str, Marker]
    ) -> list[str]:
        """Take in what is in the store now. Returns the users without a state (b""): of them nothing is kept here, the
        store has the marker."""
        known = self._partitions.setdefault(partition, _Partition())
        before, gone = len(known.blobs), []
        known.markers.update(markers)
        for user, blob in zip(users, blobs, strict=True):
            known.blobs.pop(user, None)  # to the end: it is the most recent now
            if blob:
                known.blobs[user] = blob
            else:  # forgotten, or never known
                known.markers.pop(user, None)
                gone.append(user)
        self._count += len(known.blobs) - before
        if self._count > self._most:
            self._shrink()
        return gone

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        known = self._partitions.pop(partition, None)
        self._count -= len(known.blobs) if known else 0

    def _shrink(self) -> None:
        """Drop the least recently written tenth of each partition."""
        for known in self._partitions.values():
            for user in list(known.blobs)[: len(known.blobs) // 10 + 1]:
                del known.blobs[user]
                known.markers.pop(user, None)
                self._count -= 1
