"""How this process meets a broker and a store: TLS, its name there, and the refusal to do without beyond loopback.

Every client of the broker (ours, and the one that Faust makes) gets its options here, and so does the store's
connection: what must hold is decided once.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from functools import cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import structlog

from workers.settings import Kafka, Settings, SettingsError, Store

log = structlog.get_logger()

_CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


class Insecure(SettingsError):
    """A broker or store beyond this machine would be met without TLS, or without saying who we are."""


def broker_options(settings: Settings) -> dict[str, Any]:
    """What an aiokafka client is told beside the address. Raises Insecure; SettingsError for a file it cannot use."""
    kafka = settings.kafka
    guard_broker(settings, (_host(address) for address in kafka.bootstrap.split(",")))
    options: dict[str, Any] = {"security_protocol": kafka.security_protocol}
    if kafka.tls:
        options["ssl_context"] = _tls(kafka, "kafka")
    if kafka.sasl:
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.user
        options["sasl_plain_password"] = kafka.password.reveal()
    return options


def guard_broker(settings: Settings, hosts: Iterable[str]) -> None:
    """Raise Insecure if one of a broker's `hosts` is beyond loopback and the settings do not protect the way there.

    A broker tells its clients where to find it: what it tells must hold as well as what it was asked by.
    """
    kafka = settings.kafka
    named = kafka.tls and (kafka.sasl or kafka.cert_file)
    beyond = sorted({host for host in hosts if not is_loopback(host)})
    if named or not beyond:
        return
    where = ", ".join(beyond)
    if not kafka.insecure:
        raise Insecure(
            f"kafka: {where} is beyond loopback: expected kafka.security_protocol SASL_SSL, or SSL with "
            f"kafka.cert_file, found {kafka.security_protocol}; set it, or kafka.insecure = true where the network "
            "itself is safe"
        )
    _say_insecure("kafka", where)


def store_options(store: Store) -> dict[str, Any]:
    """What the store's connection is told beside the address: redis-py's options. Raises Insecure, SettingsError."""
    url = urlsplit(store.url)
    if url.scheme != "unix":
        _guard_store(store, url.hostname or "localhost")
    options: dict[str, Any] = {}
    if store.user:
        options["username"] = store.user
    if store.password:
        options["password"] = store.password.reveal()
    if store.tls:
        _tls(store, "store")  # what is wrong with a file is said now, by its setting
        given = {"ssl_ca_certs": store.ca_file, "ssl_certfile": store.cert_file}
        given["ssl_keyfile"] = store.key_file or store.cert_file
        options |= {name: file for name, file in given.items() if file}
    return options


def tls_refusal(error: BaseException | None) -> ssl.SSLError | None:
    """The refusal that `error` comes of: a certificate or protocol that a person has to mend.

    None for anything else, also for a handshake that was cut off, as by a server that is being started anew.
    """
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return None if isinstance(error, _CUT_OFF) else error


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or address, is this machine by its text alone: a resolver may say anything."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _guard_store(store: Store, host: str) -> None:
    if is_loopback(host) or (store.tls and store.password):
        return
    if not store.insecure:
        raise Insecure(
            f"store: {host} is beyond loopback: expected rediss:// and store.password_file, found "
            f"{'TLS' if store.tls else 'no TLS'} and {'a' if store.password else 'no'} password; set them, or "
            "store.insecure = true where the network itself is safe"
        )
    _say_insecure("store", host)


@cache
def _say_insecure(what: str, where: str) -> None:
    """Once a process."""
    log.warning("connection is not secured: the settings allow it", what=what, where=where)


def _tls(section: Kafka | Store, name: str) -> ssl.SSLContext:
    """A context that verifies the server's certificate and its name; TLS 1.2 at least."""
    step = f"{name}.ca_file: {section.ca_file}"
    try:
        context = ssl.create_default_context(cafile=section.ca_file or None)
        if section.cert_file:
            step = f"{name}.cert_file: {section.cert_file}, {name}.key_file: {section.key_file or 'the same'}"
            # The empty password: a key that wants one is refused, where OpenSSL would ask whoever sits at the terminal.
            context.load_cert_chain(section.cert_file, section.key_file or None, password="")
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"settings: cannot use {step} ({error.strerror or error})") from None
    return context


def _host(address: str) -> str:
    """The host of HOST:PORT, HOST or [IPv6]:PORT."""
    text = address.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, port = text.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else text
