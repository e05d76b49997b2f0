"""The settings of how broker and store are reached: addresses, TLS, and who we are there.

Users and passwords may lie in files (`..._file`), as orchestrators mount secrets; they are read when settings are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from workers.secret import Secret

_ADDRESS = (
    "expected redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH; a password goes to store.password_file"
)


class SettingsError(ValueError):
    """A setting that cannot be used; the message is one clear line."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


S = TypeVar("S", bound=Section)


class Kafka(Section, frozen=True):
    """How to reach the broker."""

    bootstrap: str = "127.0.0.1:9092"
    partitions: int = 12  # of events, states, feeds, recent: part of the contract of a prefix
    replication: int = 1
    session_timeout_s: float = 10.0
    heartbeat_s: float = 1.0
    fetch_wait_ms: int = 50  # 20 on a broker that does not wake a pending fetch
    connect_timeout_s: float = 60.0  # a broker that is missing at start: retried so long, then exit
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    user: str = ""
    user_file: str = ""
    password: Secret = msgspec.field(default_factory=Secret)
    password_file: str = ""
    ca_file: str = ""  # PEM, who may sign the broker's certificate; "" = whom this machine trusts
    cert_file: str = ""  # PEM, our own certificate: mutual TLS
    key_file: str = ""  # PEM, its key, where `cert_file` does not hold it
    insecure: bool = False  # allow a broker beyond loopback without TLS, or without saying who we are

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether user and password say who we are."""
        return self.security_protocol.startswith("SASL_")


class Store(Section, frozen=True):
    """How to reach Redis or Valkey."""

    url: str = "redis://127.0.0.1:6379/0"  # rediss:// is TLS; a user and password in it become the settings below
    connect_timeout_s: float = 60.0
    call_timeout_s: float = 5.0
    user: str = ""  # "" = the server's default user
    user_file: str = ""
    password: Secret = msgspec.field(default_factory=Secret)
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False  # allow a store beyond loopback without TLS or without a password

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.url.startswith("rediss:")


def secret(kind: type, given: Any) -> Any:
    """How msgspec makes a Secret of text."""
    if kind is Secret and isinstance(given, str):
        return Secret(given)
    raise TypeError("expected text")


def resolved(kafka: Kafka, store: Store) -> tuple[Kafka, Store]:
    """With users and passwords read from their files, and taken out of the store's address. Raises SettingsError."""
    return _from_files(kafka, "kafka"), _from_files(_without_login(store), "store")


def rules_of_connections(kafka: Kafka, store: Store) -> list[tuple[bool, str]]:
    """What must hold, each with what is said if it does not. What was meant to protect and would not be used is a
    mistake that must not go unseen."""
    login = bool(kafka.user and kafka.password)
    return [
        (login or not kafka.sasl, f"{kafka.security_protocol} needs kafka.user and kafka.password_file"),
        (kafka.sasl or not (kafka.user or kafka.password), "kafka.user and kafka.password need SASL_SSL"),
        *_rules_of_files(kafka, "kafka", "kafka.security_protocol SASL_SSL or SSL"),
        *_rules_of_files(store, "store", "rediss:// in store.url"),
    ]


def _rules_of_files(section: Kafka | Store, name: str, needed: str) -> list[tuple[bool, str]]:
    given = [f"{name}.{field}" for field in ("ca_file", "cert_file", "key_file") if getattr(section, field)]
    return [
        (section.tls or not given, f"{', '.join(given)} would not be used: it takes {needed}"),
        (bool(section.cert_file) or not section.key_file, f"{name}.key_file needs {name}.cert_file"),
    ]


def _from_files(section: S, name: str) -> S:
    found: dict[str, Any] = {}
    for field, kind in (("user", str), ("password", Secret)):
        file = getattr(section, f"{field}_file")
        if file and getattr(section, field):
            raise SettingsError(f"settings: {name}.{field} and {name}.{field}_file: give one of them")
        if file:
            found[field] = kind(_read(file, f"{name}.{field}_file"))
    return msgspec.structs.replace(section, **found)


def _read(file: str, name: str) -> str:
    """The text of a file, without the line end that editors add."""
    try:
        text = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(f"settings: {name}: cannot read {file}: {why}") from None
    if not text:
        raise SettingsError(f"settings: {name}: {file} is empty")
    return text


def _without_login(store: Store) -> Store:
    """The address is logged and shown, so it must hold no secret; a wrong one is not repeated in the message."""
    try:
        url = urlsplit(store.url)
        port = url.port
    except ValueError:
        raise SettingsError(f"settings: store.url: {_ADDRESS}") from None
    if url.scheme not in ("redis", "rediss", "unix") or port == 0:
        raise SettingsError(f"settings: store.url: {_ADDRESS}")
    names = {name for name, _ in parse_qsl(url.query, keep_blank_values=True)}
    ours = sorted(name for name in names if name in ("username", "password") or name.startswith("ssl_"))
    if ours:  # some of them would switch verification off
        raise SettingsError(
            f"settings: store.url: {', '.join(ours)}: use store.user, store.password_file, store.ca_file instead"
        )
    if "@" not in url.netloc:
        return store
    if store.user or store.user_file or store.password or store.password_file:
        raise SettingsError("settings: store.url names a user or password, and so do other settings: give one of them")
    bare = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    user, password = unquote(url.username or ""), Secret(unquote(url.password or ""))
    return msgspec.structs.replace(store, url=bare, user=user, password=password)
