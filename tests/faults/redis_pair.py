"""A primary and its replica behind one address, as a deployment with failover has them.

    workers --> front --> primary <-- link <-- replica

Two proxies: `front` is the address that workers know; `link` is the way of replication, which the test can hold so that
the primary acknowledges what its replica never sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.backing import url_of
from tests.faults.proxy import Proxy, proxied
from workers import embedded
from workers.embedded import HOST, Server


class RedisPair:
    """Two servers, one of which is the primary."""

    def __init__(self, first: Server, second: Server, front: Proxy, link: Proxy) -> None:
        self.primary, self.replica = first, second
        self.front, self.link = front, link
        self._follow()

    @property
    def url(self) -> str:
        """The address that leads to whoever is primary."""
        return f"redis://{HOST}:{self.front.port}/0"

    def in_step(self) -> bool:
        """Whether the replica has all that the primary has, and keeps up."""
        link = self._info(self.replica).get("master_link_status")
        return link == "up" and self.lost() == 0

    def lost(self) -> int:
        """Bytes of replication that the primary has and the replica has not."""
        return int(self._info(self.primary)["master_repl_offset"]) - int(self._info(self.replica)["slave_repl_offset"])

    def fail_over(self) -> None:
        """kill -9 the primary, promote the replica as it is, and lead workers to it; what it never saw is lost."""
        self.front.refuse()
        self.primary.kill()
        with _client(self.replica) as replica:
            replica.replicaof("NO", "ONE")
        self.primary, self.replica = self.replica, self.primary
        self.front.forward(self.primary.port)

    def rejoin(self) -> None:
        """Start the server that was killed: it throws its data away and follows the new primary."""
        self.replica.start()
        self.link.forward(self.primary.port)
        self._follow()

    def _follow(self) -> None:
        with _client(self.primary) as primary:
            primary.config_set("repl-diskless-sync-delay", 0)  # no other replica is waited for
        with _client(self.replica) as replica:
            replica.replicaof(HOST, str(self.link.port))

    @staticmethod
    def _info(server: Server) -> dict[str, str]:
        with _client(server) as client:
            info: dict[str, str] = client.info("replication")
        return info


@contextmanager
def redis_pair(binary: str | Path) -> Iterator[RedisPair]:
    """A pair, both killed at the end."""
    with (
        embedded.redis_server(binary) as first,
        embedded.redis_server(binary) as second,
        proxied(first.port) as front,
        proxied(first.port) as link,
    ):
        yield RedisPair(first, second, front, link)


def _client(server: Server) -> redis.Redis:
    return redis.Redis.from_url(url_of(server))
