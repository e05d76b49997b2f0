"""The frame of the fault suite: a fault that did not bite fails, the table tells, wrong numbers are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import __main__ as command
from tests.faults.account import Fault, Row, table
from tests.faults.mutants import library_without_offset_check
from workers.store import store

ROOT = Path(__file__).parents[2]
SESSION = """
def test_that_bites(fault):
    assert fault.amount("kills", short=3, long=20) == 20
    fault.bit("killed", 2)
    fault.bit("killed", 1)
    fault.recovered(1.25)

def test_that_tells_of_nothing(fault):
    pass

def test_whose_fault_did_nothing(fault):
    fault.bit("killed", 0)

def test_that_draws(fault):
    assert fault.seed == 7
    raise AssertionError("equal they are not")
"""

ENDED = """
import contextlib, os, signal

def test_that_swallows_it():
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)

def test_that_must_not_begin():
    raise AssertionError
"""


def test_a_fault_that_did_not_bite_fails(tmp_path: Path) -> None:
    """Passed, no bites told, a bite of 0, failed: what the session and its table say."""
    (tmp_path / "test_98_session.py").write_text(SESSION)
    options = ["-p", "tests.conftest", "-p", "tests.faults.conftest", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--long", "--seed=7", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "seed: 7 " in done.stdout
    lines = done.stdout.splitlines()
    begin = lines.index(next(line for line in lines if line.startswith("fault  test")))
    assert [" ".join(line.split()) for line in lines[begin + 1 : begin + 5]] == [
        "98 that_bites long 20 kills 3 killed 1.2 s passed",
        "98 that_draws long FAILED",
        "98 that_tells_of_nothing long FAILED",
        "98 whose_fault_did_nothing long 0 killed FAILED",
    ]
    assert "the fault's test told of nothing that bit" in done.stdout
    assert "the fault did not bite: nothing killed" in done.stdout


def test_the_short_form_has_its_own_amounts(tmp_path: Path) -> None:
    fault = Fault(Row("98", "x", "short"), tmp_path, seed=1, long=False)
    assert fault.amount("kills", short=3, long=20) == 3
    fault.recovered(2.0)
    fault.recovered(1.0)
    assert " ".join(table([fault.row])[1].split()) == "98 x short 3 kills 2.0 s not run"


def test_every_fault_has_a_number_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` prints a line for each file."""
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == sorted(command.faults())
    assert all(len(line.split()) > 3 for line in lines)
    assert len(lines) == len(list((ROOT / "tests" / "faults").glob("test_[0-9]*.py")))  # no number twice


def test_an_unknown_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--only", "1", "98"])
    assert "no fault 98: see ./dev faults --list" in capsys.readouterr().err


def test_a_skipped_fault_is_not_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is proved by a test that did not run."""
    monkeypatch.setattr("tests.backing.real_broker", lambda: True)
    monkeypatch.setattr("pytest.main", session)
    assert command.main(["--only", "1", "-k", "skips"]) == 1
    assert "dev: 1 skipped, see above" in capsys.readouterr().err
    assert command.main(["--only", "1"]) == 0


def test_the_offset_check_is_still_where_the_mutation_takes_it_from() -> None:
    assert b"GAP" in store.LIBRARY
    assert b"GAP', next} end" not in library_without_offset_check()


def session(arguments: list[str], plugins: list[command.Watcher]) -> int:
    """A session of pytest in which all passes, or one test is skipped."""
    report = pytest.TestReport("x", ("x", 0, "x"), {}, "skipped" if "skips" in arguments else "passed", None, "call")
    plugins[0].pytest_runtest_logreport(report)
    return 0


def test_nothing_is_begun_after_sigterm(tmp_path: Path) -> None:
    """Also when the interrupt was swallowed where it was raised."""
    (tmp_path / "test_98_session.py").write_text(ENDED)
    run = "import sys; from tests.faults.__main__ import _run; sys.exit(_run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", run, "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT, env={**os.environ, "TEST_BROKER": "none"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "SIGTERM" in done.stdout
