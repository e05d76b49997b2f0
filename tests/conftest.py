"""Fixtures that lead to a real broker and a real store, and the account of which tests met one."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from tests import backing
from workers import embedded, kafka, topics
from workers.settings import Settings, load
from workers.store import Store

MEETS_KAFKA = frozenset(("broker",))
MEETS_REDIS = frozenset(("store_url", "valkey_url", "any_store", "own_store"))
MakeSettings = Callable[..., Settings]

# Property tests say what holds, not how fast: a busy machine must not fail them.
hypothesis.settings.register_profile("headrace", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("headrace")


@dataclass(slots=True)
class Met:
    """What a session's tests talked to, and how many of them passed."""

    broker: backing.Backing | None = None
    stores: tuple[backing.Backing, ...] = ()
    kafka: int = 0
    redis: int = 0

    def shortfall(self) -> str | None:
        """Why `--require-real` does not hold; None = it does."""
        if self.broker is not None and not self.broker.real and backing.java():
            return f"the broker was {self.broker.name} although Java is there"
        if not self.kafka:
            return "no test that passed met a real Kafka"
        if not self.redis:
            return "no test that passed met a real Redis or Valkey"
        return None


MET = pytest.StashKey[Met]()
LONG = pytest.StashKey[bool]()
SEED = pytest.StashKey[int]()
FUZZED_LONG = 100_000  # cases of each decoder in the long form


# ------------------------------------------------------------------ the account


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-real", action="store_true", help="fail unless tests met a real Kafka and a real store")
    parser.addoption("--long", action="store_true", help="the long form of what has one: faults, fuzzing")
    parser.addoption("--minutes", type=float, help="how long the soak lasts, instead of what its form says")
    parser.addoption(
        "--rate", type=float, help="events a second of the soak, instead of what keeps the cores 70 %% busy"
    )
    parser.addoption("--seed", type=int, help="of what is drawn anew in every session: the one that a session printed")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MET] = Met()
    config.stash[LONG] = config.option.long
    if config.option.long:
        os.environ.setdefault("FUZZ_CASES", str(FUZZED_LONG))  # test_fuzz.py is not imported yet
    config.stash[SEED] = secrets.randbits(32) if config.option.seed is None else config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.stash[SEED]} (--seed draws it again)"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Download Kafka's jars now, outside the time limit of the first test that needs them."""
    if not session.config.option.collectonly and any(MEETS_KAFKA & _fixtures(item) for item in session.items):
        backing.kafka_version()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What the embedded broker cannot do is not asked of it; see docs/decisions/0005."""
    marker = item.get_closest_marker("real_broker")
    if marker is not None and not backing.real_broker():
        pytest.skip(f"needs a real broker: the embedded one {marker.args[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed:
        met = item.config.stash[MET]
        met.kafka += bool(MEETS_KAFKA & _fixtures(item)) and met.broker is not None and met.broker.real
        met.redis += bool(MEETS_REDIS & _fixtures(item))
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.option.require_real and session.config.stash[MET].shortfall() and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    met = config.stash[MET]
    terminalreporter.section("what backed the tests")
    terminalreporter.write_line(f"broker: {met.broker.name if met.broker else 'none was needed'}")
    for store in met.stores:
        terminalreporter.write_line(f"store: {store.name}")
    terminalreporter.write_line(f"tests that met a real Kafka: {met.kafka}, a real Redis or Valkey: {met.redis}")
    shortfall = met.shortfall()
    if config.option.require_real and shortfall:
        terminalreporter.write_line(f"--require-real: {shortfall}", red=True)


def _fixtures(item: pytest.Item) -> frozenset[str]:
    return frozenset(getattr(item, "fixturenames", ()))


# ------------------------------------------------------------------ servers


@pytest.fixture(scope="session")
def broker_backing(pytestconfig: pytest.Config) -> Iterator[backing.Backing]:
    with backing.broker() as backed:
        pytestconfig.stash[MET].broker = backed
        yield backed


@pytest.fixture(scope="session")
def broker(broker_backing: backing.Backing) -> str:
    """The bootstrap address of the session's broker."""
    return broker_backing.address


@pytest.fixture(scope="session")
def store_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """The session's store: Redis where there is one."""
    with backing.store() as backed:
        pytestconfig.stash[MET].stores += (backed,)
        yield backed.address


@pytest.fixture(scope="session")
def valkey_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """The session's Valkey."""
    with backing.valkey() as backed:
        pytestconfig.stash[MET].stores += (backed,)
        yield backed.address


@pytest.fixture(params=["redis", "valkey"])
def any_store(request: pytest.FixtureRequest) -> str:
    """A store's address: the test runs on Redis and on Valkey."""
    url: str = request.getfixturevalue("store_url" if request.param == "redis" else "valkey_url")
    return url


@pytest.fixture(params=["redis", "valkey"])
def own_store(request: pytest.FixtureRequest) -> Iterator[embedded.Server]:
    """A Redis, and a Valkey, that belongs to one test: to be filled, hung, killed and started again. With the parameter
    "any" it is one of them: Redis where there is one."""
    binary: str | Path | None = None if request.param == "valkey" else backing.redis_binary()
    if request.param != "redis":
        binary = binary or embedded.valkey_binary()
    if binary is None:
        pytest.skip("no redis-server on the PATH to kill; it runs on Valkey")
    with embedded.redis_server(binary) as server:
        yield server


# ------------------------------------------------------------------ settings


@pytest.fixture
def prefix() -> str:
    """A prefix of topics and keys that nobody else has."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_settings(broker_backing: backing.Backing, broker: str, store_url: str) -> Iterator[MakeSettings]:
    """Make settings with topics made and store installed; flags by flat name. The topics go with the test."""
    with settings_maker(broker_backing, store_url) as make:
        yield make


@pytest.fixture(scope="module")
def make_module_settings(broker_backing: backing.Backing, broker: str, store_url: str) -> Iterator[MakeSettings]:
    """The same for what the tests of a file share. The topics go with the file."""
    with settings_maker(broker_backing, store_url) as make:
        yield make


@contextmanager
def settings_maker(broker_backing: backing.Backing, store_url: str) -> Iterator[MakeSettings]:
    """What `make_settings` gives, for a broker of the test's own."""
    made = []

    def make(**flags: Any) -> Settings:
        base = {"prefix": f"t{uuid.uuid4().hex[:12]}", "store_url": store_url, "kafka_partitions": 4}
        settings = load(environ={}, flags={**broker_backing.flags, **base, **flags})
        asyncio.run(_prepare(settings))
        made.append(settings)
        return settings

    try:
        yield make
    finally:
        for settings in made:
            asyncio.run(_remove_topics(settings))


@pytest.fixture
def settings(make_settings: MakeSettings, prefix: str) -> Settings:
    """Settings of a prefix of its own, 4 partitions, with topics made and store installed."""
    return make_settings(prefix=prefix)


async def _prepare(settings: Settings) -> None:
    await topics.ensure(settings)
    store = await Store.connect(settings)
    try:
        await store.install()
        await store.check()
    finally:
        await store.close()


async def _remove_topics(settings: Settings) -> None:
    async with kafka.admin(settings) as client:
        await client.delete_topics([topic.name for topic in topics.declared(settings)])


@pytest.fixture
def quiet_again() -> Iterator[None]:
    """Logging as it was before a command configured it."""
    level = logging.getLogger("aiokafka").level
    yield
    logging.getLogger("aiokafka").setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]
