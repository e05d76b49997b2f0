"""Fail points, in processes of their own: that is where they bite."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from workers.failpoints import EXIT_CODE

HITS = """
import asyncio, atexit
from workers.failpoints import fail_point

async def main():
    for at in range(3):
        await fail_point("after_apply")
        print("passed", at, flush=True)
        await fail_point("another")

atexit.register(print, "a clean end")
asyncio.run(main())
"""
BESIDE = """
import asyncio
from workers.failpoints import fail_point

async def main():
    stopped = asyncio.create_task(fail_point("after_apply"))
    for _ in range(3):
        await asyncio.sleep(0)
    print("goes on", stopped.done(), flush=True)
    await stopped
    print("released")

asyncio.run(main())
"""


def run(code: str, text: str | None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environ = clean if text is None else {**clean, "HEADRACE_FAILPOINT_AFTER_APPLY": text}
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_nothing_happens_where_nothing_is_asked() -> None:
    done = run(HITS, None)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["passed 0", "passed 1", "passed 2", "a clean end"]


@pytest.mark.parametrize(
    ("text", "passed", "hit"),
    [("exit", [], 1), ("exit:1", [], 1), ("exit:3", ["passed 0", "passed 1"], 3)],
)
def test_exit_dies_at_the_hit_asked_for_without_a_clean_end(text: str, passed: list[str], hit: int) -> None:
    done = run(HITS, text)
    assert done.returncode == EXIT_CODE
    assert done.stdout.splitlines() == passed
    assert done.stderr == f"fail point after_apply, hit {hit}: exit\n"


def test_a_hit_that_never_comes_ends_nothing() -> None:
    done = run(HITS, "exit:4")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "a clean end"


def test_pause_stands_still_at_every_hit_and_goes_on() -> None:
    began = time.monotonic()
    done = run(HITS, "pause:0.2")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "a clean end"
    assert done.stderr.splitlines() == [f"fail point after_apply, hit {hit}: pause 0.2 s" for hit in (1, 2, 3)]
    assert time.monotonic() - began >= 0.6


def test_a_pause_holds_its_own_task_only() -> None:
    assert run(BESIDE, "pause:0.2").stdout.splitlines() == ["goes on False", "released"]


@pytest.mark.parametrize("text", ["", "exit:", "exit:0", "exit:x", "exit:1.5", "pause", "pause:-1", "pause:nan", "die"])
def test_what_is_neither_is_refused_in_a_clear_line(text: str) -> None:
    done = run(HITS, text)
    expected = f"HEADRACE_FAILPOINT_AFTER_APPLY: expected exit, exit:N or pause:SECONDS, found {text!r}"
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"workers.failpoints.FailPointError: {expected}"
