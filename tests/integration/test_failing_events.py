"""Events that cannot be applied: each costs itself alone. The embedding worker's handler on a real store, no broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from structlog.testing import capture_logs

from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.state import Advanced, Users, advance
from pipeline.types import Events, hash_id
from tests.records import Consumed
from workers import embedding
from workers.embedding import EmbeddingHandler
from workers.positions import Batch, Result
from workers.settings import Settings, load
from workers.store import Store
from workers.wire.output import Output
from workers.wire.partition import partition_of
from workers.wire.rules import Rules

pytestmark = pytest.mark.redis

PARTITIONS, USERS = 2, 5
BAD = "i-bad"
Clicks = Sequence[tuple[int, str]]  # user, item
Fails = Callable[[Events, Advanced], bool]  # given and made by a call of `advance`


@pytest.fixture
def settings(store_url: str, prefix: str) -> Settings:
    flags = {"store_url": store_url, "prefix": prefix, "clock": "stream"}
    return load(environ={}, flags={**flags, "kafka_partitions": PARTITIONS, "model_dimension": 8})


def users_of(partition: int, settings: Settings) -> list[str]:
    """Some users whose events belong to a partition."""
    names = (f"u-{i}" for i in range(100))
    return [name for name in names if partition_of(name.encode(), PARTITIONS, settings.partitioner) == partition][
        :USERS
    ]


def batch(settings: Settings, partition: int, first: int, clicks: Clicks) -> Batch:
    """Clicks of a partition's users, from offset `first` on, behind a record that nobody can read."""
    users, topic = users_of(partition, settings), settings.topic("events")
    records = [Consumed(b"nobody", b"\xff", [], topic, partition, first)]
    for offset, (user, item) in enumerate(clicks, first + 1):
        event = {"user_id": users[user], "item_id": item, "action": "click", "event_id": f"e-{partition}-{offset}"}
        records.append(Consumed(users[user].encode(), json.dumps(event).encode(), [], topic, partition, offset))
    return Batch(partition, records, first, first + len(records))


def without(whole: Batch, offsets: Iterable[int]) -> Batch:
    """The same batch, as if these records had never been written."""
    gone = set(offsets)
    return Batch(whole.partition, [r for r in whole.records if r.offset not in gone], whole.expected, whole.next)


def handled(settings: Settings, *rounds: list[Batch]) -> list[Result]:
    """The last round's results, of a handler that has had all the others."""

    async def all_rounds() -> list[Result]:
        store = await Store.connect(settings)
        try:
            handler = EmbeddingHandler(settings, store, Rules.of(settings), Model(ItemRows(16), 8))
            results: list[Result] = []
            for batches in rounds:
                results = await handler.handle(batches)
                for result in results:
                    handler.stored(result)
            return results
        finally:
            await store.close()

    return asyncio.run(all_rounds())


def letters(results: list[Result], settings: Settings) -> dict[tuple[int, int], tuple[str, bytes | None]]:
    """Where each bad record was -> the stage that refused it, and its value."""
    found = {}
    for letter in (output for result in results for output in result.outputs):
        if letter.topic == settings.topic("dead-letters"):
            headers = {name: (value or b"").decode() for name, value in letter.headers}
            place = int(headers["__dlq.errors.partition"]), int(headers["__dlq.errors.offset"])
            assert place not in found
            found[place] = headers["__dlq.errors.stage"], letter.value
    return found


def others(result: Result, settings: Settings) -> list[Output]:
    """What is said of those that were applied."""
    return [output for output in result.outputs if output.topic != settings.topic("dead-letters")]


def takes(item: str) -> Fails:
    """An event of this item cannot be applied, whatever it is applied to."""
    return lambda events, made: bool(np.any(events.item == np.uint64(hash_id(item))))


def takes_both(one: str, other: str) -> Fails:
    """No state can hold both: the later event fails, alone or not."""
    pair = [hash_id(one), hash_id(other)]
    return lambda events, made: any(
        np.isin(pair, made.rings.items[user, : made.rings.length[user]]).all() for user in range(len(made.last_time))
    )


BEFORE = [(user, f"i-{user}") for user in range(USERS)]
SEVERAL = [(user, f"i-{user}{at}") for at in range(3) for user in range(USERS)]


@pytest.mark.parametrize(
    ("fails", "clicks", "bad"),
    [
        (takes(BAD), [*SEVERAL[:7], (1, BAD), *SEVERAL[7:]], [7]),
        (takes(BAD), [(0, BAD), *[click for click in SEVERAL if click[0]], (0, BAD)], [0, 13]),
        (takes(BAD), [(0, BAD), (3, BAD)], [0, 1]),
        (takes_both(BAD, "i-21"), [*SEVERAL, (3, BAD), (2, BAD), (2, "i-29"), (3, "i-39")], [16]),
    ],
    ids=["one among its user's good ones", "all of a user's", "all of a batch", "after what came before it"],
)
def test_an_event_that_cannot_be_applied_costs_itself_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fails: Fails, clicks: Clicks, bad: list[int]
) -> None:
    """Its partition's other events, and the other partition's, are applied as if it had never been written."""
    first = [batch(settings, p, 0, BEFORE) for p in range(PARTITIONS)]
    begin = USERS + 1
    second = [batch(settings, 0, begin, SEVERAL), batch(settings, 1, begin, clicks)]
    failing = [begin + 1 + at for at in bad]
    good = handled(settings, first, [second[0], without(second[1], failing)])

    def fragile(users: Users, events: Events, dimension: int) -> Advanced:
        made = advance(users, events, dimension)
        if fails(events, made):
            raise ValueError("expected what can be applied")
        return made

    monkeypatch.setattr(embedding, "advance", fragile)
    with capture_logs() as logs:
        found = handled(settings, first, second)

    for result, expected, given in zip(found, good, second, strict=True):
        assert result.batch is given  # its position moves behind the failing event
        assert result.writes == expected.writes
        assert others(result, settings) == others(expected, settings)
    assert len(good[0].writes) == USERS
    refused = letters(found, settings)
    assert {place for place, (stage, _) in refused.items() if stage == "update"} == {(1, at) for at in failing}
    assert {place for place, (stage, _) in refused.items() if stage != "update"} == {(0, begin), (1, begin)}
    for (partition, offset), (_, value) in refused.items():
        assert value == second[partition].records[offset - begin].value
    said = [line for line in logs if line["event"] == "a batch could not be applied at once"]
    assert [line["error"] for line in said] == ["ValueError: expected what can be applied"] * 2  # both, then the one
