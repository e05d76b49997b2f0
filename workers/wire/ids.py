"""Ids of users, items, creators and feeds: one alphabet, safe in a Redis key, a topic key and a log line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated

import numpy as np
from msgspec import Meta

from pipeline.types import U64, hash_of
from workers.wire.errors import InvalidError, UnreadableError, shown

PATTERN = "^[A-Za-z0-9_.:@/+=-]{1,128}$"
EVENT_ID_BYTES = 512  # an event's id is only hashed, so any text of a bounded size

# What a schema says of an id. Checked by the functions below, not by msgspec: most ids of a batch were met before.
Id = Annotated[str, Meta(extra_json_schema={"pattern": PATTERN})]

_NONE = bytes(8)
_ID = re.compile(PATTERN.strip("^$"))


def is_id(text: str) -> bool:
    """Whether `text` is an id."""
    return _ID.fullmatch(text) is not None


def check_id(text: str, name: str) -> None:
    """Raise InvalidError unless `text`, the value of field `name`, is an id."""
    if _ID.fullmatch(text) is None:
        raise InvalidError(f"{name}: expected {PATTERN}, found {shown(text)}")


@lru_cache(maxsize=1 << 18)
def item_hash(item_id: str) -> int:
    """The hash of an item's id, checked once and remembered. Raises InvalidError (which is not remembered)."""
    check_id(item_id, "item_id")
    return hash_of(item_id)


def user_key(user_id: str) -> bytes:
    """The key of a user's records. Raises InvalidError."""
    check_id(user_id, "user_id")
    return user_id.encode()


def is_event_id(text: str) -> bool:
    """Whether `text` has 1 to EVENT_ID_BYTES bytes as UTF-8."""
    return 0 < len(text) <= EVENT_ID_BYTES // 4 or 0 < len(text.encode()) <= EVENT_ID_BYTES


def event_hashes(event_ids: Sequence[str]) -> U64:
    """(m,) hashes of events' ids as `hash_of` makes them, 0 for "" (none). Not remembered: an event is met once."""
    digests = [blake2b(text.encode(), digest_size=8).digest() if text else _NONE for text in event_ids]
    hashes = np.frombuffer(bytearray(b"".join(digests)), "<u8").astype(np.uint64, copy=False)
    for at in np.flatnonzero(hashes == 0).tolist():
        hashes[at] = 1 if event_ids[at] else 0
    return hashes


def id_from_key(key: bytes | None, name: str) -> str:
    """The id that a record's key holds. Raises InvalidError for a null key or one that is no id."""
    if key is None:
        raise InvalidError(f"key: expected the {name}, found null; send the {name} as the record's key")
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise UnreadableError(f"key: expected the {name} as UTF-8, found {shown(key)}") from None
    check_id(text, f"key ({name})")
    return text
