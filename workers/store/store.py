"""What Redis (or Valkey) holds, and every call to it. Keys are known here alone; the functions are in `functions.lua`.

All keys of a partition lie in one cluster slot through the hash tag `{p}`:

    <prefix>:o:{p}             HASH    next, sent, epoch, owner, claimed_at: where the partition stands, whose it is;
                                       rebuilding, rebuilt: who writes its users anew, who did last
    <prefix>:u:{p}:<user>      STRING  a user's state
    <prefix>:f:{p}:<user>      HASH    v (version, revision: 16 bytes big-endian), feed: the last feed
    <prefix>:x:{p}:<hash>      STRING  the marker of a forgotten user, by the id's hash; begins with 16 bytes as `v`
    <prefix>:default:<recipe>  HASH    v, feed: the feed of strangers
    <prefix>:meta              HASH    the contract of the prefix, checked at start

Every call may be repeated: a position moves once, a feed is stored once, and a retry is answered DUP.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

from pipeline.blob import LAYOUT
from pipeline.types import hash_of
from workers.settings import Settings
from workers.store.contract import Contract
from workers.store.link import Link, StoreError, pack
from workers.store.upkeep import Rebuilding, scan
from workers.wire.marker import KEPT_MS

LIBRARY = Path(__file__).with_name("functions.lua").read_bytes()

_DAY_S = 86_400
_DEFAULT_TTL_S = _DAY_S
_VERSION = struct.Struct(">QQ")


class Lost(StoreError):
    """Partitions have no position: the log does not begin at 0, so it must not be read as 0."""

    def __init__(self, partitions: Sequence[int]) -> None:
        names = ", ".join(map(str, partitions))
        super().__init__(
            f"store: no position for partition {names} while the log does not begin at 0: restore the store from a "
            "backup, or run `headrace users rebuild`"
        )
        self.partitions = partitions


class BeingRebuilt(StoreError):
    """Partitions have no position because their users are being rebuilt, or that was broken off."""

    def __init__(self, partitions: Sequence[int]) -> None:
        names = ", ".join(map(str, partitions))
        super().__init__(
            f"store: the users of partition {names} are being rebuilt: start when that is done; "
            "where it was broken off, run `headrace users rebuild` again"
        )


class Claim(NamedTuple):
    """What claiming a partition found."""

    epoch: int  # ours from now on; every earlier one is fenced
    next: int  # first offset not applied
    sent: int  # first offset whose outputs are not acknowledged
    previous_owner: str  # "" = none, or not to be told apart from ourselves
    previous_next: int  # `next` as the previous owner left it; -1 = there was none


class Write(NamedTuple):
    """A key to set, or to delete when the value is empty."""

    key: bytes
    ttl_s: int  # at least 1
    value: bytes


class Apply(NamedTuple):
    """A batch of a partition: its states and its position, all or nothing."""

    partition: int
    epoch: int
    expected: int  # where the partition must stand
    next: int  # where it will stand
    sent: int
    writes: Sequence[Write]


class Applied(NamedTuple):
    """OK and DUP are success. FENCED: another claimed the partition. GAP: it stands at `next`. LOST: nowhere."""

    kind: Literal["OK", "DUP", "FENCED", "GAP", "LOST"]
    next: int = -1


class UserRead(NamedTuple):
    """What is kept of a user; b"" = nothing."""

    blob: bytes
    marker: bytes


class Position(NamedTuple):
    """Where a partition stands."""

    next: int
    sent: int
    epoch: int
    owner: str


class AnyFeed(Protocol):
    """A feed to store if it is newer than the stored one."""

    @property
    def partition(self) -> int: ...
    @property
    def user(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def feed(self) -> bytes: ...


class FeedWrite(NamedTuple):
    """The plainest feed to store."""

    partition: int
    user: str
    version: int
    revision: int
    feed: bytes


class Store:
    """The store of one prefix. Calls are repeated until they are answered; see `link.py`."""

    def __init__(self, settings: Settings, link: Link) -> None:
        self._settings = settings
        self._link = link
        self._prefix = settings.prefix.encode()
        self.state_ttl_s = _seconds(settings.users.ttl_days)
        self.feed_ttl_s = _seconds(settings.feed.cache_days)
        self.marker_ttl_s = KEPT_MS // 1000
        self._contract = Contract(link, b"%b:meta" % self._prefix, _meta(settings), LIBRARY)

    @classmethod
    async def connect(cls, settings: Settings) -> Self:
        """Open the store; raises StoreUnavailable after `store.connect_timeout_s`, StoreRefused for a bad address
        or login, Insecure."""
        link = Link(settings.store)
        await link.open(settings.store.connect_timeout_s)
        return cls(settings, link)

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def reachable(self) -> bool:
        """Whether the store works now: it answers, and no call is being repeated."""
        return await self._link.reachable()

    @property
    def repeating(self) -> bool:
        """Whether a call is being repeated at this moment."""
        return self._link.repeating

    @property
    def retries(self) -> int:
        """Attempts that left a call unanswered, and were repeated."""
        return self._link.retries

    @property
    def missing(self) -> int:
        """Of these, the ones that found no functions."""
        return self._link.missing

    # -- keys

    def state_key(self, partition: int, user: str) -> bytes:
        """Where a user's state is."""
        return b"%b:u:{%d}:%b" % (self._prefix, partition, user.encode())

    def feed_key(self, partition: int, user: str) -> bytes:
        """Where a user's last feed is."""
        return b"%b:f:{%d}:%b" % (self._prefix, partition, user.encode())

    def marker_key(self, partition: int, user: str) -> bytes:
        """Where it is kept that a user was forgotten, without naming the user."""
        return b"%b:x:{%d}:%016x" % (self._prefix, partition, hash_of(user))  # not remembered: it may be a last trace

    def _position_key(self, partition: int) -> bytes:
        return b"%b:o:{%d}" % (self._prefix, partition)

    def _default_key(self, recipe: str) -> bytes:
        return b"%b:default:%b" % (self._prefix, recipe.encode())

    # -- the lanes

    async def claim(self, partitions: Sequence[int], owner: str, fresh: Collection[int]) -> dict[int, Claim]:
        """Fence every earlier owner of `partitions`; those in `fresh` (their log begins at 0) may be new.

        Raises, the others claimed, Lost when a partition that is not fresh has no position, and BeingRebuilt.
        """
        retries = self.retries
        calls = [
            pack(b"FCALL", b"headrace_claim", 1, self._position_key(p), owner, int(p in fresh)) for p in partitions
        ]
        answers = dict(zip(partitions, await self._link.run(calls), strict=True))
        for kind, error in ((b"REBUILDING", BeingRebuilt), (b"LOST", Lost)):
            refused = [p for p, answer in answers.items() if answer[0] == kind]
            if refused:
                raise error(refused)
        # An earlier attempt of this very claim may have been carried out: then "us" says nothing of who was before.
        unsure = owner if self.retries != retries else None
        return {p: _claim(answer, unsure) for p, answer in answers.items()}

    async def read_users(self, partition: int, users: Sequence[str]) -> list[UserRead]:
        """States and forget markers of users of one partition, in order, in one MGET."""
        return (await self.read_many({partition: users}))[partition]

    async def read_many(self, users: Mapping[int, Sequence[str]]) -> dict[int, list[UserRead]]:
        """The same for several partitions in one round trip."""
        asked = {p: names for p, names in users.items() if names}
        calls = []
        for p, names in asked.items():
            keys = [self.state_key(p, name) for name in names]
            keys += [self.marker_key(p, name) for name in names]
            calls.append(pack(b"MGET", *keys))
        answers = await self._link.run(calls)
        found = {p: _user_reads(answer) for p, answer in zip(asked, answers, strict=True)}
        return {p: found.get(p, []) for p in users}

    async def apply(self, calls: Sequence[Apply]) -> list[Applied]:
        """Carry out batches of distinct partitions, in one round trip; an answer each, in order."""
        answers = await self._link.run([self._pack_apply(call) for call in calls])
        return [Applied("GAP", int(a[1])) if isinstance(a, list) else Applied(a.decode()) for a in answers]

    def _pack_apply(self, call: Apply) -> bytes:
        writes = call.writes
        args: list[Any] = [b"FCALL", b"headrace_apply", 1 + len(writes), self._position_key(call.partition)]
        args += [write.key for write in writes]
        args += (call.epoch, call.expected, call.next, call.sent)
        for write in writes:
            args.append(write.ttl_s)
            args.append(write.value)
        return pack(*args)

    async def sent(self, partition: int, epoch: int, sent: int) -> Literal["OK", "FENCED"]:
        """Move `sent` alone, when no apply carries it. It never moves back."""
        call = pack(b"FCALL", b"headrace_sent", 1, self._position_key(partition), epoch, sent)
        (answer,) = await self._link.run([call])
        return "OK" if answer == b"OK" else "FENCED"

    async def put_feeds(self, feeds: Iterable[AnyFeed]) -> list[bool]:
        """Store feeds that are newer than what is there, in one round trip; True = it is the stored one now."""
        calls = [
            pack(
                b"FCALL",
                b"headrace_put_feed",
                2,
                self.feed_key(feed.partition, feed.user),
                self.marker_key(feed.partition, feed.user),
                self.feed_ttl_s,
                _VERSION.pack(feed.version, feed.revision),
                feed.feed,
            )
            for feed in feeds
        ]
        return [answer != b"STALE" for answer in await self._link.run(calls)]

    async def put_default(self, recipe: str, revision: int, feed: bytes) -> bool:
        """Store the feed of strangers if it is newer; `revision` is its time in ms."""
        version = _VERSION.pack(0, revision)
        call = (b"FCALL", b"headrace_put_feed", 1, self._default_key(recipe), _DEFAULT_TTL_S, version, feed)
        (answer,) = await self._link.run([pack(*call)])
        return bool(answer != b"STALE")

    # -- the contract

    async def install(self) -> None:
        """Write the contract of the prefix and load the functions; StoreRefused when it was made with another."""
        await self._contract.install()

    async def show(self) -> dict[str, Any]:
        """What is expected and what is there: server, library (hashes), meta, policy, append_only."""
        return await self._contract.show()

    async def check(self) -> None:
        """Raise StoreRefused (FunctionsMissing while `install` is to be run) unless the store may be used."""
        await self._contract.check()

    async def check_meta(self) -> None:
        """The part of it that concerns who only reads: that the prefix was made as the settings say."""
        await self._contract.check_meta()

    # -- upkeep

    def rebuilding(self, owner: str) -> Rebuilding:
        """What writes the users of partitions anew; `owner` is a name never used before."""
        return Rebuilding(self._link, self._position_key, owner)

    async def scan_users(self, kind: Literal["u", "f"]) -> AsyncIterator[list[tuple[int, str]]]:
        """Users that have a state (`u`) or a feed (`f`), with their partitions, some at a time.

        Whoever has one all the while comes at least once; of the others nothing is promised. It asks the whole server:
        for an operator, never for a worker.
        """
        begin = b"%b:%b:{" % (self._prefix, kind.encode())
        async for keys in scan(self._link, begin + b"*"):
            split = (key.removeprefix(begin).split(b"}:", 1) for key in keys)
            yield [(int(partition), user.decode()) for partition, user in split]

    # -- readers

    async def read_state(self, partition: int, user: str) -> bytes | None:
        """A user's state."""
        return await self._one(b"GET", self.state_key(partition, user))

    async def read_feed(self, partition: int, user: str) -> bytes | None:
        """A user's last feed, as it was sent."""
        return await self._one(b"HGET", self.feed_key(partition, user), b"feed")

    async def read_default(self, recipe: str) -> bytes | None:
        """The feed of strangers."""
        return await self._one(b"HGET", self._default_key(recipe), b"feed")

    async def positions(self, partitions: Sequence[int]) -> dict[int, Position]:
        """Where partitions stand; one that stands nowhere is left out."""
        fields = (b"next", b"sent", b"epoch", b"owner")
        answers = await self._link.run([pack(b"HMGET", self._position_key(p), *fields) for p in partitions])
        return {
            p: Position(int(next_), int(sent or 0), int(epoch or 0), (owner or b"").decode())
            for p, (next_, sent, epoch, owner) in zip(partitions, answers, strict=True)
            if next_ is not None
        }

    async def _one(self, *command: bytes) -> bytes | None:
        answers: list[bytes | None] = await self._link.run([pack(*command)])
        return answers[0]


def _user_reads(answer: list[bytes | None]) -> list[UserRead]:
    half = len(answer) // 2  # blobs, then markers
    return [UserRead(blob or b"", mark or b"") for blob, mark in zip(answer[:half], answer[half:], strict=True)]


def _claim(answer: list[bytes], unsure: str | None) -> Claim:
    _, epoch, next_, sent, owner, left = answer
    previous = owner.decode()
    return Claim(int(epoch), int(next_), int(sent), "" if previous == unsure else previous, int(left or -1))


def _meta(settings: Settings) -> dict[str, str]:
    return {
        "layout": str(LAYOUT),
        "dimension": str(settings.model.dimension),
        "partitions": str(settings.kafka.partitions),
        "partitioner": settings.partitioner,
        "clock": settings.clock,
    }


def _seconds(days: float) -> int:
    return max(1, round(days * _DAY_S))
