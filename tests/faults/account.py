"""The account of a fault: its form and amounts, what bit, how long recovery took; and the table of all of them.

A fault that bit nothing proves nothing: a test that passes without a bite fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.faults.processes import COMMAND_LINE, Stopwatch
from tests.faults.run import Run
from tests.faults.verdict import Verdict
from workers.settings import Settings

N = TypeVar("N", int, float)
PASSING = 0.2  # of the events: users who come and go, so that nothing later makes up for a lost last announcement
HEADER = ("fault", "test", "form", "amounts", "what bit", "recovery", "result")


@dataclass
class Row:
    """What the table says of one test."""

    number: str
    test: str
    form: str
    amounts: dict[str, float] = field(default_factory=dict)
    bites: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    recovery_s: float | None = None
    result: str = "not run"

    def cells(self) -> tuple[str, ...]:
        recovery = "" if self.recovery_s is None else f"{self.recovery_s:.1f} s"
        found = _listed({**self.bites, **self.seen})
        return self.number, self.test, self.form, _listed(self.amounts), found, recovery, self.result


class Fault:
    """What a fault's test is given: amounts of the form, a place to prove, the account."""

    def __init__(self, row: Row, folder: Path, seed: int, *, long: bool) -> None:
        self.row, self.folder, self.seed, self.long = row, folder, seed, long
        self.entry = COMMAND_LINE

    def mutated(self, mutation: str) -> Fault:
        """The short form of a fault, for workers that are broken on purpose (mutants.py); it is in no table."""
        folder = self.folder / mutation
        folder.mkdir()
        fault = Fault(Row(self.row.number, mutation, "short"), folder, self.seed, long=False)
        fault.entry = ("tests.faults.mutants", mutation)
        return fault

    def amount(self, name: str, short: N, long: N) -> N:
        """The amount of this form; the table tells it."""
        chosen = long if self.long else short
        self.row.amounts[name] = chosen
        return chosen

    def bit(self, name: str, times: float) -> None:
        """The fault did this so many times; summed. A test that has none of these, or one that is 0, fails."""
        self.row.bites[name] = self.row.bites.get(name, 0) + times

    def saw(self, name: str, value: float) -> None:
        """A figure for the table that may be 0."""
        self.row.seen[name] = value

    def recovered(self, seconds: float) -> None:
        """It took so long until all was well again; the table tells the longest."""
        self.row.recovery_s = max(seconds, self.row.recovery_s or 0.0)

    @contextlib.contextmanager
    def recovery(self) -> Iterator[None]:
        """What the block waits for is the recovery: `recovered` after as long as it took."""
        watch = Stopwatch()
        yield
        self.recovered(watch.seconds())

    def prove(self, settings: Settings, proof: Callable[[Run], Awaitable[None]], *, frozen_model: bool = True) -> None:
        """Run a proof on a prefix of its own; no process survives it. Of a proof that fails, the workers' last words
        are printed. Without a frozen model there is none until a trainer makes it."""

        async def proved() -> None:
            async with Run(settings, self.folder, self.seed, self.entry, PASSING) as run:
                try:
                    if frozen_model:
                        await run.prepare()
                    await proof(run)
                except BaseException:
                    for worker in run.workers:
                        print(f"--- {worker.log}, exit status {worker.process.poll()}\n{worker.last_words()}")
                    raise

        asyncio.run(proved())

    async def settled(self, run: Run, within_s: float = 90.0) -> Verdict:
        """Drain, compare with the oracle, assert equality; the verdict's figures are in the table."""
        await run.drained(within_s)
        verdict = await run.verdict()
        verdict.assert_equal()
        self.saw("events", self.row.seen.get("events", 0) + verdict.events)
        return verdict

    def assert_bit(self) -> None:
        """Something was done, and nothing that should have been done is 0."""
        assert self.row.bites, "the fault's test told of nothing that bit: call fault.bit"
        idle = [name for name, times in self.row.bites.items() if not times > 0]
        assert not idle, f"the fault did not bite: nothing {', '.join(idle)}; it proves nothing"


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of the table, in the order of the faults' numbers."""
    cells = [HEADER, *(row.cells() for row in sorted(rows, key=lambda row: (row.number, row.test)))]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADER))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _listed(figures: dict[str, float]) -> str:
    return ", ".join(f"{value:,g} {name}" if value < 1e6 else f"{value:,.0f} {name}" for name, value in figures.items())
