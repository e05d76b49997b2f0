"""Live, ready, lag, for whoever restarts containers or sends them traffic: a file that a living process writes anew
every second. No port is opened for it.

Live means that the event loop turns and no part has failed. A store or broker that is away makes a worker neither dead
nor unready: it waits for them, and a restart would help nobody. Ready means that it has in memory what it needs, and
every lane has claimed what its group gave it. Lag is how many records are not yet behind it. A process that starts is
live and not ready; while it compiles kernels (once a version and machine) its loop stands still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_EVERY_S = 1.0
_STALE_AFTER_S = 30.0


class Health(msgspec.Struct, frozen=True):
    """What a living process says of itself."""

    ready: bool
    lag: int  # records: high watermark - position, over lanes, replicas and the catalog worker's agent


class Heartbeat:
    """Writes `path` once a second, whole each time."""

    def __init__(self, path: Path, health: Callable[[], Health]) -> None:
        self._path, self._health = path, health
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Beat until `stop`; then remove the file."""
        begun = self._path.with_name(f"{self._path.name}.new")
        while not self._stop.is_set():
            begun.write_bytes(msgspec.json.encode(self._health()))
            begun.replace(self._path)
            try:
                await asyncio.wait_for(self._stop.wait(), _EVERY_S)
            except TimeoutError:
                continue
        self._path.unlink(missing_ok=True)

    def stop(self) -> None:
        self._stop.set()


def read_health(path: Path) -> Health | None:
    """What the process says that wrote `path` in the last 30 s; None = there is no sign of life."""
    try:
        if time.time() - path.stat().st_mtime >= _STALE_AFTER_S:
            return None
        return msgspec.json.decode(path.read_bytes(), type=Health)
    except (OSError, msgspec.DecodeError):
        return None
