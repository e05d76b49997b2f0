"""Ends what is alive and silent: it should move, broker and store answer, and it does not for a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import NoReturn, Protocol

from workers.positions import LaneRefused

_WATCH_EVERY_S = 1.0
_STUCK_AFTER_S = 60.0
_STUCK_AFTER_SESSIONS = 4  # a rebalance alone may take two
_SUSPICIOUS = 0.25  # of that time: from then on it is asked whether broker and store answer at all
_FROZEN_S = 5.0  # a second that takes so long: the whole process stood still
_ENDS_EVERY_S = 10.0


class Watched(Protocol):
    """What should move."""

    topic: str

    def awaited(self, patience_s: float) -> Mapping[str, object]:
        """What must move, as the words that end it if it does not; the signs tell whether it did."""

    def waits(self) -> bool:
        """Whether it waits for a server: nothing can move."""

    async def ask_ends(self) -> None:
        """Hear of what has been written since."""

    async def servers_answer(self) -> bool:
        """Whether broker and store are there."""


async def watch(lane: Watched, session_timeout_s: float) -> NoReturn:
    """Look once a second. Raises LaneRefused when something has stood still for too long.

    An outage ends nobody: what stood still for want of a server has a minute of its own once it is back.
    """
    patience_s = max(_STUCK_AFTER_S, _STUCK_AFTER_SESSIONS * session_timeout_s)
    dog, ends_at = Watchdog(patience_s), 0.0
    while True:
        before = time.monotonic()
        await asyncio.sleep(_WATCH_EVERY_S)
        now = time.monotonic()
        if now - before > _FROZEN_S or lane.waits():
            dog.forgive()
        if now - ends_at > _ENDS_EVERY_S:
            await lane.ask_ends()
            ends_at = now
        stuck = dog.look(now, lane.awaited(patience_s))
        if dog.longest(now) > _SUSPICIOUS * patience_s and not await lane.servers_answer():
            dog.forgive()
        elif stuck is not None:
            raise LaneRefused(f"{lane.topic}{stuck}")


class Watchdog:
    """Remembers since when each awaited thing shows the same sign. Reads no clock: whoever looks, tells.

    dog.look(now, {"events[3]": 17})   None, or the name of one that stood still for `patience_s`
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: dict[str, tuple[object, float]] = {}  # name -> its sign, and when that was seen first

    def look(self, now: float, awaited: Mapping[str, object]) -> str | None:
        """Take in what is awaited at `now` (s): things by name, each with a sign that changes when it moves.

        Returns the name of one that has been awaited with the same sign for longer than the patience.
        """
        since = {}
        for name, sign in awaited.items():
            known, seen_at = self._since.get(name, (None, now))
            since[name] = sign, seen_at if known == sign else now
        self._since = since
        return next((name for name, (_, at) in since.items() if now - at > self._patience_s), None)

    def longest(self, now: float) -> float:
        """How long the one that has stood longest stands, in s."""
        return max((now - at for _, at in self._since.values()), default=0.0)

    def forgive(self) -> None:
        """Nothing could have moved until now: all begin anew with the next look."""
        self._since = {}
