"""Alive or not, for whoever restarts containers: a file that a living process touches every second.

Alive means that the event loop turns and no part has failed. A store or broker that is away does not make a worker
unhealthy: it waits for them, and a restart would help nobody.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

_EVERY_S = 1.0
_STALE_AFTER_S = 30.0


class Heartbeat:
    """Touches `path` once a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Beat until `stop`; then remove the file."""
        while not self._stop.is_set():
            self._path.touch()
            try:
                await asyncio.wait_for(self._stop.wait(), _EVERY_S)
            except TimeoutError:
                continue
        self._path.unlink(missing_ok=True)

    def stop(self) -> None:
        self._stop.set()


def alive(path: Path) -> bool:
    """Whether a process touched `path` in the last 30 s."""
    try:
        return time.time() - path.stat().st_mtime < _STALE_AFTER_S
    except OSError:
        return False
