"""librdkafka's mock cluster, for the errors that a healthy broker never answers: one pushed error, one request.

It is a broker in C inside the wheel of confluent-kafka, used through ctypes alone: it keeps records and groups in
memory and speaks the protocol to any client. What it says is its header's, `rdkafka_mock.h`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workers.embedded import EmbeddedUnavailable

_PRODUCER = 0  # RD_KAFKA_PRODUCER
_BROKER = 1
_SAID = 512  # bytes of an error's text
_POINTERS = ("conf_new", "new", "mock_cluster_new")


class Api(IntEnum):
    """Requests of the protocol, by their keys."""

    PRODUCE = 0
    FETCH = 1
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14


class MockCluster:
    """One broker that answers as it is told to."""

    def __init__(self, library: Any) -> None:
        said = ctypes.create_string_buffer(_SAID)
        conf = library.rd_kafka_conf_new()
        # Else its own client, which the cluster lives in, complains that it knows no broker.
        library.rd_kafka_conf_set(_pointer(conf), b"log_level", b"3", said, _SAID)
        self._library = library
        self._client = _pointer(library.rd_kafka_new(_PRODUCER, _pointer(conf), said, _SAID))
        if not self._client:
            raise EmbeddedUnavailable(f"mock cluster: {said.value.decode()}")
        self._cluster = _pointer(library.rd_kafka_mock_cluster_new(self._client, 1))
        self.bootstrap: str = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic; the cluster knows no request for that."""
        self._must(self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1))

    def push(self, api: Api, errors: Sequence[int]) -> None:
        """Answer the next requests of `api` with these errors, by their protocol numbers, one each."""
        pairs = [ctypes.c_int(word) for error in errors for word in (error, 0)]  # an error, and ms that it takes
        push = self._library.rd_kafka_mock_broker_push_request_error_rtts
        self._must(push(self._cluster, _BROKER, ctypes.c_int16(api), ctypes.c_size_t(len(errors)), *pairs))

    def waiting(self, api: Api) -> int:
        """Pushed errors that no request has met yet."""
        count = ctypes.c_size_t()
        of = self._library.rd_kafka_mock_broker_error_stack_cnt
        self._must(of(self._cluster, _BROKER, ctypes.c_int16(api), ctypes.byref(count)))
        return count.value

    def close(self) -> None:
        """End it; its records are gone."""
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def _must(self, code: int) -> None:
        if code:
            raise RuntimeError(f"mock cluster: error {code}")


@contextmanager
def mock_cluster() -> Iterator[MockCluster]:
    """A mock cluster, ended at the end. Raises EmbeddedUnavailable where the wheel is missing."""
    cluster = MockCluster(_librdkafka())
    try:
        yield cluster
    finally:
        cluster.close()


def _librdkafka() -> Any:
    """The library of the wheel; the package itself is never imported."""
    spec = find_spec("confluent_kafka")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    found = [*folder.parent.glob("confluent_kafka.libs/librdkafka*"), *folder.glob(".dylibs/librdkafka*.dylib")]
    if not spec or not found:
        raise EmbeddedUnavailable("mock cluster: no librdkafka in confluent-kafka: install requirements/dev.txt")
    library = ctypes.CDLL(str(found[0]))
    for name in _POINTERS:
        getattr(library, f"rd_kafka_{name}").restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


def _pointer(address: int | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(address)
