"""A broker that knows its clients: each role works with the rights of docs/security.md and is refused elsewhere; who
cannot say who they are is told so in one line."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
)

from tests import secured
from tests.listening import listening
from tests.records import Consumed
from tests.waiting import eventually, run
from workers import cli, embedded, kafka, topics
from workers.kafka import BrokerRefused, BrokerUnavailable
from workers.producer import Producer
from workers.settings import Settings, load
from workers.store import Store
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.feed import read_feed
from workers.wire.partition import partition_of

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(280, func_only=True),
]  # the lab's commands have limits of their own

PARTITIONS = 2
BASE = {"kafka_partitions": PARTITIONS, "kafka_session_timeout_s": 6.0, "model_flush_s": 0.2}
# What ARCHITECTURE.md says each role reads and writes, and who is outside.
READS = {
    "embedding": {"events", "model"},
    "retrieval": {"states", "model", "catalog", "recent"},
    "trainer": {"states", "examples", "catalog", "model"},
    "catalog": {"items", "catalog"},
    "shop": set(),
    "web": {"feeds"},
}
WRITES = {
    "embedding": {"states", "recent", "events", "dead-letters"},
    "retrieval": {"feeds", "examples", "dead-letters"},
    "trainer": {"model"},
    "catalog": {"catalog", "dead-letters"},
    "shop": {"events", "items"},
    "web": set(),
}
ALL = {topic.dataset for topic in topics.TOPICS}


@dataclass
class Lab:
    """A broker with the documented access rules, a store with the documented users, and the prefix they speak of."""

    broker: secured.Broker
    store: tuple[embedded.Server, secured.Certificates]

    def flags(self, user: str) -> dict[str, Any]:
        """The settings of `user`, by flat name; a third of the users each for the three ways to log in."""
        ways = {"embedding": self.broker.as_scram, "retrieval": self.broker.as_scram}
        ways |= {"shop": self.broker.as_plain, "web": self.broker.as_plain}
        server, certificates = self.store
        store = {
            "store_url": f"rediss://{embedded.HOST}:{server.port}/0",
            "store_ca_file": str(certificates.ca),
            "store_user": user,
            "store_password_file": secured.secret(certificates.folder, user),
        }
        return {**BASE, **store, **ways.get(user, self.broker.as_certified)(user)}

    def settings(self, user: str, **more: Any) -> Settings:
        return load(environ={}, flags={**self.flags(user), **more})

    @contextmanager
    def worker(self, role: str, log: Path, user: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """A worker process that is told who it is by files."""
        environ = {f"HEADRACE_{name.upper()}": str(value) for name, value in self.flags(user or role).items()}
        command = [sys.executable, "-m", "workers.cli", "worker", role]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=Path(__file__).parents[2], env={**os.environ, **environ},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    why = secured.why_no_broker() or secured.why_no_store()
    if why is not None:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("broker")
    with secured.broker(folder) as broker, secured.store(tmp_path_factory.mktemp("store")) as store:
        broker.enlist("embedding", "retrieval")
        for line in secured.documented("kafka-acls $AT "):
            broker.run(*shlex.split(line.replace("$AT ", "", 1)))
        made = Lab(broker, store)
        run(_deploy(made.settings("deploy")))
        yield made


async def _deploy(settings: Settings) -> None:
    """What `headrace topics apply` and `headrace store apply` do, with the rights of `deploy`."""
    created, standings = await topics.apply(settings)
    assert len(created) == len(topics.TOPICS)
    assert [standing.differences for standing in standings if standing.differences] == []
    store = await Store.connect(settings)
    try:
        await store.install()
    finally:
        await store.close()


# ---------------------------------------------------------------- every role at its work


def test_an_event_becomes_a_feed_and_nobody_may_more_than_that(lab: Lab, tmp_path: Path) -> None:
    """Four workers, each with its own login, a producer and a subscriber. They listen nowhere and tell no secret."""
    roles = ("embedding", "trainer", "retrieval", "catalog")
    logs = {role: tmp_path / f"{role}.log" for role in roles}
    with ExitStack() as stack:
        workers = {role: stack.enter_context(lab.worker(role, logs[role])) for role in roles}
        try:
            feed = run(_played(lab), within_s=230)
        except BaseException:
            for role in roles:
                print(role, workers[role].poll(), logs[role].read_text()[-3000:], sep="\n")
            raise
        assert [worker.poll() for worker in workers.values()] == [None] * len(roles)
        if Path("/proc/net/tcp").exists():
            assert {role: listening(worker.pid) for role, worker in workers.items()} == {role: [] for role in roles}
    assert feed.user_id == "ada"
    for role, log in logs.items():
        text = log.read_text()
        assert "Traceback" not in text, f"{role}: {text}"
        assert "pa$$" not in text
        assert "AUTHORIZATION" not in text.upper()


async def _played(lab: Lab) -> Any:
    """The first feed that holds the item that `ada` has not taken."""
    shop, web = lab.settings("shop"), lab.settings("web")
    await _write(shop, "items", [(item, {"item_id": item, "title": item}) for item in ("i-1", "i-2")])
    consumer = await kafka.start_consumer(web, group="web", auto_offset_reset="earliest")
    try:
        consumer.subscribe([web.topic("feeds")])
        number = 0

        async def fed() -> Any:
            nonlocal number
            number += 1  # again and again: the catalogue may come to know the items later than the first event
            await _write(shop, "events", [("ada", {"user_id": "ada", "item_id": "i-1", "action": "view"})])
            fetched = await consumer.getmany(timeout_ms=1000)
            feeds = [read_feed(r.value) for records in fetched.values() for r in records if r.value]
            return next((feed for feed in feeds if feed.items), None)

        return await eventually(fed, within_s=200)  # kernels may have to be compiled
    finally:
        await consumer.stop()


async def _write(settings: Settings, dataset: str, records: list[tuple[str, dict[str, Any]]]) -> None:
    producer = await kafka.start_producer(settings)
    try:
        topic = settings.topic(dataset)
        count = len(await producer.partitions_for(topic))
        for key, value in records:
            home = partition_of(key.encode(), count, settings.partitioner)
            await producer.send_and_wait(topic, json.dumps(value).encode(), key=key.encode(), partition=home)
    finally:
        await producer.stop()


@pytest.mark.parametrize("user", sorted(user for user, topics in WRITES.items() if topics))
def test_a_user_may_not_write_elsewhere(lab: Lab, user: str) -> None:
    async def main() -> set[str]:
        settings, refused = lab.settings(user), set()
        for dataset in sorted(ALL - WRITES[user]):
            producer = await kafka.start_producer(settings)  # one that was refused once sends no more
            try:
                await producer.send_and_wait(settings.topic(dataset), b"x", key=b"x", partition=0)
            except TopicAuthorizationFailedError:
                refused.add(dataset)
            finally:
                await producer.stop()
        return refused

    assert run(main()) == ALL - WRITES[user]


def test_who_may_write_nowhere_cannot_even_begin_to(lab: Lab) -> None:
    with pytest.raises(ClusterAuthorizationFailedError):
        run(kafka.start_producer(lab.settings("web")))


@pytest.mark.parametrize("user", sorted(READS))
def test_a_user_may_not_read_elsewhere(lab: Lab, user: str) -> None:
    """What it may neither read nor write it does not even see."""

    async def main() -> tuple[set[str], set[str]]:
        settings = lab.settings(user)
        consumer = await kafka.start_consumer(settings, group=None)
        try:
            seen = {topic.split(".")[1] for topic in await consumer.topics() if topic.startswith("headrace.")}
            refused = {d for d in sorted(seen - READS[user]) if await _refused(consumer, settings.topic(d))}
        finally:
            await consumer.stop()
        return seen, refused

    seen, refused = run(main())
    assert seen == READS[user] | WRITES[user]
    assert refused == WRITES[user] - READS[user]


async def _refused(consumer: Any, topic: str) -> bool:
    tp = TopicPartition(topic, 0)
    consumer.assign([tp])
    consumer.seek(tp, 0)

    async def answer() -> bool | None:
        try:
            return False if await consumer.getmany(timeout_ms=200) else None
        except TopicAuthorizationFailedError:
            return True

    return bool(await eventually(answer))


@pytest.mark.parametrize(("user", "group"), [("web", "headrace.embedding.v1"), ("retrieval", "headrace.embedding.v1")])
def test_a_user_may_not_join_the_group_of_another(lab: Lab, user: str, group: str) -> None:
    async def main() -> None:
        settings = lab.settings(user)
        consumer = await kafka.start_consumer(settings, group=group)
        try:
            consumer.subscribe([settings.topic(sorted(READS[user])[0])])
            while True:
                await consumer.getmany(timeout_ms=200)
        finally:
            await consumer.stop()

    with pytest.raises(GroupAuthorizationFailedError):
        run(main(), within_s=30)


def test_a_worker_with_the_rights_of_another_ends_with_one_line(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with lab.worker("trainer", log, user="catalog") as process:
        assert process.wait(90) == 1
    last = log.read_text().splitlines()[-1]
    assert last.startswith(("headrace: kafka: ", "headrace: group headrace.trainer.v1: ")), log.read_text()
    assert any(text in last for text in ("AUTHORIZATION_FAILED", "AuthorizationFailed", "found none"))


def test_an_operator_runs_its_commands(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Each is carried out and answers, whatever the workers above left behind."""
    operator = lab.settings("operator")
    run(_letter(lab.settings("embedding")))

    async def alone() -> bool:
        return await kafka.members(operator, operator.topic("embedding")) == 0

    run(eventually(alone, within_s=60))  # those who were killed are members for a session
    flags = [word for name, value in lab.flags("operator").items() for word in ("--set", f"{name}={value}")]
    capfd.readouterr()
    for words in (
        "offsets show", "dead-letters list", "dead-letters show 0", "dead-letters redrive --all", "verify",
        "users show ada", "users rebuild", "forget eve", "forget eve --wait --within 0.1",
    ):  # fmt: skip
        code = cli.run([*words.split(), "--json", *flags])
        said = capfd.readouterr()
        assert code == 0 or words.startswith(("verify", "users show", "forget eve --wait")), said.err
        assert [json.loads(line) for line in said.out.splitlines()], said.err
        assert "pa$$" not in said.out + said.err


async def _letter(settings: Settings) -> None:
    """A dead letter of an event that is valid: as if an older version had refused it."""
    value = b'{"user_id":"bea","item_id":"i-1","action":"view"}'
    event = Consumed(b"bea", value, [], settings.topic("events"), 0, 10**6)
    bad = BadRecord(event, "validate", "not known yet", "InvalidError")
    producer = await Producer(settings).start()
    await producer.send([dead_letter(bad, settings.topic("dead-letters"), "earlier", round(time.time() * 1000))])
    await producer.stop()


# ---------------------------------------------------------------- who gets in


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"kafka_user": "mallory"}, r"refused the user mallory .*check kafka\.user"),
        ({"kafka_user": "retrieval"}, r"refused the user retrieval"),  # with the password of another
        ({"kafka_sasl_mechanism": "PLAIN"}, r"refused the user embedding"),
        ({"kafka_sasl_mechanism": "SCRAM-SHA-256"}, r"refused the user embedding by SCRAM-SHA-256"),
        ({"kafka_ca_file": ""}, r"no TLS that both sides accept .*CERTIFICATE_VERIFY_FAILED"),
        ({"kafka_ca_file": "other"}, r"no TLS that both sides accept .*CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_strangers_are_refused_with_one_line(lab: Lab, more: dict[str, Any], said: str, tmp_path: Path) -> None:
    if more.get("kafka_ca_file") == "other":
        more = {"kafka_ca_file": str(secured.Certificates(tmp_path).ca)}
    with pytest.raises(BrokerRefused, match=said) as error:
        run(kafka.wait_for_broker(lab.settings("embedding", **more)), within_s=20)
    assert "pa$$" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("hung_up")
def test_a_broker_without_tls_is_not_spoken_to(lab: Lab) -> None:
    """No password is sent to it."""
    flags = {"kafka_bootstrap": f"{embedded.HOST}:{lab.broker.port}", "kafka_connect_timeout_s": 2.0}
    with pytest.raises((BrokerRefused, BrokerUnavailable), match=r"kafka: 127\.0\.0\.1:\d+"):
        run(kafka.wait_for_broker(lab.settings("embedding", **flags)))


@pytest.mark.usefixtures("hung_up")
def test_a_client_without_a_certificate_is_refused(lab: Lab) -> None:
    flags = {"kafka_cert_file": "", "kafka_connect_timeout_s": 1.0}
    with pytest.raises((BrokerRefused, BrokerUnavailable), match=r"kafka: 127\.0\.0\.1:\d+"):
        run(kafka.wait_for_broker(lab.settings("trainer", **flags)))


@pytest.mark.usefixtures("hung_up")
def test_a_certificate_of_another_authority_is_refused(lab: Lab, tmp_path: Path) -> None:
    forged = secured.Certificates(tmp_path).signed("trainer")
    flags = {"kafka_cert_file": str(forged), "kafka_connect_timeout_s": 1.0}
    with pytest.raises((BrokerRefused, BrokerUnavailable), match=r"kafka: 127\.0\.0\.1:\d+"):
        run(kafka.wait_for_broker(lab.settings("trainer", **flags)))


def test_a_plaintext_client_is_told_what_it_may_be(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--broker", lab.broker.sasl, "--set", "kafka_connect_timeout_s=1"]
    assert cli.run(["topics", "show", *flags]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"headrace: kafka: {lab.broker.sasl} did not answer within 1 s")
    assert "kafka.security_protocol" in last
