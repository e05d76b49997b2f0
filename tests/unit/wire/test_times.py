"""Times in, milliseconds inside, RFC 3339 out."""

from __future__ import annotations

import pytest

from workers.wire.errors import InvalidError
from workers.wire.times import parse_time, rfc3339

NOVEMBER = 1_795_324_211_123


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (NOVEMBER, NOVEMBER),
        (str(NOVEMBER), NOVEMBER),
        (10**11, 10**11),
        ("2026-11-22T05:10:11.123Z", NOVEMBER),
        ("2026-11-22T05:10:11Z", NOVEMBER - 123),
        ("2026-11-22t05:10:11.123z", NOVEMBER),
        ("2026-11-22 05:10:11.123Z", NOVEMBER),
        ("2026-11-22T05:10:11.1Z", NOVEMBER - 23),
        ("2026-11-22T05:10:11.123999999Z", NOVEMBER),
        ("2026-11-22T06:40:11.123+01:30", NOVEMBER),
        ("2026-11-21T23:10:11.123-06:00", NOVEMBER),
        ("2026-11-22T05:10:11.123-00:00", NOVEMBER),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
    ],
)
def test_is_read(given: int | str, expected: int) -> None:
    assert parse_time(given) == expected


@pytest.mark.parametrize("given", [0, -5, 1_795_324_211, 10**11 - 1, "1795324211", "0"])
def test_seconds_are_refused_not_guessed(given: int | str) -> None:
    with pytest.raises(InvalidError, match="looks like seconds; send epoch milliseconds or RFC 3339"):
        parse_time(given)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "now",
        "2026-11-22",
        "2026-11-22T05:10:11",  # whose time?
        "2026-11-22T05:10Z",
        "20261122T051011Z",
        "2026-W47-7T05:10:11Z",
        "2026-02-30T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T05:10:60Z",
        "0000-01-01T00:00:00Z",
        "2026-11-22T05:10:11.Z",
        "2026-11-22T05:10:11,123Z",
        "2026-11-22T05:10:11.12³Z",
        "２026-11-22T05:10:11.123Z",
        "2026-11-22T05:10:11+24:00",
        "2026-11-22T05:10:11+01:60",
        "2026-11-22T05:10:11.123Z ",
        "2026-11-22T05:10:11.123Z\n",
        "1_795_324_211_123",
        " 1795324211123",
        "+1795324211123",
        "١٧٩٥٣٢٤٢١١١٢٣",
        "9" * 19,
        "9" * 5000,
    ],
)
def test_anything_else_is_refused(given: str) -> None:
    with pytest.raises(InvalidError, match="expected RFC 3339 or epoch milliseconds"):
        parse_time(given)


@pytest.mark.parametrize("time", [0, 999, NOVEMBER, -1, 253_402_300_799_999, -62_135_596_800_000])
def test_what_is_written_is_read(time: int) -> None:
    assert parse_time(rfc3339(time)) == time


def test_written_form() -> None:
    assert rfc3339(NOVEMBER) == "2026-11-22T05:10:11.123Z"
