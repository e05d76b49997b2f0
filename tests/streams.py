"""Events by hand, for tests of user state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.state import Advanced, Users
from pipeline.types import PROFILE, Events


class Ev(NamedTuple):
    """One event; what a test does not care about has a default."""

    offset: int
    effect: int = 0
    item: int = 0
    time: int = 1_000
    id: int = 0
    user: int = 0
    action: int = 3
    attributes: bytes = b""


def batch(events: Sequence[Ev]) -> Events:
    """The events as a batch, in the order given."""
    return Events(
        user=np.array([e.user for e in events], np.int64),
        offset=np.array([e.offset for e in events], np.int64),
        time=np.array([e.time for e in events], np.int64),
        item=np.array([e.item for e in events], np.uint64),
        id=np.array([e.id for e in events], np.uint64),
        action=np.array([e.action for e in events], np.uint8),
        effect=np.array([e.effect for e in events], np.uint8),
        attributes=[e.attributes for e in events if e.effect & PROFILE],
    )


def nobody(n: int) -> Users:
    """n users of whom nothing is known."""
    return Users([b""] * n, np.full(n, -1, np.int64), np.zeros(n, np.int64))


def blobs(advanced: Advanced) -> list[bytes]:
    """The blobs as they are, derived parts zero or stamped."""
    whole, start = advanced.buffer.tobytes(), advanced.start.tolist()
    return [whole[start[i] : start[i + 1]] for i in range(len(start) - 1)]


def after(advanced: Advanced) -> Users:
    """The users as the next batch finds them."""
    return Users(blobs(advanced), advanced.forgotten_time, advanced.forgotten_version)
