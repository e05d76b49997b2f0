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
    file: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """Read the settings: file (default `headrace.toml` if it is there), environment, flags (flat names); later wins.

    Raises SettingsError for an unknown key, a wrong type or a value out of range.
    """
    environ = os.environ if environ is None else environ
    tree = _read_file(file)
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
    own = [action.code for name, action in settings.actions.items() if name not in ACTIONS]
    recoded = [name for name, action in ACTIONS.items() if actions[name].code != action.code]
    rules = [
        *rules_of_connections(settings.kafka, settings.store),
        (1 <= settings.kafka.partitions <= 1024, "kafka.partitions must be 1..1024"),
        (1 <= settings.users.neighbours <= 1 << 24, "users.neighbours must be 1..16777216"),
        (4 <= settings.model.dimension <= 1024, "model.dimension must be 4..1024"),
        (1 <= settings.feed.size <= 200, "feed.size must be 1..200"),
        (PREFIX.fullmatch(settings.prefix) is not None, "prefix must be ASCII letters, digits, - and _"),
        (len(codes) == len(set(codes)), "actions must have distinct codes"),
        (all(32 <= code <= 255 for code in own), "own actions use codes 32..255"),
        (not recoded, f"{', '.join(recoded)}: a built-in action keeps its code, it is stored in states"),
        (not twice, f"{', '.join(twice)}: a name or alias must mean one action"),
    ]
    for holds, message in rules:
        if not holds:
            raise SettingsError(f"settings: {message}")
    return settings
