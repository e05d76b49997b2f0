"""A small world with something to learn in it, and how well a model has learned it: for faults of the trainer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from pipeline.blob import decode
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.recipe import ENCODING
from workers.feeds import Asked, FeedMaker, in_chunks
from workers.items import ItemReplica
from workers.settings import Settings
from workers.trainer import TrainerCore
from workers.wire.feed import read_feed
from workers.wire.rules import Rules
from workers.wire.state import Cause, decode_state

KINDS, OF_A_KIND, USERS = 20, 15, 150
FAITHFUL, NEXT = 0.85, 0.5  # chances: an event is of the user's kind; it is the next of its kind
SEEDS = range(1, 6)


class School:
    """Users who like one kind of items, and go through it in its order more often than not."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._at = rng.integers(OF_A_KIND, size=USERS)

    def events(self, n: int) -> list[tuple[bytes, bytes]]:
        """The next events, as key and JSON."""
        told = []
        for user in self._rng.integers(USERS, size=n).tolist():
            name, item = f"u-{user}", self.next(user)
            event = {"user_id": name, "action": "view", "item_id": item}
            told.append((name.encode(), json.dumps(event).encode()))
        return told

    def next(self, user: int) -> str:
        """What the user takes now."""
        rng = self._rng
        if rng.random() >= FAITHFUL:
            return f"i-{rng.integers(KINDS)}-{rng.integers(OF_A_KIND)}"
        step = 1 if rng.random() < NEXT else int(rng.integers(OF_A_KIND))
        self._at[user] = (self._at[user] + step) % OF_A_KIND
        return f"i-{user % KINDS}-{self._at[user]}"


def replica_of(settings: Settings, records: Sequence[Any]) -> Model:
    """The model as a replica makes it of the records of `model`."""
    replica = ItemReplica(settings, catalog=False)
    replica.on_model(records)
    return replica.model


def items_of(model: Model) -> set[str]:
    """The items that it knows."""
    return {model.rows.ids[row] for row in range(len(model.rows)) if model.sequence.known[row]}


def taught(settings: Settings, states: Iterable[Any], seed: int) -> Model:
    """The model that one trainer makes of the records of `states` when nothing happens to it."""
    core = TrainerCore(replace(settings, model=replace(settings.model, seed=seed)), Rules.of(settings))
    core.on_states(sorted(states, key=lambda record: (record.timestamp, record.partition, record.offset)))
    for _ in core.checkpoint():
        continue
    return core.model


class Exam:
    """What each user takes next, and how high feeds from a model have it: the mean of 1 / log2(1 + rank)."""

    def __init__(self, settings: Settings, states: Iterable[Any], school: School) -> None:
        self._settings = settings
        newest: dict[str, bytes] = {}
        for record in sorted(states, key=lambda record: (record.partition, record.offset)):
            newest[record.key.decode()] = decode_state(record.value).blob
        self._users = newest
        self._taken = {user: school.next(int(user.removeprefix("u-"))) for user in sorted(newest)}

    def quality(self, model: Model) -> float:
        """Of feeds that are made of this model now."""
        maker = FeedMaker(self._settings, model, Catalog(model.rows, dimension=ENCODING.dimension))
        now = int(decode(list(self._users.values())).last_time.max())
        asked = [Asked(user, 0, blob, Cause("exam", now, None, None, 0)) for user, blob in self._users.items()]
        gains = []
        for chunk in in_chunks(asked):
            for made in maker.make(chunk, now):
                items = [item.item_id for item in read_feed(made.value).items]
                taken = self._taken[made.asked.user]
                gains.append(1 / np.log2(2 + items.index(taken)) if taken in items else 0.0)
        return float(np.mean(gains))
