"""Whether a figure of a process stays flat: its slope over time, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.faults.processes import Worker

BLOCKS = 20  # neighbouring samples are alike: the slope's noise is that of means of so many blocks
WARM = 1 / 3  # of the time: caches, kernels and the allocator's pools fill


@dataclass(frozen=True, slots=True)
class Slope:
    """Least squares over the means of blocks, after the warm-up."""

    an_hour: float
    error: float  # standard error, an hour
    hours: float  # that it was seen over

    def grows(self, by: float, step: float = 0.0) -> bool:
        """Whether it certainly grows by more than `by` an hour (that lies below two standard errors of the slope), and
        by more than `step` in all: over a minute any step is a steep slope."""
        certain = self.an_hour - 2 * self.error
        return certain > by and certain * self.hours > step


def slope(times_s: list[float], values: list[float]) -> Slope:
    """The slope of `values` over `times_s`. Raises ValueError for fewer samples than two a block."""
    begin = times_s[0] + WARM * (times_s[-1] - times_s[0])
    late = np.array([(t, v) for t, v in zip(times_s, values, strict=True) if t >= begin])
    if len(late) < 2 * BLOCKS:
        raise ValueError(f"expected at least {2 * BLOCKS} samples after the warm-up, found {len(late)}")
    t, v = np.array([block.mean(0) for block in np.array_split(late, BLOCKS)]).T  # (2, BLOCKS)
    hours = (t - t.mean()) / 3600
    gradient = float(hours @ v / (hours @ hours))
    left = v - v.mean() - gradient * hours
    error = float(np.sqrt(left @ left / (BLOCKS - 2) / (hours @ hours)))
    return Slope(gradient, error, float(hours[-1] - hours[0]))


@dataclass
class Record:
    """What a process held, sample by sample."""

    worker: Worker
    times_s: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)

    def sample(self, at_s: float) -> None:
        """Look now."""
        self.times_s.append(at_s)
        self.resident.append(self.worker.resident())
        self.descriptors.append(self.worker.descriptors())


class Cores:
    """How busy the machine's cores are, with all that runs on them, from the moment this is made (Linux)."""

    def __init__(self) -> None:
        self._begin = self._spent()

    def busy(self) -> float:
        """Share of the time that the cores worked, or were wanted by another machine on the same host."""
        idle, total = (now - then for now, then in zip(self._spent(), self._begin, strict=True))
        return 1 - idle / max(total, 1)

    @staticmethod
    def _spent() -> tuple[int, int]:
        """Ticks of all cores since the machine started: idle or waiting for a disk, and all (proc(5), /proc/stat)."""
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)
