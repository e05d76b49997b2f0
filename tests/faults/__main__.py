"""`./dev faults`: the faults that must be survived, with real processes on a real broker and a real store.

Prints the seed, and at the end the table. Exit code: 0 all green, 2 a mistake in what was asked, else something failed.
"""

from __future__ import annotations

import argparse
import ast
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest

from tests import backing

HERE = Path(__file__).parent
MUTATIONS = "test_mutations.py"  # that each promise's test can fail; only in the long form


def faults() -> dict[int, Path]:
    """Number -> file."""
    return {int(path.name[5:7]): path for path in sorted(HERE.glob("test_[0-9][0-9]_*.py"))}


def expectation(path: Path) -> str:
    """The first line of a fault's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


class Watcher:
    """A pytest plugin: counts the tests that were skipped, and starts none after SIGTERM."""

    skipped = 0
    session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.skipped += report.skipped

    def end(self, number: int, frame: FrameType | None) -> None:
        """Whoever ends a run ends its servers and workers too. Where the interrupt is raised, it may be swallowed."""
        if self.session is not None:
            self.session.shouldstop = "SIGTERM"
        signal.default_int_handler(number, frame)


def main(arguments: list[str]) -> int:
    """Run what was asked; the exit code."""
    parser = _parser()
    asked, rest = parser.parse_known_args(arguments)
    known = faults()
    chosen = asked.only or list(known)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        parser.error(f"no fault {', '.join(map(str, unknown))}: see ./dev faults --list")
    if asked.list:
        for number in chosen:
            print(f"{number:2}  {expectation(known[number])}")
        return 0
    files = [] if asked.mutations else [known[number] for number in chosen]
    if asked.mutations or (asked.long and not asked.only):
        files.append(HERE / MUTATIONS)
    options = ["--long"] * asked.long + ([f"--seed={asked.seed}"] if asked.seed is not None else [])
    return _run([*map(str, files), "-v", *options, *rest])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev faults", description=__doc__, epilog="Other options are pytest's.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", type=int, metavar="N", help="these faults alone (numbers of --list)")
    parser.add_argument("--long", action="store_true", help="the amounts of docs/reliability.md, and the mutations")
    parser.add_argument("--mutations", action="store_true", help="only the mutations: that the faults' tests can fail")
    parser.add_argument("--seed", type=int, help="draw the same again as the run that printed this seed")
    parser.add_argument("--list", action="store_true", help="print numbers and faults, run nothing")
    return parser


def _run(arguments: list[str]) -> int:
    if not backing.real_broker():
        print("dev: faults need a real broker: Java 17 and Maven, or Docker, or TEST_BROKER=host:port", file=sys.stderr)
        return 1
    watcher = Watcher()
    signal.signal(signal.SIGTERM, watcher.end)
    code = int(pytest.main(arguments, plugins=[watcher]))
    if code == 0 and watcher.skipped:
        print(f"dev: {watcher.skipped} skipped, see above: nothing is proved of them", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
