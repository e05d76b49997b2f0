"""The positive events of a stream, as plain numbers: users and items in the order in which they appear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.stream import Stream
from pipeline.types import I64, POSITIVE


@dataclass(frozen=True, slots=True)
class Deeds:
    """m positive events, in the order of their times."""

    event: I64  # (m,) place in the stream
    user: I64  # (m,) 0, 1, ...
    item: I64  # (m,) 0, 1, ...
    history: I64  # (m,) positive events of the user before it

    def __len__(self) -> int:
        return len(self.user)


def deeds_of(stream: Stream, applied: I64 | None = None) -> Deeds:
    """What is predicted and learned of `stream`: its positive events, or of these those at places `applied` (m,).

    Events that were sent twice are so left out for everyone. Users must not forget: that rule of the workers is not
    part of the comparison, and the contest refuses streams on which it matters.
    """
    event = np.flatnonzero((stream.effect & POSITIVE != 0) & (stream.item != 0)) if applied is None else applied
    user, item = by_appearance(stream.user[event]), by_appearance(stream.item[event])
    return Deeds(event, user, item, earlier(user))


def by_appearance(values: NDArray[np.int64] | NDArray[np.uint64]) -> I64:
    """Each value as the number of other values that appeared before it first did."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[inverse]


def earlier(user: I64) -> I64:
    """How many of the events before each are of the same user."""
    counts: dict[int, int] = {}
    out = np.empty(len(user), np.int64)
    for at, one in enumerate(user.tolist()):
        out[at] = counts.get(one, 0)
        counts[one] = out[at] + 1
    return out
