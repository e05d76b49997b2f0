"""The soak's verdict on memory: growth is seen, noise is not growth."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.faults.flatness import BLOCKS, Cores, slope

HOUR = [float(s) for s in range(3600)]


def test_growth_is_seen_through_noise() -> None:
    rng = np.random.default_rng(1)
    held = [100.0 + 20 * t / 3600 + rng.normal(0, 5) for t in HOUR]
    found = slope(HOUR, held)
    assert found.an_hour == pytest.approx(20, abs=2)
    assert found.grows(by=8)


def test_noise_and_steps_of_the_warm_up_are_no_growth() -> None:
    rng = np.random.default_rng(2)
    held = [(60.0 if t < 600 else 100.0) + rng.normal(0, 5) for t in HOUR]
    found = slope(HOUR, held)
    assert abs(found.an_hour) < 4 * found.error
    assert not found.grows(by=1)


@pytest.mark.parametrize("minutes", [1.5, 15, 60])
def test_a_step_is_no_growth_and_a_leak_is(minutes: float) -> None:
    """At the limits of the soak: a leak of 30 MB an hour is seen from a quarter of an hour on."""
    times = HOUR[: round(60 * minutes)]
    stepped = [400e6 + 2e6 * (t > 0.6 * times[-1]) for t in times]
    leaking = [400e6 + 30e6 * t / 3600 for t in times]
    assert not slope(times, stepped).grows(8e6, step=4e6)
    assert slope(times, leaking).grows(8e6, step=4e6) == (minutes >= 15)


def test_too_few_samples_are_no_answer() -> None:
    few = HOUR[: 2 * BLOCKS]
    with pytest.raises(ValueError, match="at least 40 samples"):
        slope(few, few)


def test_cores_that_work_are_busy() -> None:
    """At least for the time that this process took."""
    if not Path("/proc/stat").exists():
        pytest.skip("cores are watched through /proc/stat: Linux alone")
    cores, began, worked = Cores(), time.monotonic(), time.process_time()
    while time.process_time() - worked < 0.5:
        sum(range(10_000))
    share = (time.process_time() - worked) / (time.monotonic() - began) / (os.cpu_count() or 1)
    assert 0.5 * share <= cores.busy() <= 1  # ticks are hundredths of a second
