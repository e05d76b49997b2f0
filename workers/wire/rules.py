"""What the events of a prefix mean: actions, clock, partitions; made once from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import msgspec

from pipeline.types import BLOCKS, CONSUMES, FORGETS, POSITIVE, PROFILE, hash_of
from workers.settings import Action, Settings, SettingsError
from workers.wire.ids import user_key
from workers.wire.partition import partition_of
from workers.wire.times import DAY_MS, END_MS

OLDEST_MS = 30 * DAY_MS  # behind now, under clock = wall
NEWEST_MS = 5 * 60_000  # ahead of now

_KNOWN = 1 << 17  # users of whom a process keeps the Home

_NAMELESS = {"impression": 0, "profile": PROFILE, "forget": FORGETS}  # need no item, and this is all they do


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an action does."""

    name: str
    code: int  # kept in states; 0 = unknown action
    effect: int  # bits of `Events.effect`
    refreshes: bool
    names_item: bool  # an event of it without an item is refused


RATE = "rate"  # means what its value says
UNKNOWN = Meaning("", 0, 0, refreshes=False, names_item=False)


class Home(msgspec.Struct, frozen=True, gc=False):
    """Where a user's records belong."""

    key: bytes
    partition: int
    hash: int  # of the user's id


@dataclass(frozen=True, slots=True)
class Rules:
    """How events of a prefix are read."""

    topic: str  # of events
    clock: str  # wall | stream
    partitioner: str  # murmur2 | crc32
    partitions: int
    rating_threshold: float
    meanings: Mapping[str, Meaning]  # by name and alias
    _homes: dict[str, Home] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The rules that `settings` state. Raises SettingsError when an alias has two meanings."""
        return cls(
            topic=settings.topic("events"),
            clock=settings.clock,
            partitioner=settings.partitioner,
            partitions=settings.kafka.partitions,
            rating_threshold=settings.rating_threshold,
            meanings=_meanings(settings.all_actions()),
        )

    def meaning(self, action: str, value: float | None) -> Meaning:
        """What `action` means: by name, then by alias; a rating of at least the threshold is a like; else UNKNOWN."""
        meaning = self.meanings.get(action)
        if meaning is not None:
            return meaning
        if action == RATE and value is not None and value >= self.rating_threshold:
            return self.meanings["like"]
        return UNKNOWN

    def window(self, now_ms: int) -> tuple[int, int]:
        """First and last event time taken, ms. Under clock = stream `now_ms` is not looked at."""
        return (now_ms - OLDEST_MS, now_ms + NEWEST_MS) if self.clock == "wall" else (0, END_MS - 1)

    def partition(self, key: bytes) -> int:
        """The partition that `key` belongs to."""
        return partition_of(key, self.partitions, self.partitioner)

    def home(self, user_id: str) -> Home:
        """Where the records of `user_id` belong, made once. Raises InvalidError, and does not remember it."""
        home = self._homes.get(user_id)
        if home is None:
            key = user_key(user_id)
            if len(self._homes) >= _KNOWN:
                self._homes.clear()
            home = self._homes[user_id] = Home(key, self.partition(key), hash_of(user_id))
        return home

    def forget(self, user_id: str) -> None:
        """Remember nothing of `user_id`."""
        self._homes.pop(user_id, None)


def _meanings(actions: Mapping[str, Action]) -> dict[str, Meaning]:
    meanings: dict[str, Meaning] = {}
    for name, action in actions.items():
        meaning = _meaning(name, action)
        for alias in action.aliases:
            if alias in meanings or alias in actions:
                raise SettingsError(f"settings: actions.{name}: the alias {alias!r} has another meaning already")
            meanings[alias] = meaning
    return meanings | {name: _meaning(name, action) for name, action in actions.items()}


def _meaning(name: str, action: Action) -> Meaning:
    effect = POSITIVE * (action.weight > 0) | CONSUMES * action.consumes | BLOCKS * action.blocks
    return Meaning(name, action.code, _NAMELESS.get(name, effect), action.refreshes, name not in _NAMELESS)
