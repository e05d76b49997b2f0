"""More than can be carried, on a real broker and store: the newest state wins, nobody starves, memory stays flat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import state
from pipeline.types import CONSUMES, POSITIVE, hash_id
from tests.conftest import MakeSettings
from tests.faults.driving import ITEMS
from tests.faults.run import Run
from tests.integration.test_embedding_lane import Lab, click, in_lab
from tests.streams import Ev, after, batch, nobody
from tests.waiting import eventually, run
from workers import lane as lanes
from workers.batching import NEWEST_WINS
from workers.producer import Producer
from workers.settings import Settings
from workers.wire.feed import read_pair
from workers.wire.output import Output
from workers.wire.partition import partition_of
from workers.wire.state import Cause, Fresh, StateRecord, decode_state, encode_state

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

FAST: dict[str, Any] = {"kafka_session_timeout_s": 6.0, "kafka_heartbeat_s": 0.5, "model_dimension": 16}
BURST = 300  # states a user
FLAT = 48 << 20  # bytes that an allocator may take more while the same is done again, until twice as many have come


class Crowd:
    """Users whose every event is announced: one record of `states` each."""

    def __init__(self, settings: Settings, users: int) -> None:
        self.settings = settings
        self.names = [f"u-{i}" for i in range(users)]
        self.last = np.full(users, -1)
        self._known = nobody(users)

    def burst(self, states: int) -> list[Output]:
        """The next states of every user; the newest is the last of them."""
        outputs = []
        for _ in range(states):
            self.last += 1
            offset = int(self.last[0])
            items = [f"i-{(offset * 7 + user) % ITEMS}" for user in range(len(self.names))]
            events = [
                Ev(offset, POSITIVE | CONSUMES, hash_id(item), 1000 + offset, user=user)
                for user, item in enumerate(items)
            ]
            self._known = after(state.advance(self._known, batch(events), self.settings.model.dimension))
            outputs += [self._announcement(user, item, offset) for user, item in enumerate(items)]
        return outputs

    def _announcement(self, user: int, item: str, offset: int) -> Output:
        name = self.names[user]
        data = json.dumps(click(name, item)).encode()
        record = StateRecord(
            self._known.blobs[user],
            b"",
            [Fresh(offset, 1000 + offset, 0, data)],
            True,
            Cause(f"e-{name}-{offset}", 1000 + offset, None, None, offset),
        )
        kafka = self.settings.kafka
        home = partition_of(name.encode(), kafka.partitions, self.settings.partitioner)
        return Output(self.settings.topic("states"), name.encode(), encode_state(record), [], home)


def test_more_states_than_feeds_can_be_made(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Bursts of states of few users: a feed for some of them, the last one for each user's last, in flat memory."""
    settings = make_settings(**FAST, clock="stream")

    async def body() -> None:
        producer, piped = await Producer(settings).start(), Run(settings, tmp_path)
        crowd = Crowd(settings, 40)
        try:
            await piped.prepare()
            await producer.send(crowd.burst(BURST))
            worker = piped.spawn("retrieval")
            await _answered(piped, crowd)
            sizes, bursts, came = [worker.resident()], 1, 0  # bytes since the second size was taken
            while came < 2 * FLAT:
                outputs = crowd.burst(BURST)
                await producer.send(outputs)
                await _answered(piped, crowd)
                came += sum(len(output.value or b"") for output in outputs) if bursts > 1 else 0
                sizes.append(worker.resident())
                bursts += 1
            assert worker.stop() == 0
        finally:
            await piped.stop()
            await producer.stop()
        states, feeds, shed = worker.counted("states"), worker.counted("feeds"), worker.counted("refreshes_shed")
        assert states == 40 * BURST * bursts
        assert feeds + shed == states
        assert shed > 40 * BURST / 2, "the first burst lay there before the worker began"
        assert worker.counted("read_ahead") > 0
        assert worker.logged("overload:") > 0
        assert max(sizes[1:]) - sizes[1] < FLAT, [size >> 20 for size in sizes]

    run(body(), 170)


def test_more_users_than_a_round_answers(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Each comes again when thrice as many as a round answers have come: whoever waits again is answered then."""
    settings, users = make_settings(**FAST, clock="stream"), 3 * NEWEST_WINS.round_users

    async def body() -> None:
        producer, piped = await Producer(settings).start(), Run(settings, tmp_path)
        crowd = Crowd(settings, users)
        try:
            await piped.prepare()
            await producer.send(crowd.burst(4))
            worker = piped.spawn("retrieval")
            await _answered(piped, crowd)
            assert worker.stop() == 0
        finally:
            await piped.stop()
            await producer.stop()
        states, feeds, shed = worker.counted("states"), worker.counted("feeds"), worker.counted("refreshes_shed")
        assert (states, feeds + shed) == (4 * users, 4 * users)
        assert shed > users, "all of it lay there before the worker began"
        assert worker.counted("rounds") >= 3

    run(body(), 170)


async def _answered(piped: Run, crowd: Crowd) -> None:
    """Wait until the last feed of each user is as new as their last state."""

    async def all_of_them() -> bool:
        newest: dict[str, int] = {}
        for record in await piped.read("feeds"):
            newest[record.key.decode()] = read_pair(record.headers).version  # in a partition the last is the newest
        return newest == dict(zip(crowd.names, (crowd.last + 1).tolist(), strict=True))

    await eventually(all_of_them, 90)


def test_a_hot_user_does_not_starve_the_others_of_the_partition(make_settings: MakeSettings) -> None:
    """20,000 events of one user, others' among them: each of these is announced where it stands in the log, not behind
    the hot user's last."""
    hot, every, others = 20_000, 500, 40
    settings = make_settings(**FAST, kafka_partitions=1)

    async def write() -> None:
        producer = await Producer(settings).start()
        await producer.send(_mixed(settings, hot, every))
        await producer.stop()

    async def body(lab: Lab) -> None:
        async def all_applied() -> bool:
            found = await lab.store.positions([0])
            return 0 in found and found[0].sent == hot + others

        await eventually(all_applied, 60)
        announced = await lab.run.read("states")
        hot_so_far, found = 0, 0
        for record in announced:
            offsets = [fresh.offset for fresh in decode_state(record.value).fresh]
            if record.key == b"hot":
                assert len(offsets) <= 512
                hot_so_far = offsets[-1]
            else:
                found += 1
                assert abs(offsets[0] - hot_so_far) <= 2 * 512, "it waited for the hot user's later events"
        assert found == others
        assert lab.process.stats()["embedding"]["batches"] >= hot // 512

    run(write())
    in_lab(settings, body)


def _mixed(settings: Settings, hot: int, every: int) -> list[Output]:
    topic, outputs = settings.topic("events"), []
    for at in range(hot):
        outputs.append(Output(topic, b"hot", json.dumps(click("hot", f"i-{at % ITEMS}")).encode(), [], 0))
        if at % every == every - 1:
            other = f"other-{at // every}"
            outputs.append(Output(topic, other.encode(), json.dumps(click(other)).encode(), [], 0))
    return outputs


def test_an_output_that_is_too_large_is_a_dead_letter(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user's state is stored, the record that it answers is kept, those beside it are announced, and it ends there:
    made again, it would be too large again."""
    monkeypatch.setattr(lanes, "LARGEST_RECORD", 40_000)
    monkeypatch.setattr("workers.producer.LARGEST_RECORD", 40_000)
    monkeypatch.setattr("workers.kafka._BATCH", 20_000)  # a batch takes less than the largest record
    settings = make_settings(**FAST, kafka_partitions=1)
    large = json.dumps({**click("large"), "note": "x" * 9_000}).encode()

    async def write() -> None:
        producer = await Producer(settings).start()
        topic = settings.topic("events")
        outputs = [Output(topic, b"large", large, [], 0) for _ in range(8)]
        await producer.send([*outputs, Output(topic, b"small", json.dumps(click("small")).encode(), [], 0)])
        await producer.stop()

    async def body(lab: Lab) -> None:
        (letter,) = await lab.seen("dead-letters", 1)
        headers = dict(letter.headers)
        assert (letter.key, letter.value) == (b"large", large)
        assert headers["__dlq.errors.stage"] == b"publish"
        assert headers["__dlq.errors.offset"] == b"7"
        assert b"states" in headers["__dlq.errors.message"]
        assert [record.key for record in await lab.seen("states", 1)] == [b"small"]
        assert int(state.decode([await lab.blob("large")]).count[0]) == 8
        assert lab.process.stats()["embedding"]["too_large"] == 1

        async def sent() -> bool:
            return (await lab.store.positions([0]))[0].sent == 9

        await eventually(sent)
        assert not lab.process.failed.done()

    run(write())
    in_lab(settings, body)
