"""Settings for the tests of the store alone: they need no broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from workers.settings import Settings, load


@pytest.fixture
def store_settings(any_store: str, prefix: str) -> Settings:
    """Settings of a prefix of its own; nothing is installed for it."""
    return load(environ={}, flags={"store_url": any_store, "prefix": prefix, "kafka_partitions": 4})


@pytest.fixture
def server(any_store: str) -> Iterator[redis.Redis]:
    """The server itself, for looks behind the store's back."""
    with redis.Redis.from_url(any_store) as client:
        yield client
