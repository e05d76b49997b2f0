"""What can be wrong with a record.

    WireError               a record that cannot be used; retrying would fail again: it becomes a dead letter
    ├── UnreadableError     its bytes are not what the encoding says (stage "decode")
    └── InvalidError        it can be read, but breaks a rule of its topic (stage "validate")

Messages say what was expected, what was found and what to do; the dead letter adds where (topic[partition]@offset).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import msgspec

T = TypeVar("T")

WRONG = (msgspec.MsgspecError, UnicodeError, RecursionError)  # what a decoder raises for bytes that are wrong
_SHOWN = 60  # characters of a found value that a message repeats
_LOGGED = 200  # characters of a message in a log line
# What a message repeats of the record: ours after "found", msgspec's of a tag or an enumeration.
_FOUND = re.compile(r", found .*|(?<=Invalid value) .*(?= - at )|(?<=Invalid enum value) .*(?= - at )", re.DOTALL)


class WireError(ValueError):
    """A record that cannot be used, now or later."""

    stage: ClassVar[str] = "decode"


class UnreadableError(WireError):
    """The bytes are not what the encoding says."""


class InvalidError(WireError):
    """The record can be read, but breaks a rule."""

    stage: ClassVar[str] = "validate"


def expectation(error: Exception) -> str:
    """What `error` says was expected, without what was found: for a log line, which must not hold what came in.

    All of a dead letter's message is in the letter.
    """
    return _FOUND.sub("", str(error))[:_LOGGED]


def shown(found: object) -> str:
    """`found` as a message repeats it: quoted, escaped and cut."""
    text = ascii(found)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], raw: Any, what: str) -> T:
    """`raw` through `decoder`; its errors become ours, with `what` in front."""
    try:
        return decoder.decode(raw)
    except WRONG as error:
        raise wire_error(error, what) from None


def convert(given: Mapping[str, Any], to: type[T], what: str) -> T:
    """A plain object as a record. Raises InvalidError."""
    try:
        return msgspec.convert(given, to)
    except WRONG as error:
        raise wire_error(error, what) from None


def wire_error(error: Exception, what: str) -> WireError:
    """An error of decoding (one of WRONG) as ours, with `what` in front."""
    if isinstance(error, msgspec.ValidationError):
        return InvalidError(f"{what}: {error}")
    if isinstance(error, RecursionError):
        return UnreadableError(f"{what}: nested too deeply")
    return UnreadableError(f"{what}: {error}")
