"""A broker and a store in Docker, where Docker is there: small wrappers, for testcontainers has none for these images.

`TESTCONTAINERS_RYUK_DISABLED` must be set before testcontainers is imported: its clean-up container is one more image
to pull. The `with` blocks remove the containers; a run that was killed leaves them:
`docker rm -fv $(docker ps -aq --filter label=org.testcontainers=true)`.
"""

from __future__ import annotations

import os
from typing import Self

os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

KAFKA_IMAGE = "apache/kafka:4.3.1"
REDIS_IMAGE = "redis:8.0"
_ADVERTISED = "/tmp/advertised"
_START_S = 60
_KAFKA = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_LISTENERS": "HOST://:9092,CONTROLLER://localhost:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "HOST",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_HEAP_OPTS": "-Xms256m -Xmx512m",
}


class KafkaContainer(DockerContainer):
    """One broker in KRaft mode.

    Clients use the address that the broker advertises, and Docker picks the host's port only when the container starts:
    so the container first waits for a file with the address.
    """

    def __init__(self) -> None:
        super().__init__(KAFKA_IMAGE)
        self.with_exposed_ports(9092)
        for name, value in _KAFKA.items():
            self.with_env(name, value)
        wait = f"until [ -s {_ADVERTISED} ]; do sleep 0.1; done"
        start = f"export KAFKA_ADVERTISED_LISTENERS=$(cat {_ADVERTISED}); exec /etc/kafka/docker/run"
        self.with_command(["bash", "-c", f"{wait}; {start}"])

    def bootstrap(self) -> str:
        """Its address, from the host."""
        return f"{self.get_container_host_ip()}:{self.get_exposed_port(9092)}"

    def start(self) -> Self:
        """Start it; returns when the broker serves requests."""
        super().start()
        self.copy_into_container(f"HOST://{self.bootstrap()}".encode(), _ADVERTISED, mode=0o644)
        LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_S).wait_until_ready(self)
        return self


class RedisContainer(DockerContainer):
    """One Redis as Headrace wants it."""

    def __init__(self) -> None:
        super().__init__(REDIS_IMAGE)
        self.with_exposed_ports(6379)
        self.with_command("redis-server --appendonly yes --appendfsync everysec --maxmemory-policy noeviction")
        self.waiting_for(LogMessageWaitStrategy("Ready to accept connections").with_startup_timeout(_START_S))

    def url(self) -> str:
        """Its address, from the host."""
        return f"redis://{self.get_container_host_ip()}:{self.get_exposed_port(6379)}/0"
