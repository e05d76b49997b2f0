"""Records of `states` as the learner takes them: decoded, their fresh events read, all in arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import structlog

from pipeline.blob import BlobError, States, decode
from pipeline.lessons import Told
from pipeline.types import F32, I64, hash_id
from workers.settings import Settings
from workers.wire.errors import WireError, expectation
from workers.wire.event_data import read_data
from workers.wire.output import Record, place
from workers.wire.rules import Rules
from workers.wire.state import Fresh, RingEntries, StateRecord, decode_state, unpack_ring

log = structlog.get_logger()


def action_weights(settings: Settings) -> F32:
    """Weight by action code, (256,); 0 for codes that nobody uses."""
    weights = np.zeros(256, np.float32)
    for action in settings.all_actions().values():
        weights[action.code] = action.weight
    return weights


def told_by(records: Sequence[Record], rules: Rules, counts: Counter[str]) -> Told:
    """What records of `states` tell. Nulls tell nothing; what cannot be read is counted, logged and left out."""
    origins, read, evicted = _read(records, counts)
    states = _decode(origins, read, evicted, counts)
    fresh = [event for record in read for event in record.fresh]
    item_ids, codes = _deeds(fresh, rules, counts)
    return Told(
        partition=np.array([origin.partition for origin in origins], np.int64),
        states=states,
        evicted_start=_starts([len(entries.items) for entries in evicted]),
        evicted_items=np.concatenate([_NO_ENTRIES.items, *(entries.items for entries in evicted)]),
        evicted_times=np.concatenate([_NO_ENTRIES.times, *(entries.times for entries in evicted)]),
        evicted_actions=np.concatenate([_NO_ENTRIES.actions, *(entries.actions for entries in evicted)]),
        fresh_start=_starts([len(record.fresh) for record in read]),
        offset=np.array([event.offset for event in fresh], np.int64),
        time=np.array([event.time_ms for event in fresh], np.int64),
        item=np.array([hash_id(item_id) if item_id else 0 for item_id in item_ids], np.uint64),
        action=np.array(codes, np.uint8),
        item_ids=item_ids,
    )


_NO_ENTRIES = unpack_ring(b"")


def _read(records: Sequence[Record], counts: Counter[str]) -> tuple[list[Record], list[StateRecord], list[RingEntries]]:
    """The records that can be read, and what they say."""
    origins, read, evicted = [], [], []
    for record in records:
        if record.value is None:
            counts["forgotten"] += 1
            continue
        try:
            state = decode_state(record.value)
            evicted.append(unpack_ring(state.evicted) if state.evicted else _NO_ENTRIES)
        except WireError as error:
            _complain(record, error, counts)
            continue
        origins.append(record)
        read.append(state)
    return origins, read, evicted


def _decode(origins: list[Record], read: list[StateRecord], evicted: list[RingEntries], counts: Counter[str]) -> States:
    """The states of all records; one whose blob is none is taken out of the lists."""
    while True:
        try:
            return decode([record.blob for record in read])
        except BlobError as error:
            _complain(origins[error.row], error, counts)
            for column in (origins, read, evicted):
                del column[error.row]


def _deeds(fresh: Sequence[Fresh], rules: Rules, counts: Counter[str]) -> tuple[list[str], list[int]]:
    """Item id ("" = none) and action code of each event."""
    item_ids, codes = [], []
    for event in fresh:
        try:
            data = read_data(event.data)
        except WireError:  # it was valid when it was applied: another version wrote it
            counts["unreadable_events"] += 1
            item_ids.append("")
            codes.append(0)
            continue
        item_ids.append(data.item_id or "")
        codes.append(rules.meaning(data.action, data.value).code)
    return item_ids, codes


def _starts(lengths: list[int]) -> I64:
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _complain(record: Record, error: ValueError, counts: Counter[str]) -> None:
    counts["unreadable"] += 1
    log.error("state record unreadable: nothing is learned from it", at=place(record), expected=expectation(error))
