"""Kafka records as the wire sees them, without Kafka."""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.wire.output import GivenHeaders

NOW = 1_795_324_211_132  # 2026-11-22T05:10:11.132Z


@dataclass(frozen=True)
class Consumed:
    """A consumed record; aiokafka's has the same attributes (see test_event.py)."""

    key: bytes | None = b"u-1042"
    value: bytes | None = b"{}"
    headers: GivenHeaders = field(default_factory=list)
    topic: str = "headrace.events.v1"
    partition: int = 3
    offset: int = 99123
    timestamp: int = NOW
