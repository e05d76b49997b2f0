"""docker-compose.yml from outside: a client on the host writes events and reads feeds; containers are killed and added.

Run by `./dev test-compose`. Needs Docker with Compose v2 and no more of this project than topic and key names.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.waiting import eventually, run

ROOT = Path(__file__).parents[2]
ROLES = ("embedding", "trainer", "retrieval", "catalog")
PARTITIONS = 12
UNTIL_FED_S = 90.0

pytestmark = pytest.mark.timeout(900)  # the image is built and JVMs start


@dataclass(slots=True)
class Stack:
    """A running compose project of its own, and what was sent to it."""

    project: str
    kafka_port: int
    redis_port: int
    sent: dict[str, int] = field(default_factory=dict)  # user -> events

    def compose(self, *words: str, within_s: float = 120) -> str:
        environ = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "KAFKA_HOST_PORT": str(self.kafka_port),
            "REDIS_HOST_PORT": str(self.redis_port),
        }
        done = subprocess.run(
            ["docker", "compose", "--progress", "plain", *words],
            cwd=ROOT, env=environ, capture_output=True, text=True, timeout=within_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"docker compose {' '.join(words)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def container(self, service: str) -> str:
        """The id of the only container of a service."""
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inspect(self, container: str) -> dict[str, Any]:
        answer = subprocess.run(["docker", "inspect", container], capture_output=True, check=True)
        found: dict[str, Any] = json.loads(answer.stdout)[0]
        return found

    def kill(self, container: str) -> None:
        """SIGKILL its process from outside, as a crash. (After `docker kill` the engine would not restart it.)"""
        process = self.inspect(container)["State"]["Pid"]
        sender = ["docker", "run", "--rm", "--pid", "host", "--user", "0", "--entrypoint", "sh", "headrace:dev"]
        subprocess.run([*sender, "-c", f"kill -KILL {process}"], check=True, timeout=60)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.kafka_port}"

    async def send(self, users: list[str], rounds: int, item_of: str = "i-{}") -> None:
        """`rounds` clicks of each user, as a bare JSON object each: what kcat would write."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all") as producer:
            for number in range(rounds):
                for at, user in enumerate(users):
                    item = item_of.format((self.sent.get(user, 0) * 7 + at * 3 + number) % 60)
                    value = {"user_id": user, "item_id": item, "action": "click", "event_id": uuid.uuid4().hex}
                    await producer.send("headrace.events.v1", json.dumps(value).encode(), key=user.encode())
                    self.sent[user] = self.sent.get(user, 0) + 1

    async def newest_feeds(self, topic: str = "headrace.feeds.v1") -> dict[str, dict[str, Any]]:
        """The feed of each user that a subscriber keeps: the greatest (version, revision)."""
        newest: dict[str, dict[str, Any]] = {}
        for value in await self.read(topic):
            kept = newest.get(value["user_id"])
            if kept is None or (value["version"], value["revision"]) > (kept["version"], kept["revision"]):
                newest[value["user_id"]] = value
        return newest

    async def read(self, topic: str) -> list[dict[str, Any]]:
        """Every JSON value on a topic, from its beginning to its end."""
        values = []
        async with AIOKafkaConsumer(
            topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
        ) as consumer:
            ends = await consumer.end_offsets(consumer.assignment())
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                fetched = await consumer.getmany(timeout_ms=200)
                values += [json.loads(r.value) for records in fetched.values() for r in records if r.value is not None]
        return values

    async def all_are_fed(self) -> dict[str, dict[str, Any]]:
        """The feeds, once each user's counts exactly the events that were sent: none lost, none applied twice."""
        feeds: dict[str, dict[str, Any]] = {}

        async def fed() -> bool:
            feeds.update(await self.newest_feeds())
            return {user: feed["count"] for user, feed in feeds.items()} == self.sent

        try:
            await eventually(fed, UNTIL_FED_S)
        except AssertionError:
            assert {user: feed["count"] for user, feed in feeds.items()} == self.sent
        return feeds

    def owners(self) -> set[str]:
        """Who owns partitions of events, by the store."""
        with redis.Redis(port=self.redis_port, decode_responses=True) as store:
            return {str(store.hget(f"headrace:o:{{{p}}}", "owner")) for p in range(PARTITIONS)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The project, up and ready; afterwards it is down and nothing of it is left."""
    stack = Stack(f"headrace-test-{uuid.uuid4().hex[:8]}", free_port(), free_port())
    try:
        stack.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "240", within_s=800)
        yield stack
    except BaseException:
        print(stack.compose("logs", "--tail", "30"))
        raise
    finally:
        stack.compose("--profile", "demo", "down", "--volumes", "--remove-orphans")
        label = f"label=com.docker.compose.project={stack.project}"
        for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
            left = subprocess.run(
                ["docker", *kind, "-q", "--filter", label], capture_output=True, text=True, check=True
            )
            assert not left.stdout, f"left by `down`: docker {kind[0]} {left.stdout}"


def users(kind: str) -> list[str]:
    return [f"{kind}-{number}" for number in range(40)]


def test_events_in_feeds_out(stack: Stack) -> None:
    async def something_is_recommended() -> dict[str, dict[str, Any]]:
        """The first feeds of all may be empty, for nothing is learned yet: the users come back until they are not."""

        async def filled() -> dict[str, dict[str, Any]] | None:
            await stack.send(users("first"), rounds=2)
            feeds = await stack.all_are_fed()
            return feeds if all(feed["items"] for feed in feeds.values()) else None

        return await eventually(filled, UNTIL_FED_S) or {}

    feeds = run(something_is_recommended(), 240)
    assert len({item["item_id"] for feed in feeds.values() for item in feed["items"]}) > 10
    assert all(feed["cause"]["event_id"] for feed in feeds.values())
    assert all(item["sources"] and item["parts"] for feed in feeds.values() for item in feed["items"])


def test_an_unavailable_item_is_not_shown(stack: Stack) -> None:
    async def offered() -> dict[str, dict[str, Any]]:
        async with AIOKafkaProducer(bootstrap_servers=stack.bootstrap, acks="all") as producer:
            item = {"item_id": "hidden", "title": "Sold out", "available": False}
            await producer.send_and_wait("headrace.items.v1", json.dumps(item).encode(), key=b"hidden")
        # Everyone clicks on it: it is the most popular item by far, and yet in nobody's feed.
        await stack.send(users("hider"), rounds=1, item_of="hidden")
        await stack.all_are_fed()
        await stack.send(users("seeker"), rounds=2)
        return await stack.all_are_fed()

    feeds = run(offered(), 240)
    seen = {item["item_id"] for user in users("seeker") for item in feeds[user]["items"]}
    assert seen
    assert "hidden" not in seen


def test_a_killed_worker_is_replaced(stack: Stack) -> None:
    container = stack.container("embedding")
    before = stack.inspect(container)["RestartCount"]
    (owner,) = stack.owners()

    async def killed_while_events_come() -> None:
        await stack.send(users("early"), rounds=5)
        await asyncio.to_thread(stack.kill, container)
        await stack.send(users("early") + users("late"), rounds=5)
        await stack.all_are_fed()

    run(killed_while_events_come(), 240)
    assert stack.inspect(container)["RestartCount"] == before + 1
    assert stack.owners().isdisjoint({owner})


def test_two_workers_share_the_partitions(stack: Stack) -> None:
    stack.compose("up", "--detach", "--no-recreate", "--wait", "--scale", "embedding=2", within_s=300)

    async def both_own() -> bool:
        return len(stack.owners()) == 2

    async def scaled() -> None:
        await eventually(both_own, 60)
        await stack.send(users("first") + users("shared"), rounds=5)
        await stack.all_are_fed()

    run(scaled(), 240)


@pytest.mark.parametrize("role", ROLES)
def test_a_worker_can_do_no_more_than_it_must(stack: Stack, role: str) -> None:
    found = stack.inspect(stack.compose("ps", "--quiet", role).split()[0])
    host = found["HostConfig"]
    assert found["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert 0 not in (host["Memory"], host["NanoCpus"], host["PidsLimit"])
    assert not host["PortBindings"]


def test_ports_are_on_loopback_alone(stack: Stack) -> None:
    bound = {
        binding["HostIp"]
        for service in ("kafka", "redis", *ROLES)
        for container in stack.compose("ps", "--quiet", service).split()
        for bindings in (stack.inspect(container)["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings
    }
    assert bound == {"127.0.0.1"}


def test_the_demo_plays_its_world(stack: Stack) -> None:
    """The last test: its users are others than those that were sent here."""
    stack.compose("--profile", "demo", "up", "--detach", "--no-recreate", "--wait", within_s=300)

    async def followed() -> bool:
        """Twenty of its users came back and were shown something, and it tells how long feeds took."""
        feeds = await stack.newest_feeds()
        back = [feed for user, feed in feeds.items() if user not in stack.sent and feed["count"] > 1 and feed["items"]]
        return len(back) >= 20 and "p99" in stack.compose("logs", "--no-log-prefix", "demo")

    run(eventually(followed, UNTIL_FED_S), 240)
    state = stack.inspect(stack.container("demo"))["State"]
    assert (state["Running"], state["ExitCode"], state["OOMKilled"]) == (True, 0, False)
