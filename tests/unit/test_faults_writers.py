"""What fault 19 takes for one writer at a time: a rival that was too late is none, one that stands is."""

from __future__ import annotations

import pytest

from tests.faults.test_19_trainer import assert_one_writer
from tests.records import Consumed
from workers.wire.model import WRITER, WriterRecord, encode_writer


def written(*taken: tuple[int, str]) -> list[Consumed]:
    """The log of `model` after `taken`: epoch and owner."""
    values = [encode_writer(WriterRecord(epoch, 1, owner, 0)) for epoch, owner in taken]
    return [Consumed(WRITER, value, [], "model", 0, at) for at, value in enumerate(values)]


def test_a_rival_that_was_too_late_and_was_written_over_is_none() -> None:
    assert_one_writer(written((1, "a"), (1, "b"), (1, "a"), (2, "b")))


def test_a_rival_that_stands_is_found() -> None:
    with pytest.raises(AssertionError, match="too late stands"):
        assert_one_writer(written((1, "a"), (2, "b"), (2, "c")))


def test_a_deposed_writer_that_takes_the_pen_again_is_found() -> None:
    with pytest.raises(AssertionError, match="writers"):
        assert_one_writer(written((1, "a"), (2, "b"), (1, "a")))
