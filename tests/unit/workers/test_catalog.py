"""The keeper of the catalogue: which gravestones it removes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.records import NOW, Consumed
from workers.catalog import Keeper
from workers.settings import Settings
from workers.wire.catalog import CatalogItem, Gravestone, catalog_of, encode_catalog, gravestone_of
from workers.wire.item import ItemData
from workers.wire.output import Output

SETTINGS = Settings(prefix="p")
_DAYS_90 = 90 * 86_400_000


class Ledger:
    """Stands where a producer stands: keeps what it is given, write by write."""

    def __init__(self) -> None:
        self.writes: list[list[Output]] = []

    async def send(self, outputs: Iterable[Output]) -> None:
        self.writes.append(list(outputs))


def record(entry: CatalogItem | Gravestone) -> Consumed:
    return Consumed(entry.item_id.encode(), encode_catalog(entry))


def swept(*records: Consumed, at: int = NOW) -> list[bytes | None]:
    """The keys of the nulls that a keeper writes which has read `records`."""
    ledger = Ledger()
    keeper = Keeper(SETTINGS, ledger)  # type: ignore[arg-type]
    keeper.on_records(records)
    asyncio.run(keeper.sweep(at))
    asyncio.run(keeper.sweep(at))
    first, second = ledger.writes
    assert second == []  # what is written once is not written again
    assert {(out.topic, out.value, out.partition) for out in first} <= {(SETTINGS.topic("catalog"), None, 0)}
    assert keeper.removed == len(first)
    return [out.key for out in first]


def stone(item_id: str, age_ms: int) -> Consumed:
    return record(gravestone_of(item_id, 7, NOW - age_ms))


def test_a_gravestone_is_removed_once_it_has_stood_for_90_days() -> None:
    assert swept(stone("new", 0), stone("due", _DAYS_90 + 1), stone("not-yet", _DAYS_90)) == [b"due"]
    assert swept(stone("not-yet", _DAYS_90), at=NOW + 1) == [b"not-yet"]


def test_what_came_back_or_is_gone_is_left_alone() -> None:
    old = stone("i", 2 * _DAYS_90)
    assert swept(old) == [b"i"]
    assert swept(old, record(catalog_of(ItemData("i"), 8))) == []
    assert swept(old, Consumed(b"i", None)) == []


def test_a_second_deletion_counts_from_its_own_day() -> None:
    published = record(catalog_of(ItemData("i"), 8))
    assert swept(stone("i", 2 * _DAYS_90), published, stone("i", _DAYS_90 // 2)) == []
    assert swept(stone("i", 2 * _DAYS_90), stone("i", _DAYS_90 // 2)) == []


def test_a_damaged_record_stands_for_nothing() -> None:
    """It has taken the gravestone's place: what it says nobody knows, so it is not removed."""
    assert swept(stone("i", 2 * _DAYS_90), Consumed(b"i", b"\xc1"), stone("j", 2 * _DAYS_90)) == [b"j"]
