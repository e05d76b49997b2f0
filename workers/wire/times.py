"""Times on the wire: RFC 3339 text or epoch milliseconds in, epoch milliseconds inside, RFC 3339 out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from workers.wire.errors import InvalidError, shown

DAY_MS = 86_400_000
END_MS = (1 << 32) * 1000  # the first time that a ring's u32 seconds cannot hold

_SECONDS_BELOW = 10**11  # ms of March 1973; as seconds the year 5138: a smaller number must be seconds
_DIGITS = 18  # more is no time, and fits no int64
_FRACTIONS = {"Z": 0} | {f".{ms:03d}Z": ms for ms in range(1000)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]+))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)


def parse_time(given: int | str) -> int:
    """Epoch milliseconds of RFC 3339 text, or of epoch milliseconds given as integer or text.

    What is finer than a millisecond is cut off. Raises InvalidError for anything else, and for a number that looks like
    seconds: it is refused, not guessed.
    """
    if isinstance(given, int):
        return _from_number(given)
    ms = _FRACTIONS.get(given[19:])  # what most clients write: 2026-11-22T05:10:11.123Z
    if ms is not None:
        return _second(given[:19]) + ms
    if given.isascii() and given.isdigit() and len(given) <= _DIGITS:
        return _from_number(int(given))
    found = _RFC3339.fullmatch(given)
    if found is None:
        raise _not_a_time(given)
    second, fraction, sign, hours, minutes = found.groups()
    ahead = (int(hours) * 60 + int(minutes)) * 60_000 if sign else 0
    return _second(second) + int((fraction or "")[:3].ljust(3, "0")) - (ahead if sign == "+" else -ahead)


def rfc3339(time_ms: int) -> str:
    """`time_ms` as RFC 3339 in UTC with milliseconds: 2026-11-22T05:10:11.123Z. For years 1 to 9999."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{_second_text(seconds)}.{ms:03d}Z"


def _from_number(given: int) -> int:
    if given < _SECONDS_BELOW:
        raise InvalidError(f"time: {given} looks like seconds; send epoch milliseconds or RFC 3339")
    return given


@lru_cache(maxsize=1 << 13)
def _second(text: str) -> int:
    """Epoch milliseconds of YYYY-MM-DDTHH:MM:SS in UTC. Raises InvalidError, which is not remembered."""
    if _RFC3339.fullmatch(text + "Z") is None:
        raise _not_a_time(text)
    try:
        # Only the separator may differ from what `fromisoformat` reads.
        return (datetime.fromisoformat(f"{text[:10]}T{text[11:]}+00:00") - _EPOCH) // timedelta(milliseconds=1)
    except ValueError:
        raise _not_a_time(text) from None


@lru_cache(maxsize=1 << 13)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def _not_a_time(given: str) -> InvalidError:
    return InvalidError(f"time: expected RFC 3339 or epoch milliseconds, found {shown(given)}")
