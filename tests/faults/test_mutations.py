"""A fault's test must be able to fail: each promise is taken away once, and its fault's test turns red.

Runs in the long form of `./dev faults`. The mutated workers are started by the tests (mutants.py); nothing that is
shipped knows of it. The faults' tests themselves are called, in their short form.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.mutants import library_without_offset_check
from tests.faults.test_05_redis_killed import test_redis_killed as redis_killed
from tests.faults.test_13_crash_before_announcing import test_crash_before_announcing as crash_before_announcing
from workers.embedded import Server
from workers.store import store

pytestmark = pytest.mark.slow

Test = Callable[[Fault], None]


def turns_red(fault: Fault, mutation: str, test: Test, because: str) -> None:
    """The test passes no more with workers that are broken this way, and its message says what is wrong."""
    mutated = fault.mutated(mutation)
    with pytest.raises(AssertionError, match=because):
        test(mutated)
    fault.bit(f"red: {mutation}", 1)
    for name, times in mutated.row.bites.items():
        fault.saw(name, times)


@pytest.mark.parametrize("own_store", ["any"], indirect=True)
def test_offset_check_off_turns_05_red(
    fault: Fault, make_settings: MakeSettings, own_store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis goes back, the worker does not: without the check, what was lost is stepped over."""
    monkeypatch.setattr(store, "LIBRARY", library_without_offset_check())
    turns_red(
        fault, "offset_check_off", lambda mutated: redis_killed(mutated, make_settings, own_store), "users differ"
    )


@pytest.mark.parametrize("own_store", ["any"], indirect=True)
def test_committed_position_turns_05_red(fault: Fault, make_settings: MakeSettings, own_store: Server) -> None:
    """Redis goes back, Kafka's commit does not: starting there, what was lost is stepped over."""
    turns_red(
        fault, "committed_position", lambda mutated: redis_killed(mutated, make_settings, own_store), "users differ"
    )


def test_missing_sent_turns_13_red(fault: Fault, make_settings: MakeSettings) -> None:
    """Applied, not announced, dead: without `sent` nobody ever hears of it."""
    turns_red(
        fault, "sent_missing", lambda mutated: crash_before_announcing(mutated, make_settings), "users unannounced"
    )
