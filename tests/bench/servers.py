"""The broker and the store of a benchmark, started here: real ones with production's settings, or the embedded pair."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from tests import backing
from workers import embedded


@dataclass(frozen=True, slots=True)
class Servers:
    """Where they listen, and what they are."""

    bootstrap: str
    store_url: str
    names: str
    flags: dict[str, Any] = field(default_factory=dict)  # settings that suit them


@contextmanager
def servers() -> Iterator[Servers]:
    """Apache Kafka with both of the JVM's compilers (kafka-local starts fast with one), and Redis (else Valkey)."""
    version = backing.kafka_version()
    if version is None:
        raise SystemExit("bench: Java 17 and Maven are needed for a real broker")
    _end_what_is_started()
    port = str(embedded.free_port())
    kafka = str(backing.KAFKA_LOCAL)
    up = [kafka, "up", "--port", port, "--java-opts=-XX:+UseG1GC"]
    bootstrap = subprocess.run(up, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    try:
        with embedded.redis_server(backing.redis_binary() or embedded.valkey_binary()) as store:
            url = f"redis://{embedded.HOST}:{store.port}/0"
            yield Servers(bootstrap, url, f"Apache Kafka {version}, {_name(url)}")
    finally:
        subprocess.run([kafka, "down", "--port", port], check=False, stdout=subprocess.DEVNULL)


@contextmanager
def embedded_pair() -> Iterator[Servers]:
    """The broker and the store of the demo, which need no Java."""
    _end_what_is_started()
    with embedded.pair() as pair:
        names = f"{backing.EMBEDDED_BROKER}, {_name(pair.store_url)}"
        yield Servers(pair.bootstrap, pair.store_url, names, pair.flags())


def _end_what_is_started() -> None:
    """By `kill` and `timeout` too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _name(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        info = client.info("server")
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
