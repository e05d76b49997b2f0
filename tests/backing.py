"""What backs the tests: the most real broker and store that this machine has. Nothing here is a fake.

| | first | else | else |
|---|---|---|---|
| broker | Apache Kafka from Maven's jars (Java and mvn): `tools/kafka-local` | the same in Docker | the embedded one |
| store | `redis-server` on the PATH | Redis in Docker | the embedded Valkey |

`TEST_BROKER=host:port` and `TEST_STORE=redis://...` use what runs there already, on loopback: beyond it Headrace
wants TLS and a login, which the tests do not give.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import redis

from workers import embedded

KAFKA_LOCAL = Path(__file__).parents[1] / "tools" / "kafka-local"
EMBEDDED_BROKER = "the embedded broker (Tansu)"
# Below the range that the kernel lends to outgoing connections; kafka-local puts its controller 11,000 below.
_PORTS = range(21_000, 31_000)
_DOWNLOAD_S = 900


@dataclass(frozen=True, slots=True)
class Backing:
    """A server that tests talk to."""

    address: str
    name: str  # for the summary
    real: bool  # the real thing: Apache Kafka, Redis, Valkey
    flags: dict[str, Any] = field(default_factory=dict)  # settings that suit it


@contextmanager
def broker() -> Iterator[Backing]:
    """The broker of a session."""
    given = os.environ.get("TEST_BROKER")
    if given:
        yield Backing(given, f"the one at {given} (TEST_BROKER)", real=True, flags={"kafka_bootstrap": given})
    elif kafka_version() is not None:
        with _own_kafka() as backing:
            yield backing
    elif docker():
        from tests.containers import KAFKA_IMAGE, KafkaContainer  # noqa: PLC0415 - takes a second to load

        with KafkaContainer() as container:
            address = container.bootstrap()
            yield Backing(address, f"{KAFKA_IMAGE} (Docker)", real=True, flags={"kafka_bootstrap": address})
    else:
        with embedded.broker() as server:
            flags = embedded.Pair(f"{embedded.HOST}:{server.port}", "").flags()
            del flags["store_url"]
            yield Backing(flags["kafka_bootstrap"], EMBEDDED_BROKER, real=False, flags=flags)


@contextmanager
def store() -> Iterator[Backing]:
    """The store of a session."""
    given = os.environ.get("TEST_STORE")
    if given:
        yield _store(given, "TEST_STORE")
    elif redis_binary():
        with embedded.redis_server(redis_binary() or "") as server:
            yield _store(url_of(server), "redis-server")
    elif docker():
        from tests.containers import RedisContainer  # noqa: PLC0415 - takes a second to load

        with RedisContainer() as container:
            yield _store(container.url(), "Docker")
    else:
        with valkey() as backing:
            yield backing


@contextmanager
def valkey() -> Iterator[Backing]:
    """A Valkey."""
    with embedded.valkey() as server:
        yield _store(url_of(server), "wheel")


def url_of(server: embedded.Server) -> str:
    """The store's address."""
    return f"redis://{embedded.HOST}:{server.port}/0"


def redis_binary() -> str | None:
    """The Redis of this machine."""
    return shutil.which("redis-server")


def java() -> bool:
    """Whether Apache Kafka can run here without Docker."""
    return shutil.which("java") is not None and shutil.which("mvn") is not None


@cache
def kafka_version() -> str | None:
    """The Apache Kafka that runs here from its jars (downloaded the first time); None without Java or network."""
    if not java():
        return None
    try:
        done = kafka_local("fetch", timeout_s=_DOWNLOAD_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return Path(done).parent.name  # .../4.3.1/libs


@cache
def docker() -> bool:
    """Whether a Docker engine answers."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def real_broker() -> bool:
    """Whether a session's broker will be the real thing."""
    return bool(os.environ.get("TEST_BROKER")) or kafka_version() is not None or docker()


@contextmanager
def _own_kafka() -> Iterator[Backing]:
    port = free_broker_port()
    address = kafka_local("up", "--port", str(port), "--prop", "log.cleaner.backoff.ms=500", timeout_s=120)
    try:
        name = f"Apache Kafka {kafka_version()} (kafka-local)"
        yield Backing(address, name, real=True, flags={"kafka_bootstrap": address})
    finally:
        kafka_local("down", "--port", str(port), timeout_s=60)


def kafka_local(*words: str, timeout_s: float) -> str:
    """What `tools/kafka-local` prints. Raises CalledProcessError, TimeoutExpired."""
    done = subprocess.run([KAFKA_LOCAL, *words], stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=True)
    return done.stdout.strip()


def free_broker_port(nodes: int = 1) -> int:
    """A port from which on `nodes` brokers can listen, and their controllers."""
    for port in random.sample(_PORTS, 100):
        try:
            for node in range(nodes):
                for wanted in (port + node, port + node - 11_000):
                    with socket.socket() as probe:
                        probe.bind((embedded.HOST, wanted))
        except OSError:
            continue
        return port
    raise RuntimeError("no free port for the broker")


def _store(url: str, how: str) -> Backing:
    with redis.Redis.from_url(url) as client:
        info: dict[str, Any] = client.info("server")
    version = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    return Backing(url, f"{version} ({how})", real=True, flags={"store_url": url})
