"""The frame of the fault suite: the fixture `fault`, the check that it bit, and the table at the end."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.conftest import LONG, SEED
from tests.faults.account import Fault, Row, table

ROWS = pytest.StashKey[list[Row]]()
HERE = Path(__file__).parent
SHORT_WITHIN_S, LONG_WITHIN_S = 240, 1800  # a fault's own marker `timeout` says otherwise
_MET = ("fault", "kafka", "redis")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What holds for every fault: it meets real servers, Apache Kafka among them, and takes its time."""
    within_s = LONG_WITHIN_S if config.stash[LONG] else SHORT_WITHIN_S
    for item in items:
        if item.path.is_relative_to(HERE):
            for name in _MET:
                item.add_marker(name)
            item.add_marker(pytest.mark.real_broker("resends without producer ids, and tells wrong end offsets"))
            item.add_marker(pytest.mark.timeout(within_s))


@pytest.fixture
def fault(request: pytest.FixtureRequest, tmp_path: Path) -> Fault:
    """The form's amounts, and the account that the table is made of."""
    config = request.config
    named = re.match(r"test_(\d\d|\w+)", request.path.stem)
    assert named is not None
    long = config.stash[LONG]
    row = Row(named[1], request.node.name.removeprefix("test_"), "long" if long else "short")
    config.stash[ROWS].append(row)
    return Fault(row, tmp_path, config.stash[SEED], long=long)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A fault that did not bite fails its test."""
    result = yield
    fault = pyfuncitem.funcargs.get("fault")
    if isinstance(fault, Fault):
        fault.assert_bit()
        fault.row.result = "passed"
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fault = getattr(item, "funcargs", {}).get("fault")
    if isinstance(fault, Fault) and report.failed:
        fault.row.result = "FAILED"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if rows:
        terminalreporter.section(f"faults, --seed {config.stash[SEED]}")
        for line in table(rows):
            terminalreporter.write_line(line, red=line.endswith("FAILED"))
        compared = sum(row.seen.get("events", 0) for row in rows)
        terminalreporter.write_line(f"{compared:,.0f} events compared with the oracle")
