"""Items as a person knows them: titles of ids and hashes, and what must not be shown; from `catalog` and `model`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.blob import States
from pipeline.types import hash_id
from workers.outside.audit import read_back
from workers.outside.screen import Deed
from workers.settings import Settings
from workers.wire.catalog import Gravestone, read_catalog
from workers.wire.times import rfc3339

VECTORS = b"v:"  # how the key of an item's own record on `model` begins


@dataclass(slots=True)
class Names:
    """What the topics say of items, as far as they were read."""

    titles: dict[str, str] = field(default_factory=dict)  # by item id
    ids: dict[int, str] = field(default_factory=dict)  # by hash
    hidden: set[str] = field(default_factory=set)  # ids of items that are deleted, unavailable or expired

    def of(self, item_id: str) -> str:
        """The title of an item, or its id."""
        return self.titles.get(item_id) or item_id

    def id(self, item_hash: int) -> str:
        """The id of an item by its hash; `#` and the hash where it is not known."""
        return self.ids.get(item_hash, f"#{item_hash:016x}")


async def read_names(settings: Settings) -> Names:
    """What the catalogue says now. Under clock = stream nothing expires here: its time is not ours."""
    names = Names()
    offsets: dict[str, int] = {}
    now = round(time.time() * 1000) if settings.clock == "wall" else 0

    def on_records(records: Sequence[Any]) -> None:
        for record in records:
            if record.value is None:
                continue
            item = read_catalog(record.value)
            if item.offset < offsets.get(item.item_id, -1):
                continue
            offsets[item.item_id] = item.offset
            names.ids[item.hash] = item.item_id
            names.hidden.discard(item.item_id)
            if isinstance(item, Gravestone) or not item.available or 0 < item.expires_at <= now:
                names.hidden.add(item.item_id)
            if not isinstance(item, Gravestone):
                names.titles[item.item_id] = item.title

    await read_back(settings, "catalog", on_records)
    return names


async def name_hashes(settings: Settings, names: Names, hashes: Iterable[int]) -> None:
    """Add the ids of items that have no record in the catalogue: the model knows everything that was ever learned."""
    if set(hashes) <= names.ids.keys():
        return

    def on_records(records: Sequence[Any]) -> None:
        for record in records:
            if record.key is not None and record.key.startswith(VECTORS):
                item_id = record.key.removeprefix(VECTORS).decode()
                names.ids[hash_id(item_id)] = item_id

    await read_back(settings, "model", on_records)


def history(settings: Settings, states: States, names: Names) -> list[Deed]:
    """What the first of `states` remembers of its user's positive events, newest first."""
    actions = {action.code: name for name, action in settings.all_actions().items()}
    length = int(states.rings.length[0])
    columns = (column[0, :length].tolist() for column in (states.rings.items, states.rings.times, states.rings.actions))
    return [
        Deed(actions.get(code, f"action {code}"), names.id(item), rfc3339(1000 * seconds)[:16].replace("T", " "))
        for item, seconds, code in zip(*columns, strict=True)
    ]
