"""A string that must not be seen: it prints as `***`, and every log line is cleared of it.

Making a `Secret` also registers its text with `redact`, through which all logging and all error texts that leave the
process go: a token that some library puts into an exception message is then not shown either.
"""

from typing import Final, final

MASK: Final = "***"
# Shorter ones would blank out ordinary words of every message.
_SHORTEST_REDACTED: Final = 6

_known: set[str] = set()


@final
class Secret:
    """A token or password; `reveal()` is the only way to its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        register(text)

    def reveal(self) -> str:
        """The text itself, for the one call that must send it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})" if self._text else "Secret('')"

    __str__ = __repr__


def register(text: str) -> None:
    """Have `redact` hide `text` from now on (texts under six characters are left alone)."""
    if len(text) >= _SHORTEST_REDACTED:
        _known.add(text)


def forget(text: str) -> None:
    """Stop hiding `text`: short-lived tokens must not pile up over months."""
    _known.discard(text)


def redact(text: str) -> str:
    """`text` with every registered secret replaced by `***`."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, MASK)
    return text
