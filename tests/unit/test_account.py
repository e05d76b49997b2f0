"""The account of what backed the tests: `--require-real` cannot be met by skipping."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import backing
from tests.conftest import Met

ROOT = Path(__file__).parents[2]
KAFKA = backing.Backing("127.0.0.1:1", "Apache Kafka 4.3.1 (kafka-local)", real=True)
EMBEDDED = backing.Backing("127.0.0.1:1", backing.EMBEDDED_BROKER, real=False)
CASES = [
    (Met(KAFKA, kafka=1, redis=1), True, None),
    (Met(KAFKA, kafka=0, redis=1), True, "no test that passed met a real Kafka"),
    (Met(KAFKA, kafka=1, redis=0), True, "no test that passed met a real Redis or Valkey"),
    (Met(EMBEDDED, kafka=0, redis=1), True, "the broker was the embedded broker (Tansu) although Java is there"),
    (Met(EMBEDDED, kafka=0, redis=1), False, "no test that passed met a real Kafka"),
    (Met(), True, "no test that passed met a real Kafka"),
]


@pytest.mark.parametrize(("met", "java", "expected"), CASES)
def test_what_falls_short(met: Met, java: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backing, "java", lambda: java)
    assert met.shortfall() == expected


SESSION = """
import pytest

@pytest.fixture
def store_url():
    return "stands in for the session's"

def test_that_passes(store_url):
    pass

def test_that_meets_nothing():
    pass

@pytest.mark.skip(reason="a skipped test has met nothing")
def test_that_is_skipped(store_url):
    pass

@pytest.mark.xfail(reason="nor has one that fails as expected")
def test_that_fails(store_url):
    raise AssertionError
"""


def session(folder: Path, tests: str, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run these tests with the project's fixtures and hooks."""
    (folder / "test_session.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "/dev/null", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, str(folder), *flags],
        cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--require-real",), 1)])
def test_a_session_without_kafka_fails_when_it_is_required(tmp_path: Path, flags: tuple[str, ...], code: int) -> None:
    done = session(tmp_path, SESSION, *flags)
    assert done.returncode == code, done.stdout + done.stderr
    assert "tests that met a real Kafka: 0, a real Redis or Valkey: 1" in done.stdout
    assert ("--require-real: no test that passed met a real Kafka" in done.stdout) == bool(code)


NEEDS_KAFKA = """
import pytest

@pytest.mark.real_broker("compacts nothing")
def test_that_needs_kafka():
    pass
"""


@pytest.mark.parametrize(
    ("broker", "said"),
    [("127.0.0.1:1", "1 passed"), ("", "needs a real broker: the embedded one compacts nothing")],
)
def test_what_the_embedded_broker_lacks_is_not_asked_of_it(tmp_path: Path, broker: str, said: str) -> None:
    done = session(tmp_path, NEEDS_KAFKA, "-rs", PATH="", TEST_BROKER=broker)  # neither Java nor Docker
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
