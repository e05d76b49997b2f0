"""Waiting in tests: always for something, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
_POLL_S = 0.02


def run(awaitable: Awaitable[T], within_s: float = 120.0) -> T:
    """Run a coroutine in a loop of its own; TimeoutError when it takes longer."""

    async def bounded() -> T:
        return await asyncio.wait_for(awaitable, within_s)

    return asyncio.run(bounded())


async def eventually(holds: Callable[[], Awaitable[T]], within_s: float = 45.0) -> T:
    """Ask until the answer is truthy, and return it; AssertionError with the last one after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        answer = await holds()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {within_s:g} s")
        await asyncio.sleep(_POLL_S)
