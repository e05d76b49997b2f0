"""The specification of user state in executable form: a replay of `events`, one event at a time, in plain Python.

It imports nothing of `pipeline` or `workers`, so that whoever is wrong is wrong alone: the records' JSON goes in, every
user's durable bytes come out. Slow and simple by intent; when it and the workers differ, read the design, then fix one.

    done = replay(records, Rules(now=...))
    done.durable("u-1", dimension=64)  # header + durable part of the user's blob
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RING = 30
IDS = 16
MARKS = 1024
NEGATIVES = 16
RAW_BYTES = 64 * 1024
ATTRIBUTES_BYTES = 256
EVENT_ID_BYTES = 512
ITEMS_LISTED = 200
DEEPEST = 200  # levels of objects and lists in a value
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
OLDEST_MS = 30 * DAY_MS  # behind now
NEWEST_MS = 5 * MINUTE_MS  # ahead of now
STREAM_END_MS = 2**32 * 1000  # ring times are u32 seconds
SECONDS_BELOW = 10**11  # a smaller number must be seconds, and is refused
ID = re.compile(r"[A-Za-z0-9_.:@/+=-]{1,128}")
RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PROFILE_KEYS = ("audience", "locale", "market", "muted_categories", "muted_creators")


class Meaning(NamedTuple):
    """What an action does to its user's state."""

    code: int
    positive: bool = False
    consumes: bool = False
    blocks: bool = False
    names_item: bool = True


UNKNOWN = Meaning(0, names_item=False)
ACTIONS = {
    "impression": Meaning(1, names_item=False),
    "view": Meaning(2, positive=True),
    "click": Meaning(3, positive=True, consumes=True),
    "like": Meaning(4, positive=True, consumes=True),
    "add_to_cart": Meaning(5, positive=True),
    "purchase": Meaning(6, positive=True, consumes=True),
    "dislike": Meaning(7, consumes=True, blocks=True),
    "hide": Meaning(8, consumes=True, blocks=True),
    "profile": Meaning(9, names_item=False),
    "forget": Meaning(10, names_item=False),
}
ALSO_READ_AS = {
    "view_item_list": "impression",
    "view_item": "view",
    "read": "view",
    "select_item": "click",
    "star": "like",
}


@dataclass(frozen=True)
class Rules:
    """What is fixed for a prefix, and the time at which the log is read."""

    now: int = 0  # ms; only clock = wall looks at it
    clock: str = "wall"
    partitions: int = 12
    partitioner: str = "murmur2"
    rating_threshold: float = 4.0


class Record(NamedTuple):
    """A record of `events` as Kafka holds it."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int  # ms
    partition: int
    offset: int


class Event(NamedTuple):
    """A valid event, envelope resolved."""

    user: str
    action: str  # its name in ACTIONS, or "" when unknown
    item: int  # hash, 0 = none
    id: int  # hash, 0 = none
    time: int  # ms
    attributes: bytes  # of a profile


class RefusedError(Exception):
    """The record is bad; the message is one word, the reason."""


@dataclass
class User:
    """A user's durable state. Lists are newest first."""

    count: int = 0
    positives: int = 0
    last_offset: int = -1
    last_time: int = 0
    ring: list[tuple[int, int, int]] = field(default_factory=list)  # item, seconds, action code
    ids: list[int] = field(default_factory=list)
    consumed: list[int] = field(default_factory=list)
    blocked: list[tuple[int, int]] = field(default_factory=list)  # item, truncated; seconds
    attributes: bytes = b""


class Marker(NamedTuple):
    """What is left of a forgotten user."""

    version: int  # the forget's offset + 1
    time: int  # the latest forget's event time, ms


@dataclass
class Replay:
    """Everything that a log determines."""

    users: dict[str, User] = field(default_factory=dict)
    markers: dict[str, Marker] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)  # partition -> next offset
    bad: list[tuple[int, int, str]] = field(default_factory=list)  # partition, offset, reason
    astray: list[tuple[int, int]] = field(default_factory=list)  # partition, offset
    duplicates: int = 0
    forgotten: int = 0
    replayed: int = 0

    def durable(self, user: str, dimension: int) -> bytes:
        """The header and durable part of the user's blob; b"" for a user without state."""
        return durable(self.users[user], dimension) if user in self.users else b""

    def announced(self) -> dict[str, int]:
        """The version under which each user was announced last: of the state, or of the forget."""
        versions = {user: marker.version for user, marker in self.markers.items()}
        return versions | {user: state.last_offset + 1 for user, state in self.users.items()}


def replay(records: Iterable[Record], rules: Rules, done: Replay | None = None) -> Replay:
    """Apply `records` (each partition's in log order) one at a time, to nothing or on top of `done`."""
    done = Replay() if done is None else done
    for record in records:
        done.positions[record.partition] = max(record.offset + 1, done.positions.get(record.partition, 0))
        try:
            event = read(record, rules)
            away = is_astray(record, event.user, rules)
        except RefusedError as refused:
            done.bad.append((record.partition, record.offset, str(refused)))
            continue
        if away:
            done.astray.append((record.partition, record.offset))
        else:
            apply(done, event, record.offset)
    return done


# --- what an event does ---------------------------------------------------------------------------------------------


def apply(done: Replay, event: Event, offset: int) -> None:
    """One event on its user's state: replayed, duplicate, forget, forgotten, or applied, asked in this order."""
    state = done.users.get(event.user)
    marker = done.markers.get(event.user)
    if offset <= max(state.last_offset if state else -1, marker.version - 1 if marker else -1):
        done.replayed += 1
    elif state and event.id and event.id in state.ids:
        done.duplicates += 1
    elif event.action == "forget":
        done.users.pop(event.user, None)
        done.markers[event.user] = Marker(offset + 1, max(event.time, marker.time if marker else event.time))
    elif marker and event.time <= marker.time:
        done.forgotten += 1
    else:
        advance(done.users.setdefault(event.user, User()), event, offset)


def advance(state: User, event: Event, offset: int) -> None:
    """Count the event and let its action change the state."""
    meaning = ACTIONS.get(event.action, UNKNOWN)
    state.count += 1
    state.last_offset = offset
    state.last_time = event.time
    if event.id:
        state.ids = [event.id, *state.ids][:IDS]
    if meaning.positive:
        state.positives += 1
        state.ring = [(event.item, max(0, event.time // 1000), meaning.code), *state.ring][:RING]
    if meaning.blocks:
        block(state, event.item & 0xFFFFFFFF, max(0, event.time // 1000))
    elif meaning.consumes:
        consume(state, event.item & 0xFFFFFFFF)
    if event.action == "profile":
        state.attributes = event.attributes


def consume(state: User, mark: int) -> None:
    """To the front of the consumed, unless blocked; the oldest consumed make room."""
    if all(mark != blocked for blocked, _ in state.blocked):
        state.consumed = [mark, *(known for known in state.consumed if known != mark)]
        state.consumed = state.consumed[: MARKS - len(state.blocked)]


def block(state: User, mark: int, seconds: int) -> None:
    """To the front of the blocked and out of the consumed; the oldest consumed make room, then the oldest blocked."""
    state.blocked = [(mark, seconds), *(known for known in state.blocked if known[0] != mark)][:MARKS]
    state.consumed = [known for known in state.consumed if known != mark][: MARKS - len(state.blocked)]


def durable(state: User, dimension: int) -> bytes:
    """Header and durable part, little-endian, as in the table of the blob's layout."""
    header = struct.pack(
        "<BBHBBHHHB3x",
        1,  # layout
        0,  # flags
        dimension,
        len(state.ring),
        len(state.ids),
        len(state.consumed),
        len(state.blocked),
        len(state.attributes),
        len(state.blocked[:NEGATIVES]),
    )
    counters = struct.pack("<QQqq", state.count, state.positives, state.last_offset, state.last_time)
    items, times, codes = zip(*state.ring, strict=True) if state.ring else ((), (), ())
    ring = array("Q", items) + array("I", times) + array("B", codes)
    blocked, since = zip(*state.blocked, strict=True) if state.blocked else ((), ())
    marks = array("Q", state.ids) + array("I", state.consumed) + array("I", blocked) + array("I", since[:NEGATIVES])
    return header + counters + ring + marks + state.attributes


def array(kind: str, numbers: Sequence[int]) -> bytes:
    """`numbers` one after the other."""
    return struct.pack(f"<{len(numbers)}{kind}", *numbers)


# --- where an event belongs -----------------------------------------------------------------------------------------


def hash_id(text: str) -> int:
    """BLAKE2b, 8 bytes, little-endian; 0 is kept for "none"."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


def is_astray(record: Record, user: str, rules: Rules) -> bool:
    """Whether the record lies elsewhere than its key says. RefusedError when it was re-routed already."""
    if record.partition == partition_of(user.encode(), rules):
        return False
    if "headrace-rerouted" in headers_of(record):
        raise RefusedError("astray")
    return True


def partition_of(key: bytes, rules: Rules) -> int:
    """Java's default partitioner, or librdkafka's."""
    hashed = zlib.crc32(key) if rules.partitioner == "crc32" else murmur2(key) & 0x7FFFFFFF
    return hashed % rules.partitions


def murmur2(key: bytes) -> int:
    """MurmurHash2 with Kafka's seed, unsigned."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        hashed = hashed * multiplier & mask ^ word
    if whole < len(key):
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    hashed = (hashed ^ hashed >> 13) * multiplier & mask
    return hashed ^ hashed >> 15


# --- from record to event -------------------------------------------------------------------------------------------


class Number(NamedTuple):
    """A number of the JSON text, as written: Python's own would turn 1e999 into infinity and choke on long integers."""

    text: str


class Envelope(NamedTuple):
    """A record's data object, and what its CloudEvents attributes say beside it."""

    data: Any
    id: str | None = None
    source: str | None = None
    time: Any = None


def read(record: Record, rules: Rules) -> Event:
    """The event in the record. Raises RefusedError."""
    if record.key is None:
        raise RefusedError("key")
    if record.value is None or len(record.value) > RAW_BYTES:
        raise RefusedError("size")
    envelope = unwrap(record.value, headers_of(record))
    data = checked(envelope.data)
    if record.key != data["user_id"].encode():
        raise RefusedError("key")
    name = action_of(data, rules)
    if ACTIONS.get(name, UNKNOWN).names_item and "item_id" not in data:
        raise RefusedError("item")
    return Event(
        user=data["user_id"],
        action=name,
        item=hash_id(data["item_id"]) if "item_id" in data else 0,
        id=event_id(envelope, data),
        time=event_time(envelope, data, record, rules),
        attributes=canonical(data.get("attributes", {})) if name == "profile" else b"",
    )


def headers_of(record: Record) -> dict[str, bytes]:
    """The headers by name; of one given twice the last."""
    return {name: value for name, value in record.headers if value is not None}


def unwrap(value: bytes, headers: Mapping[str, bytes]) -> Envelope:
    """Which of the three forms a record has, asked in this order: structured, binary, bare."""
    content = parse(value)
    if headers.get("content-type", b"").lower().startswith(b"application/cloudevents+json"):
        if not isinstance(content, dict):
            raise RefusedError("envelope")
        for name, fits in ENVELOPE_FIELDS.items():
            if content.get(name) is not None and not fits(content[name]):
                raise RefusedError("envelope")
        return Envelope(content.get("data"), *(content.get(name) for name in ("id", "source", "time")))
    if "ce_id" in headers:
        return Envelope(content, *(text_of(headers, name) for name in ("ce_id", "ce_source", "ce_time")))
    return Envelope(content)


def text_of(headers: Mapping[str, bytes], name: str) -> str | None:
    """A header as text."""
    try:
        return headers[name].decode() if name in headers else None
    except UnicodeDecodeError:
        raise RefusedError("envelope") from None


def parse(value: bytes) -> Any:
    """JSON to objects, numbers kept as written."""
    try:
        content = json.loads(value.decode(), parse_int=Number, parse_float=Number, parse_constant=refuse_constant)
        check(content, 0)
    except (ValueError, RecursionError):  # also not UTF-8, half of a surrogate pair
        raise RefusedError("json") from None
    return content


def refuse_constant(text: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(text)


def check(content: Any, depth: int) -> None:
    """Text that is Unicode, in no more levels than allowed. Raises ValueError."""
    if isinstance(content, str):
        content.encode()
    elif isinstance(content, dict | list):
        if depth == DEEPEST:
            raise ValueError(content)
        for child in (*content, *content.values()) if isinstance(content, dict) else content:
            check(child, depth + 1)


def checked(data: Any) -> dict[str, Any]:
    """The data object without its nulls and unknown fields, every known field of the right kind and size."""
    if not isinstance(data, dict):
        raise RefusedError("data")
    known = {name: value for name, value in data.items() if name in FIELDS and value is not None}
    for name in ("user_id", "action"):
        if name not in known:
            raise RefusedError(name)
    for name, value in known.items():
        if not FIELDS[name](value):
            raise RefusedError(name)
    return known


def is_id(value: Any) -> bool:
    """A user's, item's, creator's or feed's id."""
    return isinstance(value, str) and ID.fullmatch(value) is not None


def is_text(value: Any) -> bool:
    """Any string."""
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    """Finite, also as a float32."""
    if not isinstance(value, Number):
        return False
    try:
        return math.isfinite(struct.unpack("<f", struct.pack("<f", float(value.text)))[0])
    except OverflowError:
        return False


def is_integer(value: Any) -> bool:
    """A 64-bit integer, written as one."""
    if not isinstance(value, Number) or re.fullmatch(r"-?[0-9]{1,19}", value.text) is None:
        return False
    return -(2**63) <= int(value.text) < 2**63


def is_event_id(value: Any) -> bool:
    """Only hashed, so any string of a bounded size."""
    return isinstance(value, str) and 0 < len(value.encode()) <= EVENT_ID_BYTES


def is_items(value: Any) -> bool:
    """A list that was shown."""
    return isinstance(value, list) and len(value) <= ITEMS_LISTED and all(map(is_id, value))


def is_object(value: Any) -> bool:
    """Any JSON object."""
    return isinstance(value, dict)


def is_texts(value: Any) -> bool:
    """A list of strings."""
    return isinstance(value, list) and all(map(is_text, value))


def is_context(value: Any) -> bool:
    """Where it happened: text, as far as it is known."""
    return is_object(value) and all(
        value.get(name) is None or is_text(value[name]) for name in ("surface", "device", "locale")
    )


def is_attributes(value: Any) -> bool:
    """What a profile says: text, and lists of text."""
    return is_object(value) and all(
        value.get(name) is None or (is_texts if name.startswith("muted") else is_text)(value[name])
        for name in PROFILE_KEYS
    )


def is_instant(value: Any) -> bool:
    """Text or an integer; `instant` reads it."""
    return is_text(value) or (isinstance(value, Number) and re.fullmatch(r"-?[0-9]+", value.text) is not None)


FIELDS = {
    "user_id": is_id,
    "item_id": is_id,
    "action": is_text,
    "value": is_number,
    "time": is_instant,
    "event_id": is_event_id,
    "session_id": is_text,
    "feed_id": is_id,
    "position": is_integer,
    "context": is_context,
    "items": is_items,
    "attributes": is_attributes,
}
ENVELOPE_FIELDS = {
    "id": is_text,
    "source": is_text,
    "time": is_instant,
    "traceparent": is_text,
    "tracestate": is_text,
}


def action_of(data: Mapping[str, Any], rules: Rules) -> str:
    """The action's name in ACTIONS, or "" when it means nothing here."""
    name = data["action"]
    if name == "rate":
        liked = "value" in data and float(data["value"].text) >= rules.rating_threshold
        return "like" if liked else ""
    name = ALSO_READ_AS.get(name, name)
    return name if name in ACTIONS else ""


def event_id(envelope: Envelope, data: Mapping[str, Any]) -> int:
    """Body's `event_id`, else the envelope's (source, id), hashed; 0 = the producer gave none."""
    if "event_id" in data:
        return hash_id(data["event_id"])
    if envelope.id is None:
        return 0
    source = envelope.source or ""
    if not is_event_id(envelope.id) or len(source.encode()) > EVENT_ID_BYTES:
        raise RefusedError("envelope")
    return hash_id(f"{source}\0{envelope.id}")


def event_time(envelope: Envelope, data: Mapping[str, Any], record: Record, rules: Rules) -> int:
    """Body's `time`, else the envelope's, else the record's; refused when the prefix's clock does not allow it."""
    if "time" in data:
        time = instant(data["time"])
    elif envelope.time is not None:
        time = instant(envelope.time)
    else:
        time = record.timestamp
    first, last = (rules.now - OLDEST_MS, rules.now + NEWEST_MS) if rules.clock == "wall" else (0, STREAM_END_MS - 1)
    if not first <= time <= last:
        raise RefusedError("clock")
    return time


def instant(given: Any) -> int:
    """Epoch milliseconds from RFC 3339 text or from milliseconds (number or text). Seconds are refused, not guessed."""
    text = given.text if isinstance(given, Number) else given
    if not isinstance(text, str):
        raise RefusedError("time")
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        if abs(int(text)) < SECONDS_BELOW:
            raise RefusedError("time")
        return int(text)
    found = RFC3339.fullmatch(text)
    if found is None or isinstance(given, Number):
        raise RefusedError("time")
    return from_calendar(*found.groups())


def from_calendar(*parts: str) -> int:
    """Epoch milliseconds of RFC 3339's parts; what is finer than a millisecond is cut off."""
    *calendar, fraction, sign, hours, minutes = parts
    try:
        local = datetime(*map(int, calendar), tzinfo=UTC) - EPOCH  # type: ignore[arg-type, misc]
    except ValueError:
        raise RefusedError("time") from None
    if int(hours or 0) > 23 or int(minutes or 0) > 59:
        raise RefusedError("time")
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    return (local - ahead) // timedelta(milliseconds=1) + int(((fraction or "") + "000")[:3])


def canonical(attributes: Mapping[str, Any]) -> bytes:
    """The known keys of a profile, sorted, compact, as UTF-8."""
    kept = {key: attributes[key] for key in PROFILE_KEYS if attributes.get(key) is not None}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > ATTRIBUTES_BYTES:
        raise RefusedError("attributes")
    return text


# --- the derived part, when the model is frozen ---------------------------------------------------------------------


GAPS_S = (1, 10, 60, 300, 1800, 10_800, 86_400, 604_800, 2_592_000)


class Attention(NamedTuple):
    """Its logarithm by position, newest first, and by time gap, for each half of the dimensions; float32."""

    alpha: NDArray[np.float32]  # (2, RING)
    beta: NDArray[np.float32]  # (2, gaps)


UNTAUGHT = Attention(
    np.array([[1, *(d * math.log(decay) for d in range(1, RING))] for decay in (0.7, 0.97)], np.float32),
    np.zeros((2, len(GAPS_S) + 1), np.float32),
)


def embedding(
    user: User, vectors: Mapping[int, ArrayLike], k: int, attention: Attention = UNTAUGHT
) -> NDArray[np.float32]:
    """The weighted sum of the ring's item vectors (e_in + e_out) as of the user's last event, bit for bit.

    For the first k // 2 dimensions and for the others: w_d = float32(exp(alpha_d + beta[gap])), gap = how many of the
    edges GAPS_S are not above the seconds from the item to the last event; h_j += w_d x_j in float32, from the newest
    item to the oldest, unknown items left out (they keep their d); s = float32(1 / sqrt(sum of w_d in float64));
    h_j *= s. Zeros when no item is known.
    """
    h = np.zeros(k, np.float32)
    for half, alpha, beta in zip((slice(0, k // 2), slice(k // 2, k)), *attention, strict=True):
        total = 0.0
        for d, (item, taken, _) in enumerate(user.ring):
            if item in vectors:
                gap = sum(user.last_time // 1000 - taken >= edge for edge in GAPS_S)
                w = np.float32(math.exp(float(alpha[d]) + float(beta[gap])))
                h[half] += w * np.asarray(vectors[item], np.float32)[half]
                total += float(w)
        if total:
            h[half] *= np.float32(1 / math.sqrt(total))
    return h
