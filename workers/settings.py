"""Settings: defaults, then `headrace.toml`, then `HEADRACE_...` variables, then flags. Unknown keys are errors.

The only file that reads the environment (fail points aside, see `failpoints.py`). Every setting has a flat name, its
path with underscores: `feed.size` in the file is `HEADRACE_FEED_SIZE` in the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import msgspec

from workers.connections import Kafka, Section, SettingsError, Store, resolved, rules_of_connections, secret

__all__ = [
    "ACTIONS",
    "Action",
    "Feed",
    "Kafka",
    "Model",
    "Settings",
    "SettingsError",
    "Store",
    "Users",
    "flat_names",
    "load",
]

ENV = "HEADRACE_"
FAILPOINT_ENV = "HEADRACE_FAILPOINT_"  # its own prefix: not a setting
SETTINGS_FILE = "headrace.toml"
PREFIX = re.compile("[A-Za-z0-9_-]{1,100}")

# The least and the greatest that a number may be. Outside lie a busy loop, a time that is over at once, and mistakes.
RANGES: dict[str, tuple[float, float]] = {
    "rating_threshold": (-1_000_000, 1_000_000),
    "kafka.partitions": (1, 1024),
    "kafka.replication": (1, 1000),
    "kafka.session_timeout_s": (1, 1800),  # a broker's own greatest
    "kafka.heartbeat_s": (0.05, 600),
    "kafka.fetch_wait_ms": (1, 10_000),
    "kafka.connect_timeout_s": (0.1, 86_400),
    "store.connect_timeout_s": (0.1, 86_400),
    "store.call_timeout_s": (0.1, 600),
    "users.ttl_days": (1, 36_500),
    "users.cache": (1, 1 << 24),
    "users.neighbours": (1, 1 << 24),
    "model.dimension": (4, 1024),
    "model.negatives": (1, 10_000),
    "model.seed": (0, (1 << 63) - 1),
    "model.flush_s": (0.05, 3600),
    "model.flush_bytes": (1000, 1_000_000_000),
    "model.checkpoint_s": (0.1, 86_400),
    "feed.size": (1, 200),
    "feed.sources": (1, 100),
    "feed.ttl_hours": (0.01, 87_600),
    "feed.cache_days": (0.01, 3650),
    "feed.default_every_s": (0.1, 3600),  # the store keeps that feed for a day
}
WEIGHTS = (-1000, 1000)  # of actions


class Users(Section, frozen=True):
    """What is kept of a user."""

    ttl_days: float = 90.0  # a state without events for so long expires
    cache: int = 200_000  # states that an embedding worker keeps in memory
    neighbours: int = 200_000  # users whose last items a retrieval worker keeps in memory, 300 bytes each


class Model(Section, frozen=True):
    """The item model; `dimension` is part of the contract of a prefix."""

    dimension: int = 64
    negatives: int = 100
    seed: int = 1
    flush_s: float = 1.0
    flush_bytes: int = 2_000_000  # a flush's budget on the model topic
    checkpoint_s: float = 60.0


class Feed(Section, frozen=True):
    """What a feed holds."""

    size: int = 10
    sources: int = 2  # of an item's sources are told, those that ranked it best: a cached feed has a size to keep
    recipe: str = "home"
    ttl_hours: float = 24.0  # `expires_at`
    cache_days: float = 7.0  # the cached feed in Redis
    repeats: bool = False  # may consumed items be recommended again
    unlisted: bool = True  # may items without a record of their own be recommended
    default_every_s: float = 10.0  # the default feed for strangers


class Action(Section, frozen=True):
    """What an action means. `code` is stored in states: never change it once used."""

    code: int
    weight: float = 0.0
    consumes: bool = False
    blocks: bool = False
    refreshes: bool = False
    aliases: tuple[str, ...] = ()


# Codes below 32 are ours; a deployment's own actions use 32..255.
ACTIONS: dict[str, Action] = {
    "impression": Action(code=1, aliases=("view_item_list",)),
    "view": Action(code=2, weight=0.3, refreshes=True, aliases=("view_item", "read")),
    "click": Action(code=3, weight=1.0, consumes=True, refreshes=True, aliases=("select_item",)),
    "like": Action(code=4, weight=2.0, consumes=True, refreshes=True, aliases=("star",)),
    "add_to_cart": Action(code=5, weight=2.0, refreshes=True),
    "purchase": Action(code=6, weight=4.0, consumes=True, refreshes=True),
    "dislike": Action(code=7, weight=-1.0, consumes=True, blocks=True, refreshes=True),
    "hide": Action(code=8, weight=-1.0, consumes=True, blocks=True, refreshes=True),
    "profile": Action(code=9, refreshes=True),
    "forget": Action(code=10),
}


class Settings(Section, frozen=True):
    """All settings of a process."""

    prefix: str = "headrace"
    clock: Literal["wall", "stream"] = "wall"
    partitioner: Literal["murmur2", "crc32"] = "murmur2"
    rating_threshold: float = 4.0  # `rate` with at least this value is a `like`
    data: str = "../shared/data"  # where the real data sets lie, for development and tests
    health_file: str = ""  # written every second by a living worker; "" = none
    kafka: Kafka = msgspec.field(default_factory=Kafka)
    store: Store = msgspec.field(default_factory=Store)
    users: Users = msgspec.field(default_factory=Users)
    model: Model = msgspec.field(default_factory=Model)
    feed: Feed = msgspec.field(default_factory=Feed)
    actions: dict[str, Action] = msgspec.field(default_factory=dict)  # added to ACTIONS, or replacing one

    def topic(self, dataset: str) -> str:
        """The name of a topic: `<prefix>.<dataset>.v1`."""
        return f"{self.prefix}.{dataset}.v1"

    def all_actions(self) -> dict[str, Action]:
        """Built-in actions and this deployment's own, by name."""
        return {**ACTIONS, **self.actions}


def load(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    clock: Literal["wall", "stream"] = "wall",
) -> Settings:
    """Read the settings: file (default `headrace.toml` if it is there), environment, flags (flat names); later wins.

    `clock` is whose time counts where none of them says. Raises SettingsError for an unknown key, a wrong type or a
    value out of range.
    """
    environ = os.environ if environ is None else environ
    tree: dict[str, Any] = {"clock": clock, **_read_file(file)}
    for name, text in environ.items():
        if name.startswith(ENV) and not name.startswith(FAILPOINT_ENV):
            _put(tree, name.removeprefix(ENV).lower(), text, where=name)
    for name, value in (flags or {}).items():
        if value is not None:
            _put(tree, name, value, where=f"--{name.replace('_', '-')}")
    try:
        settings = msgspec.convert(tree, Settings, strict=False, dec_hook=secret)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {error}") from None
    kafka, store = resolved(settings.kafka, settings.store)
    return _checked(msgspec.structs.replace(settings, kafka=kafka, store=store))


def flat_names() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every scalar setting: its flat name and its path."""
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            for inner in msgspec.structs.fields(field.type):
                yield f"{field.name}_{inner.name}", (field.name, inner.name)
        elif field.name != "actions":
            yield field.name, (field.name,)


def _read_file(file: Path | None) -> dict[str, Any]:
    path = file or Path(SETTINGS_FILE)
    if file is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"settings: cannot read {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings: {path} is not TOML: {error}") from None


def _put(tree: dict[str, Any], name: str, value: Any, where: str) -> None:
    path = dict(flat_names()).get(name)
    if path is None:
        raise SettingsError(f"settings: {where} is not a setting; known: {', '.join(n for n, _ in flat_names())}")
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"settings: expected {part} to be a table, found {tree!r}")
    tree[path[-1]] = value


def _checked(settings: Settings) -> Settings:
    actions = settings.all_actions()
    codes = [action.code for action in actions.values()]
    words = Counter([*actions, *(alias for action in actions.values() for alias in action.aliases)])
    twice = [word for word, times in words.items() if times > 1]
    own = {name: action.code for name, action in settings.actions.items() if name not in ACTIONS}
    ours = [f"{name} {code}" for name, code in own.items() if not 32 <= code <= 255]
    recoded = [name for name, action in ACTIONS.items() if actions[name].code != action.code]
    weights = {f"actions.{name}.weight": action.weight for name, action in actions.items()}
    rules = [
        *rules_of_connections(settings.kafka, settings.store),
        *(_within(name, attrgetter(name)(settings), *limits) for name, limits in RANGES.items()),
        *(_within(name, weight, *WEIGHTS) for name, weight in weights.items()),
        *_rules_of_times(settings.kafka, settings.model),
        (PREFIX.fullmatch(settings.prefix) is not None, "prefix must be ASCII letters, digits, - and _"),
        (len(codes) == len(set(codes)), "actions must have distinct codes"),
        (not ours, f"own actions use codes 32..255, found {', '.join(ours)}"),
        (not recoded, f"{', '.join(recoded)}: a built-in action keeps its code, it is stored in states"),
        (not twice, f"{', '.join(twice)}: a name or alias must mean one action"),
    ]
    for holds, message in rules:
        if not holds:
            raise SettingsError(f"settings: {message}")
    return settings


def _within(name: str, found: float, least: float, greatest: float) -> tuple[bool, str]:
    """The rule of a number; NaN is in no range."""
    return least <= found <= greatest, f"{name} must be {least}..{greatest}, found {found}"


def _rules_of_times(kafka: Kafka, model: Model) -> list[tuple[bool, str]]:
    """What times must be beside one another."""
    heartbeat, session = kafka.heartbeat_s, kafka.session_timeout_s
    flush, checkpoint = model.flush_s, model.checkpoint_s
    return [
        (  # only a member whose last heartbeat is younger than that claims its partitions: `lane.py`
            heartbeat < session / 2,
            f"kafka.heartbeat_s must be less than half of kafka.session_timeout_s = {session}, found {heartbeat}",
        ),
        (flush <= checkpoint, f"model.checkpoint_s must be at least model.flush_s = {flush}, found {checkpoint}"),
    ]
