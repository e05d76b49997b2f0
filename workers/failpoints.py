"""Fail points: named places where a fault test kills this process or holds it. Absent unless the environment asks.

    HEADRACE_FAILPOINT_AFTER_APPLY=exit         die at the first hit of `after_apply`, as by kill -9
    HEADRACE_FAILPOINT_AFTER_APPLY=exit:3       die at the third
    HEADRACE_FAILPOINT_AFTER_APPLY=pause:2.5    stand still for 2.5 s at every hit; the rest of the process goes on

The only file beside `settings.py` that reads the environment, once a name.
"""

from __future__ import annotations

import asyncio
import math
import os
from functools import cache

from workers.settings import FAILPOINT_ENV

EXIT_CODE = 86  # of a process that a fail point ended


class FailPointError(ValueError):
    """A fail point that says neither `exit`, `exit:N` nor `pause:SECONDS`."""


class _Armed:
    """A fail point that the environment asks for."""

    def __init__(self, name: str, what: str, amount: float) -> None:
        self._name, self._what, self._amount = name, what, amount
        self._hits = 0

    async def hit(self) -> None:
        self._hits += 1
        if self._what == "pause":
            self._say(f"pause {self._amount:g} s")
            await asyncio.sleep(self._amount)
        elif self._hits >= self._amount:
            self._say("exit")
            os._exit(EXIT_CODE)  # nothing is flushed, closed or said goodbye to

    def _say(self, doing: str) -> None:
        """Tell whoever waits for the fault that it bites now."""
        os.write(2, f"fail point {self._name}, hit {self._hits}: {doing}\n".encode())


async def fail_point(name: str) -> None:
    """Die or stand still here if the environment says so; else nothing. Raises FailPointError for a wrong text."""
    armed = _armed(name)
    if armed is not None:
        await armed.hit()


@cache
def _armed(name: str) -> _Armed | None:
    variable = FAILPOINT_ENV + name.upper()
    text = os.environ.get(variable)
    if text is None:
        return None
    what, _, amount = ("exit:1" if text == "exit" else text).partition(":")
    try:
        if what == "exit":
            return _Armed(name, what, _positive(int(amount)))
        if what == "pause":
            return _Armed(name, what, _positive(float(amount)))
    except ValueError:
        pass
    raise FailPointError(f"{variable}: expected exit, exit:N or pause:SECONDS, found {text!r}")


def _positive(amount: float) -> float:
    if not 0 < amount < math.inf:
        raise ValueError
    return amount
