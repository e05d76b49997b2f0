"""When a member of the group may claim: what needs no broker of the lane."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from workers import lane as lanes
from workers.batching import Limits
from workers.lane import Lane
from workers.positions import Batch, MayClaim, Result, Stand
from workers.producer import Producer
from workers.settings import load

SESSION_S = 10.0


class Clock:
    """The lane's time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Positions:
    """Is asked for claims, and gives none. Asking takes `takes_s`: the broker is asked, or the process is frozen."""

    contiguous = True

    def __init__(self, clock: Clock) -> None:
        self.counts: dict[str, int] = {}
        self.asked: list[int] = []  # of the last claim
        self.allowed: list[int] = []  # of these, at the last moment
        self.takes_s = 0.0
        self._clock = clock

    async def claim(self, consumer: Any, partitions: Collection[int], may: MayClaim) -> dict[int, Stand]:
        self.asked = list(partitions)
        self._clock.now += self.takes_s
        self.allowed = [p for p in partitions if may(p)]
        return {}

    async def apply(self, results: list[Result]) -> tuple[list[Result], dict[int, str]]:
        return results, {}

    async def advance(self, results: list[Result]) -> None: ...

    async def idle(self) -> set[int]:
        return set()

    async def release(self, partitions: Collection[int]) -> None: ...

    async def reachable(self) -> bool:
        return True

    def waits(self) -> bool:
        return False


class Handler:
    """Has nothing to do."""

    async def handle(self, batches: list[Batch]) -> list[Result]:
        return []

    def stored(self, result: Result) -> None: ...

    def drop(self, partition: int) -> None: ...


class Member:
    """A lane whose group gave it partitions 0 and 1 just now, with a heartbeat."""

    def __init__(self, clock: Clock) -> None:
        settings = load(environ={}, flags={"kafka_session_timeout_s": SESSION_S, "kafka_heartbeat_s": 1.0})
        self.clock, self.positions = clock, Positions(clock)
        self.lane = Lane(settings, "events", "group", self.positions, Handler(), Producer(settings), Limits())
        self.lane.assigned([0, 1], before=[])

    def claims(self) -> list[int]:
        """What it claims now."""
        self.positions.asked, self.positions.allowed = [], []
        asyncio.run(self.lane._claim())
        return self.positions.allowed


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Member:
    clock = Clock()
    monkeypatch.setattr(lanes, "time", SimpleNamespace(monotonic=clock.monotonic))
    return Member(clock)


def test_a_member_claims_within_half_a_session_of_its_last_heartbeat(member: Member) -> None:
    member.clock.now += SESSION_S / 2 - 0.1
    assert member.claims() == [0, 1]
    member.clock.now += 0.2
    assert member.claims() == []
    assert member.positions.asked == []  # neither broker nor store was bothered
    assert not member.lane.claimed.is_set()
    member.lane.assigned([0, 1], before=[0, 1])
    assert member.claims() == [0, 1]


def test_who_was_frozen_while_it_asked_claims_nothing(member: Member) -> None:
    """It would fence its successor."""
    member.positions.takes_s = SESSION_S / 2
    assert member.claims() == []
    assert member.positions.asked == [0, 1]


def test_who_was_fenced_claims_again_after_a_later_heartbeat(member: Member) -> None:
    member.clock.now += 1
    member.lane._lose(1, "FENCED")
    assert member.claims() == [0]
    member.lane._heartbeat_at = member.clock.now + 1
    assert member.claims() == [0, 1]


def test_what_the_group_took_away_meanwhile_is_not_claimed(member: Member) -> None:
    asyncio.run(member.lane.revoked([0]))
    assert member.claims() == [1]
