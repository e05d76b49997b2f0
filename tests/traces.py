"""Find a user: in bytes, in a store's keys, in everything that a process holds in memory."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
import redis

from pipeline.types import hash_of

# What leads out of what a process keeps: into the program itself, and into whatever runs at the moment.
_BEYOND = (
    types.ModuleType,
    types.FunctionType,
    types.CodeType,
    types.FrameType,
    types.CoroutineType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.TracebackType,
    type,
    asyncio.AbstractEventLoop,
    asyncio.Future,
)


class Traces:
    """What gives a user away: the id, and its hash in every form that is ever written."""

    def __init__(self, user: str) -> None:
        self.user, self.hash = user, hash_of(user)
        numbers = [self.hash.to_bytes(8, order) for order in ("little", "big")]
        self._forms = [user.encode(), *numbers, b"%016x" % self.hash, b"%d" % self.hash]

    def in_bytes(self, raw: bytes | None) -> bool:
        """Whether bytes name the user."""
        return raw is not None and any(form in raw for form in self._forms)

    def in_records(self, records: Iterable[Any]) -> list[Any]:
        """The records that name the user, in key, value or headers."""
        return [
            record
            for record in records
            if any(map(self.in_bytes, (record.key, record.value, *(value for _, value in record.headers))))
        ]

    def in_store(self, client: redis.Redis) -> dict[bytes, bytes]:
        """The keys that name the user, by their name or by anything they hold."""
        found = {}
        for key in client.scan_iter(count=1000):
            value = _value(client, key)
            if self.in_bytes(key) or self.in_bytes(value):
                found[key] = value
        return found

    def in_memory(self, *roots: Any) -> list[str]:
        """What names the user among all that can be reached from `roots`, and the way there."""
        way: dict[int, tuple[Any, int]] = {id(root): (root, 0) for root in roots}
        found, todo = [], deque(roots)
        while todo:
            holder = todo.popleft()
            for held in _held(holder):
                if self._named_by(held):  # one text may be held in many places
                    found.append(f"{type(held).__name__} <- {' <- '.join(_steps(way, id(holder)))}")
                elif id(held) not in way and not isinstance(held, _BEYOND):
                    way[id(held)] = (held, id(holder))
                    todo.append(held)
        return found

    def _named_by(self, thing: Any) -> bool:
        if isinstance(thing, str):
            return self.user in thing
        if isinstance(thing, bytes | bytearray):
            return self.in_bytes(bytes(thing))
        if isinstance(thing, int):
            return thing == self.hash
        if isinstance(thing, np.ndarray):
            return self._in_array(thing)
        return False

    def _in_array(self, array: np.ndarray[Any, Any]) -> bool:
        if array.dtype in (np.uint64, np.int64):
            return bool((np.ascontiguousarray(array).view(np.uint64) == np.uint64(self.hash)).any())
        return array.dtype == np.uint8 and self.in_bytes(array.tobytes())


def memories() -> list[Any]:
    """Everything that functions of ours remember."""
    ours = [module for name, module in sys.modules.items() if name.startswith(("pipeline", "workers"))]
    held = [value for module in ours for value in vars(module).values()]
    return [value for value in held if hasattr(value, "cache_info")]


def _held(holder: Any) -> list[Any]:
    """What an object refers to; the collector passes over keys of a dict that are all text, and over our structs."""
    more = list(holder) if isinstance(holder, dict) else []
    if isinstance(holder, msgspec.Struct):
        more += [getattr(holder, name) for name in holder.__struct_fields__]
    return more + gc.get_referents(holder)


def _value(client: redis.Redis, key: bytes) -> bytes:
    kind = client.type(key)
    if kind == b"hash":
        fields: dict[Any, Any] = client.hgetall(key)
        return b"\0".join(part for pair in fields.items() for part in pair)
    assert kind == b"string", (key, kind)
    value: Any = client.get(key)
    return value or b""


def _steps(way: dict[int, tuple[Any, int]], at: int) -> Iterator[str]:
    while at:
        thing, at = way[at]
        yield type(thing).__name__
