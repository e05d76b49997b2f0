"""Settings for the tests of the store alone, which need no broker; and what tests of commands need."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from workers.settings import Settings, load


@pytest.fixture
def store_settings(any_store: str, prefix: str) -> Settings:
    """Settings of a prefix of its own; nothing is installed for it."""
    patient = {"store_call_timeout_s": 60.0}  # a call that is repeated answers otherwise: DUP, another epoch
    return load(environ={}, flags={"store_url": any_store, "prefix": prefix, "kafka_partitions": 4, **patient})


@pytest.fixture
def server(any_store: str) -> Iterator[redis.Redis]:
    """The server itself, for looks behind the store's back."""
    with redis.Redis.from_url(any_store) as client:
        yield client


@pytest.fixture
def hung_up() -> Iterator[None]:
    """For tests whose patience may end in the middle of a TLS handshake: asyncio leaves the socket of a connection that
    is cancelled just then to the garbage collector, which finds it here and not in some later test."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture
def headrace(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The environment names the test's broker, store and prefix."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "PREFIX": settings.prefix,
        "KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
        "KAFKA_PARTITIONS": settings.kafka.partitions,
        "KAFKA_FETCH_WAIT_MS": settings.kafka.fetch_wait_ms,
        "STORE_URL": settings.store.url,
    }.items():
        monkeypatch.setenv(f"HEADRACE_{name}", str(value))
    return settings
