"""The soak's verdict on memory: growth is seen, noise is not growth."""

from __future__ import annotations

import numpy as np
import pytest

from tests.faults.flatness import BLOCKS, slope

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


def test_too_few_samples_are_no_answer() -> None:
    few = HOUR[: 2 * BLOCKS]
    with pytest.raises(ValueError, match="at least 40 samples"):
        slope(few, few)
