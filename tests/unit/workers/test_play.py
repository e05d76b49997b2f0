"""Playing: the schedule of an open loop, and what a moment becomes on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import pytest

from workers.importers.dataset import Moment
from workers.importers.play import CHUNK, Player, Schedule, checker, encode
from workers.settings import Settings
from workers.wire.errors import InvalidError, WireError
from workers.wire.output import Output

SETTINGS = Settings(prefix="p")


class Ledger:
    """Stands where a producer stands: keeps what it is given, write by write."""

    def __init__(self, each_takes_s: float = 0.0) -> None:
        self.writes: list[list[Output]] = []
        self._each_takes_s = each_takes_s

    async def send(self, outputs: Iterable[Output]) -> None:
        self.writes.append(list(outputs))
        await asyncio.sleep(self._each_takes_s)


def event(n: int, user: str = "u") -> Moment:
    return "event", {"user_id": user, "item_id": f"i{n}", "action": "view", "event_id": f"e{n}"}


def item(n: int) -> Moment:
    return "item", {"item_id": f"i{n}", "title": f"Item {n}"}


def test_a_schedule_counts_from_its_begin_not_from_the_last_event() -> None:
    schedule = Schedule(rate=10.0, begun=100.0)
    assert schedule.due(0, now=100.0) == 1
    assert schedule.due(1, now=100.05) == 0
    assert schedule.due(1, now=101.05) == 10  # late: all that became due meanwhile
    assert schedule.due(20, now=101.0) == 0
    assert schedule.wait(5, now=100.2) == pytest.approx(0.3)
    assert schedule.wait(5, now=103.0) == 0.0


def test_without_a_rate_everything_goes_in_order_in_chunks() -> None:
    ledger = Ledger()
    player = Player(SETTINGS, ledger)  # type: ignore[arg-type]
    moments = [event(n) if n % 3 else item(n) for n in range(2 * CHUNK + 7)]
    asyncio.run(player.play(moments))
    assert [len(write) for write in ledger.writes] == [CHUNK, CHUNK, 7]
    keys = [output.key for write in ledger.writes for output in write]
    assert keys == [b"u" if n % 3 else b"i%d" % n for n in range(len(moments))]
    assert (player.events, player.items) == (671, 336)


def test_a_rate_holds_whatever_a_write_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were each event written in its turn, 20 writes of 1/64 s would last 20/64 s. What becomes due meanwhile goes with
    the next write. By a clock that moves only while something is waited for."""
    now = 100.0

    async def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", wait)
    ledger = Ledger(each_takes_s=1 / 64)
    player = Player(SETTINGS, ledger)  # type: ignore[arg-type]
    asyncio.run(player.play([event(n) for n in range(20)], rate=256.0))
    assert now == 100 + 6 / 64
    assert player.events == 20
    assert [len(write) for write in ledger.writes] == [1, 4, 4, 4, 4, 3]


def test_items_between_events_ride_along() -> None:
    ledger = Ledger()
    player = Player(SETTINGS, ledger)  # type: ignore[arg-type]
    asyncio.run(player.play([item(1), item(2), event(1), item(3), event(2), item(4)], rate=1000.0))
    keys = [output.key for write in ledger.writes for output in write]
    assert keys == [b"i1", b"i2", b"u", b"i3", b"u", b"i4"]


def test_a_stopped_player_writes_no_more() -> None:
    ledger = Ledger()
    player = Player(SETTINGS, ledger, lambda *_: player.stop())  # type: ignore[arg-type]
    asyncio.run(player.play([event(n) for n in range(5 * CHUNK)]))
    assert len(ledger.writes) == 1


def test_what_is_written_is_told_before_it_is_sent() -> None:
    ledger = Ledger()
    told: list[tuple[int, int]] = []
    player = Player(SETTINGS, ledger, lambda moments, _: told.append((len(moments), len(ledger.writes))))  # type: ignore[arg-type]
    asyncio.run(player.play([event(1), event(2)]))
    assert told == [(2, 0)]


def test_moments_become_records_of_their_topics() -> None:
    output = encode(SETTINGS, event(1))
    assert (output.topic, output.key, output.partition) == ("p.events.v1", b"u", None)
    assert dict(output.headers)["ce_id"] == b"e1"
    output = encode(SETTINGS, item(7))
    assert (output.topic, output.key) == ("p.items.v1", b"i7")


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (("event", {"user_id": "u", "action": "like", "event_id": "e"}), "item_id: expected with action 'like'"),
        (("event", {"user_id": "u", "action": "like", "item_id": "a b", "event_id": "e"}), "item_id: expected"),
        (("event", {"user_id": "u", "action": "forget", "event_id": "e", "time": -5}), "looks like seconds"),
        (("event", {"user_id": "u", "action": "forget", "event_id": "e", "value": float("inf")}), "finite"),
        (("event", {"action": "forget", "event_id": "e"}), "user_id"),
        (("item", {"item_id": "a b"}), "item_id: expected"),
        (("item", {"item_id": "i", "published_at": "yesterday"}), "published_at"),
    ],
)
def test_a_check_finds_what_workers_would_refuse(moment: Moment, said: str) -> None:
    with pytest.raises(WireError, match=said):
        checker(SETTINGS)(moment)


def test_a_check_lets_old_times_pass_as_a_shift_will_move_them() -> None:
    kind, data = event(1)
    checker(SETTINGS)((kind, {**data, "time": "1997-09-20T00:00:00Z"}))
    with pytest.raises(InvalidError):
        checker(SETTINGS)((kind, {**data, "time": "2200-01-01T00:00:00Z"}))
