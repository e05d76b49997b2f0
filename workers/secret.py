"""A secret among the settings: a password."""

from __future__ import annotations


class Secret:
    """Text that is shown to nobody: neither `repr` nor `str` tell it, and it cannot be encoded as JSON.

    Who needs it to log in asks for it by `reveal`, so that a search finds every such place.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"

    def __str__(self) -> str:
        return "***" if self._text else ""
