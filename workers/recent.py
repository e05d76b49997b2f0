"""What all users did lately, as a process sees it: `recent`, followed from its topic into the neighbourhood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress

import numpy as np
import structlog

from pipeline.model import Model
from pipeline.model.neighbourhood import Neighbourhood
from pipeline.seen import Seen
from pipeline.types import I64, POSITIVE, Mask, Rows
from workers.replica import GATHER_MS, Follower
from workers.settings import Settings
from workers.wire.errors import UnreadableError, expectation, shown
from workers.wire.output import Record, place
from workers.wire.recent import RecentRows, rows_in, unpack_recent
from workers.wire.rules import Rules

log = structlog.get_logger()

_WORTH_A_CALL = 16  # records: a call costs a tenth of a ms, a row a microsecond, and a record may hold thousands


class RecentReplica:
    """Follows every partition of `recent`, from where retention begins, for all lanes of a process.

    Positive events enter a neighbourhood as large as the settings say, in the order of each partition, once: what is
    announced again is passed over.
    """

    def __init__(self, settings: Settings, rules: Rules, model: Model) -> None:
        self.counts: Counter[str] = Counter()
        self.follower = Follower(
            settings, settings.topic("recent"), self.on_recent, fewest=_WORTH_A_CALL, gather_ms=GATHER_MS
        )
        self._model, self._partitions = model, rules.partitions
        model.neighbourhood = Neighbourhood(model.rows, settings.users.neighbours)
        self._seen = Seen()  # offsets in `events`
        self._positive: Mask = np.zeros(256, np.bool_)  # by action code
        for meaning in rules.meanings.values():
            self._positive[meaning.code] = meaning.effect & POSITIVE != 0

    def warm_up(self) -> None:
        """Load the kernels."""
        self._learn(np.empty(0, np.int64), unpack_recent(b""))

    def on_recent(self, records: Sequence[Record]) -> None:
        """Take records in, of any partitions; what cannot be read is counted, logged and left out."""
        partitions, counts = self._read(records)
        values = [record.value for record in compress(records, counts)]
        self._learn(np.repeat(partitions, counts), unpack_recent(b"".join(filter(None, values))))
        self.counts["recent_records"] += len(records)

    def _read(self, records: Sequence[Record]) -> tuple[I64, I64]:
        """The partition of `events` that each record is about, and how many rows it holds; 0 of one that is none."""
        partitions, counts = np.zeros(len(records), np.int64), np.zeros(len(records), np.int64)
        for at, record in enumerate(records):
            try:
                partitions[at] = _partition(record.key, self._partitions)
                counts[at] = rows_in(record.value or b"")
            except UnreadableError as error:
                self.counts["recent_unreadable"] += 1
                log.error("recent record unreadable", at=place(record), expected=expectation(error))
        return partitions, counts

    def _learn(self, partitions: I64, told: RecentRows) -> None:
        new = self._seen.mark(partitions, told.offsets.astype(np.int64))
        forgets = told.items == 0
        take = np.flatnonzero(new & (forgets | self._positive[told.actions]))
        rows: Rows = np.full(len(take), -1, np.int64)
        named = np.flatnonzero(~forgets[take])
        rows[named] = self._model.rows.rows(told.items[take[named]])
        self._model.neighbourhood.add(told.users[take], rows)
        self.counts["recent_events"] += len(named)
        self.counts["recent_forgets"] += len(take) - len(named)
        self.counts["recent_seen"] += len(new) - int(new.sum())


def _partition(key: bytes | None, partitions: int) -> int:
    """Each partition has memory of its own: one that cannot be is refused."""
    if key is None or not key.isdigit() or len(key) > 9 or int(key) >= partitions:
        raise UnreadableError(f"recent: expected a partition of events, below {partitions}, as key, found {shown(key)}")
    return int(key)
