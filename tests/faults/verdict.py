"""The verdict: what store and `states` hold compared with what the log says they must hold, told by the oracle."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import redis

from pipeline.state import durable, embedding
from tests import oracle
from tests.faults import looking
from workers.settings import Settings
from workers.wire.state import decode_state


@dataclass
class Verdict:
    """What the store holds compared with what the log says it must hold."""

    users: int
    events: int = 0
    bad: int = 0  # events that nobody can read
    duplicates: int = 0  # events with an id that their user had already
    wrong: list[str] = field(default_factory=list)  # users missing, too many, or with other durable bytes
    wrong_embeddings: list[str] = field(default_factory=list)
    positions_wrong: list[int] = field(default_factory=list)
    unannounced: list[str] = field(default_factory=list)  # users whose last version is not on `states`
    announced_again: int = 0  # records of `states` for events that the store had already when they were delivered

    def assert_equal(self) -> None:
        """Same users, same positions, same bytes; everyone's last version announced."""
        assert self.users > 0
        assert not self.wrong, f"{len(self.wrong)} users differ: {self.wrong[:5]}"
        assert not self.positions_wrong, f"partitions that do not stand at their log's end: {self.positions_wrong}"
        assert not self.unannounced, f"{len(self.unannounced)} users unannounced: {self.unannounced[:5]}"
        assert not self.wrong_embeddings, f"{len(self.wrong_embeddings)} embeddings differ: {self.wrong_embeddings[:5]}"


async def judge(
    settings: Settings,
    vectors: Mapping[int, list[float]],
    lookout: looking.Lookout,
    log: Iterable[Any] | None = None,
) -> Verdict:
    """Replay the log in the oracle and compare. `vectors`: the frozen model, item hash -> e_in. `log`: the events to
    replay, where the topic does not hold all of them any more."""
    if log is None:
        records = [_recorded(record) async for record in looking.each(settings, "events")]
    else:
        records = [_recorded(record) for record in log]
    records.sort(key=lambda record: (record.partition, record.offset))
    rules = oracle.Rules(now=int(time.time() * 1000), clock=settings.clock, partitions=settings.kafka.partitions)
    expected = oracle.replay(records, rules)
    verdict = Verdict(len(expected.users), len(records), len(expected.bad), expected.duplicates)
    _compare_users(settings, vectors, expected, verdict)
    positions = await lookout.positions()
    ends = await lookout.log_ends()
    verdict.positions_wrong = [p for p, end in ends.items() if end and (p not in positions or positions[p].next != end)]
    await _compare_announced(expected, looking.each(settings, "states"), verdict)
    return verdict


def _recorded(record: Any) -> oracle.Record:
    return oracle.Record(record.key, record.value, record.headers, record.timestamp, record.partition, record.offset)


def _compare_users(
    settings: Settings, vectors: Mapping[int, list[float]], expected: oracle.Replay, verdict: Verdict
) -> None:
    k = settings.model.dimension
    with redis.Redis.from_url(settings.store.url) as client:
        pattern = f"{settings.prefix}:u:*"
        found = {key.decode().split("}:", 1)[1]: client.get(key) for key in client.scan_iter(pattern, 1000)}
    for user in sorted(set(found) | set(expected.users)):
        blob = found.get(user)
        if blob is None or user not in expected.users or durable(blob) != expected.durable(user, k):
            verdict.wrong.append(user)
        elif not np.array_equal(embedding(blob), oracle.embedding(expected.users[user], vectors, k)):
            verdict.wrong_embeddings.append(user)


async def _compare_announced(expected: oracle.Replay, announced: AsyncIterator[Any], verdict: Verdict) -> None:
    versions: dict[str, int] = {}
    async for record in announced:
        user = record.key.decode()
        if record.value is None:
            last = int(dict(record.headers)["offset"])
        else:
            state = decode_state(record.value)
            last = max(fresh.offset for fresh in state.fresh)
            verdict.announced_again += state.evicted is None
        versions[user] = max(versions.get(user, 0), last + 1)
    verdict.unannounced = [u for u, version in expected.announced().items() if versions.get(u, 0) < version]
