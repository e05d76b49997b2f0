"""What has stood still for too long, although it should move. Reads no clock and asks nobody: whoever looks, tells."""

from __future__ import annotations

from collections.abc import Mapping


class Watchdog:
    """Remembers since when each awaited thing shows the same sign.

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
