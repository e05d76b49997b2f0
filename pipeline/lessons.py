"""Lessons: the positive events that `states` records tell of, each with the history its user had before it.

A record holds the ring after its batch, what the batch pushed out, and the fresh events. So S = ring ++ evicted is all
that the user had, newest first, and the j-th newest fresh positive event (j = 0, 1, ...) is S[j] with the history
S[j+1 : j+1+L]. Without `evicted` the history is shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.blob import States
from pipeline.types import F32, I64, RING, U8, U32, U64, Rings


@dataclass(frozen=True, slots=True)
class Told:
    """What n `states` records tell: states after their batches, f fresh events in log order a record."""

    partition: I64  # (n,)
    states: States  # n
    evicted_start: I64  # (n+1,)
    evicted_items: U64  # newest first
    evicted_times: U32
    evicted_actions: U8
    fresh_start: I64  # (n+1,)
    offset: I64  # (f,)
    time: I64  # (f,) ms
    item: U64  # (f,) hash, 0 = the event names none
    action: U8  # (f,) code
    item_ids: list[str]  # f


@dataclass(frozen=True, slots=True)
class Lessons:
    """m events to learn from, a record's in log order; and i others, which were only met."""

    partition: I64  # (m,)
    offset: I64  # (m,)
    item: U64  # (m,) hash of the target
    item_ids: list[str]  # m
    weight: F32  # (m,) > 0
    time: I64  # (m,) ms
    rings: Rings  # (m) before the event
    before: I64  # (m,) positive events before
    owner: I64  # (m,) record, ascending
    consumed_start: I64  # (n+1,)
    consumed: U32  # truncated hashes
    idle_partition: I64  # (i,)
    idle_offset: I64  # (i,)

    def __len__(self) -> int:
        return len(self.item)


def lessons_from(told: Told, weights: F32) -> Lessons:
    """The lessons of n records; `weights` (256,) by action code.

    An event is positive if its weight is > 0 and it names an item. A history that does not lead to the event's own item
    is not trusted: it is left empty. Events from before a forget in the same batch are only met.
    """
    fresh = np.repeat(np.arange(len(told.partition)), np.diff(told.fresh_start))  # (f,) record
    weight = weights[told.action]
    newer = _newer(told.fresh_start, (weight > 0) & (told.item != 0))  # (f,) positives after it in its record, or -1
    before = told.states.positives[fresh] - 1 - newer
    taken = (newer >= 0) & (before >= 0)
    at, idle = np.flatnonzero(taken), np.flatnonzero(~taken)
    rings = Rings(
        np.zeros((len(at), RING), np.uint64),
        np.zeros((len(at), RING), np.uint32),
        np.zeros((len(at), RING), np.uint8),
        np.zeros(len(at), np.int64),
    )
    _histories(
        fresh[at], newer[at], told.item[at],
        told.states.rings.items, told.states.rings.times, told.states.rings.actions, told.states.rings.length,
        told.evicted_start, told.evicted_items, told.evicted_times, told.evicted_actions,
        rings.items, rings.times, rings.actions, rings.length,
    )  # fmt: skip
    return Lessons(
        partition=told.partition[fresh[at]],
        offset=told.offset[at],
        item=told.item[at],
        item_ids=[told.item_ids[event] for event in at],
        weight=weight[at],
        time=told.time[at],
        rings=rings,
        before=before[at],
        owner=fresh[at],
        consumed_start=told.states.consumed_start,
        consumed=told.states.consumed,
        idle_partition=told.partition[fresh[idle]],
        idle_offset=told.offset[idle],
    )


@njit(cache=True)
def _newer(start: I64, positive: U8) -> I64:
    newer = np.full(len(positive), -1, np.int64)
    for record in range(len(start) - 1):
        n = 0
        for at in range(start[record + 1] - 1, start[record] - 1, -1):
            if positive[at]:
                newer[at] = n
                n += 1
    return newer


@njit(cache=True)
def _histories(
    record: I64, newer: I64, item: U64, items: U64, times: U32, actions: U8, length: I64,
    evicted_start: I64, evicted_items: U64, evicted_times: U32, evicted_actions: U8,
    out_items: U64, out_times: U32, out_actions: U8, out_length: I64,
) -> None:  # fmt: skip
    for at in range(len(record)):
        user, n = record[at], 0
        ring, begin, end = length[user], evicted_start[user], evicted_start[user + 1]
        for place in range(newer[at], min(newer[at] + 1 + RING, ring + end - begin)):
            inside = place < ring
            gone = begin + place - ring
            entry = items[user, place] if inside else evicted_items[gone]
            if place == newer[at]:
                if entry != item[at]:
                    break
                continue
            out_items[at, n] = entry
            out_times[at, n] = times[user, place] if inside else evicted_times[gone]
            out_actions[at, n] = actions[user, place] if inside else evicted_actions[gone]
            n += 1
        out_length[at] = n
