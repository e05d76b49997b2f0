"""Broker nodes that can be killed or frozen one by one and started again: `tools/kafka-local` with its nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.backing import free_broker_port, kafka_local

COUNT = 3
_UP_S = 120.0


class Nodes:
    """A cluster; of three nodes with replication factor 3 and min.insync.replicas 2."""

    def __init__(self, port: int, count: int = COUNT) -> None:
        self._port, self._count = port, count
        self.bootstrap = kafka_local("up", "--nodes", str(count), "--port", str(port), timeout_s=_UP_S)
        self.numbers = range(1, count + 1)

    def kill(self, node: int) -> None:
        """SIGKILL, as a crash does; returns when the process is gone."""
        kafka_local("kill", str(node), "--port", str(self._port), timeout_s=_UP_S)

    def freeze(self, node: int) -> None:
        """SIGSTOP: it stands still, its connections stay open."""
        kafka_local("pause", str(node), "--port", str(self._port), timeout_s=_UP_S)

    def thaw(self, node: int) -> None:
        """SIGCONT."""
        kafka_local("resume", str(node), "--port", str(self._port), timeout_s=_UP_S)

    def start_all(self) -> None:
        """Start every node that does not run, data kept; returns when all answer and know one another."""
        kafka_local("up", "--nodes", str(self._count), "--port", str(self._port), timeout_s=_UP_S)

    def down(self) -> None:
        """Stop all; their data goes."""
        kafka_local("down", "--port", str(self._port), "--timeout", "5", timeout_s=_UP_S)


@contextmanager
def broker_nodes(count: int = COUNT) -> Iterator[Nodes]:
    """So many nodes, stopped at the end."""
    nodes = Nodes(free_broker_port(count), count)
    try:
        yield nodes
    finally:
        nodes.down()
