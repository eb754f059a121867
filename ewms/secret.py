"""A string that must not be seen: it prints as `***`, and every log line is cleared of it.

Making a `Secret` also makes `redact` look for its text, through which all logging and all error texts that leave the
process go: a token that some library puts into an exception message is then not shown either. When the last `Secret`
of a text is gone, the text stays hidden until some hundred others have gone after it: messages may still hold it, but a
service that sees thousands of tokens must not look for all of them in each line.
"""

import json
from collections import Counter
from collections.abc import Callable
from threading import RLock
from typing import Final, final

MASK: Final = "***"
# Shorter ones would blank out ordinary words of every message.
_SHORTEST_REDACTED: Final = 6
_FORMER: Final = 200


class _Hidden:
    """The texts to hide. Any thread may ask, make or drop one; so may a finalizer in the middle of that."""

    def __init__(self, former: int) -> None:
        self._lock = RLock()
        self._registered: set[str] = set()
        self._holders: Counter[str] = Counter()
        self._former: dict[str, None] = {}  # the oldest first
        self._max_former = former
        self.texts: tuple[str, ...] = ()
        """Replaced as a whole. The longest first: one text may be the beginning of another."""

    def hold(self, text: str) -> None:
        with self._lock:
            self._holders[text] += 1
            self._former.pop(text, None)
            if self._holders[text] == 1:
                self._arrange()

    def release(self, text: str) -> None:
        with self._lock:
            if text not in self._holders:
                return
            self._holders[text] -= 1
            if self._holders[text]:
                return
            del self._holders[text]
            self._former[text] = None
            if len(self._former) > self._max_former:
                del self._former[next(iter(self._former))]
            self._arrange()

    def register(self, text: str) -> None:
        with self._lock:
            self._registered.add(text)
            self._arrange()

    def forget(self, text: str) -> None:
        with self._lock:
            self._registered.discard(text)
            self._arrange()

    def _arrange(self) -> None:
        every = {*self._registered, *self._holders, *self._former}
        # A page or a line of a log may be JSON already, where quotes and backslashes stand behind a backslash.
        forms = {*every, *(json.dumps(text)[1:-1] for text in every)}
        self.texts = tuple(sorted(forms, key=len, reverse=True))


_hidden: Final = _Hidden(_FORMER)


@final
class Secret:
    """A token or password; `reveal()` is the only way to its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) >= _SHORTEST_REDACTED:
            _hidden.hold(text)

    def __del__(self, release: Callable[[str], None] = _hidden.release) -> None:
        # A default, because names of this module may be gone when the interpreter ends.
        release(self._text)

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
    """Have `redact` hide `text` until it is forgotten (texts under six characters are left alone)."""
    if len(text) >= _SHORTEST_REDACTED:
        _hidden.register(text)


def forget(text: str) -> None:
    """Undo `register`: short-lived tokens must not pile up over months. What a `Secret` holds stays hidden."""
    _hidden.forget(text)


def redact(text: str) -> str:
    """`text` with every registered secret replaced by `***`."""
    for secret in _hidden.texts:
        if secret in text:
            text = text.replace(secret, MASK)
    return text
