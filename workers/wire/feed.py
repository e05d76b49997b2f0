"""`feeds.v1`: what a user is shown, and why. JSON in binary mode; a null value = no feed (the user was forgotten)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from workers.wire.envelope import SOURCE, binary_headers, trace_headers
from workers.wire.errors import InvalidError, decode, shown
from workers.wire.numbers import LAST_INT64, header_number
from workers.wire.output import GivenHeaders, Headers

TYPE = "headrace.feed.v1"  # `ce_type`


class FeedCause(msgspec.Struct, frozen=True, gc=False):
    """The event that a feed answers to."""

    event_id: str
    time: str  # RFC 3339
    at: str  # dataset/partition/offset: events/3/99123


class FeedModel(msgspec.Struct, frozen=True, gc=False):
    """The item model that a feed was made with."""

    epoch: int
    version: int


class FeedItem(msgspec.Struct, frozen=True, gc=False):
    """One item of a feed, and why it is there."""

    item_id: str
    rank: int  # from 1
    score: float
    sources: dict[str, int]  # source -> the item's rank there; only those that ranked it best
    because: list[str]  # item ids of the user's history
    parts: dict[str, float]  # contributions to the score
    propensity: float


class FeedStages(msgspec.Struct, frozen=True, gc=False):
    """What the four stages did."""

    gathered: int
    dropped: dict[str, int]  # filter -> candidates
    ranked: int
    took_us: int


class Feed(msgspec.Struct, frozen=True, gc=False):
    """A feed. A subscriber keeps the greatest (version, revision), also across a null, and drops the rest."""

    feed_id: str
    user_id: str
    version: int  # offset in `events` of the last event in the state, + 1
    revision: int  # `generated_at` in ms
    count: int  # events applied
    generated_at: str  # RFC 3339, as `expires_at`
    expires_at: str
    cause: FeedCause | None  # None: the default feed, for users that nobody knows
    model: FeedModel
    recipe: str
    items: list[FeedItem]
    stages: FeedStages


class Pair(NamedTuple):
    """What orders the feeds of a user."""

    version: int
    revision: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Feed)


def encode_feed(feed: Feed) -> bytes:
    """The feed as JSON: the value on the topic and in Redis. Numbers must be finite."""
    return _encoder.encode(feed)


def read_feed(value: bytes) -> Feed:
    """The feed in `value`. Raises WireError."""
    return decode(_decoder, value, "feed")


def feed_headers(feed: Feed, traceparent: str | None = None, tracestate: str | None = None) -> Headers:
    """The headers of a feed: binary mode, its (version, revision), the trace of its cause."""
    headers = binary_headers(feed.feed_id, SOURCE, TYPE, feed.revision, feed.user_id)
    return headers + pair_headers(feed.version, feed.revision) + trace_headers(traceparent, tracestate)


def pair_headers(version: int, revision: int) -> Headers:
    """The headers of a null; every feed carries them too."""
    return [("version", b"%d" % version), ("revision", b"%d" % revision)]


def read_pair(headers: GivenHeaders) -> Pair:
    """(version, revision) of a record of `feeds`, null or not, without decoding it. Raises InvalidError."""
    given = dict(headers)
    try:
        return Pair(header_number(given["version"], 0, LAST_INT64), header_number(given["revision"], 0, LAST_INT64))
    except (KeyError, ValueError):
        raise InvalidError(f"feed: expected the headers `version` and `revision`, found {shown(given)}") from None
