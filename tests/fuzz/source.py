"""Bytes as choices: the same bytes always make the same input, so that a finding is a small file."""

import json
from collections.abc import Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")

NASTY: Final = (
    "\n", "\r", "\t", "\0", "\\", "'", '"', ";", ",", "=", "#", "&", "|", "`", "$(X)", "$ENV(HOME)", "$(", "${X}", "$",
    "{{INFILE}}", "{{tag}}", "../", "//", "/proc", "/etc", "://", "\nqueue", "\n+X=1", ") || (true", "//", "/*", "*/",
    "\u2028", "\x85", "\x0c", "\ud800", "\u00e9", "\U0001f600", " ", "-", "--", "0", "-1", "1e400", "9" * 30, "null",
    "...\n", "\n...\n", "005 (036.000.000) 2026-11-21 21:10:27 Job terminated.", "HTChirpEWMSPilotStatus: ",
    "Traceback (most recent call last):", "bwrap: ", "[U=0,P=1]   ", "EWMSTaskforceUUID=",
)  # fmt: skip
"""Words that mean something to one of the languages that our texts go through."""

_SCALARS: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**63,
    10**400,
    0.5,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    [],
    {},
)
_DEEP: Final = 100_000


class Source:
    """Choices from bytes; when they are used up every further choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def rest(self) -> bytes:
        """All that is left."""
        taken, self._at = self._data[self._at :], len(self._data)
        return taken

    def blob(self, limit: int) -> bytes:
        """At most `limit` bytes."""
        size = self.integer(0, limit)
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        span = high - low + 1
        size = max(1, ((span - 1).bit_length() + 7) // 8)
        raw = self._data[self._at : self._at + size]
        self._at += len(raw)
        return low + int.from_bytes(raw, "little") % span

    def chance(self, one_in: int = 2) -> bool:
        """True once in so many times."""
        return self.integer(1, one_in) == one_in

    def choice(self, values: Sequence[T]) -> T:
        """One of them."""
        return values[self.integer(0, len(values) - 1)]

    def text(self, pieces: int = 6) -> str:
        """A text: plain words, and what means something somewhere."""
        return "".join(self._piece() for _ in range(self.integer(0, pieces)))

    def _piece(self) -> str:
        if self.chance():
            return self.choice(NASTY)
        return self.blob(24).decode("utf-8", "surrogateescape" if self.chance(8) else "replace")

    def json(self, depth: int = 3) -> Any:
        """Any JSON value."""
        match self.integer(0, 5) if depth else 0:
            case 0 | 1:
                return self.choice(_SCALARS)
            case 2 | 3:
                return self.text()
            case 4:
                return [self.json(depth - 1) for _ in range(self.integer(0, 3))]
            case _:
                return {self.text(2): self.json(depth - 1) for _ in range(self.integer(0, 3))}

    def changed(self, value: Any, depth: int = 8) -> Any:
        """A JSON value in which one place is something else, or missing."""
        if depth and isinstance(value, dict) and value and not self.chance(8):
            name = self.choice(sorted(value))
            if self.chance(6):
                return {each: kept for each, kept in value.items() if each != name}
            return {**value, name: self.changed(value[name], depth - 1)}
        if depth and isinstance(value, list) and value and not self.chance(4):
            number = self.integer(0, len(value) - 1)
            return [*value[:number], self.changed(value[number], depth - 1), *value[number + 1 :]]
        return self.json()

    def json_bytes(self, value: Any) -> bytes:
        """A JSON value as somebody may have sent it: whole, damaged, or too deep."""
        match self.integer(0, 5):
            case 0:
                return self.rest()
            case 1:
                return self.damaged(json.dumps(value).encode())
            case 2:
                opening = self.choice((b"[", b'{"a":', b'[{"data":'))
                return b'{"data":' + opening * self.integer(1, _DEEP)
            case _:
                return json.dumps(value).encode()

    def damaged(self, data: bytes) -> bytes:
        """Bytes of which some are missing, doubled or other ones."""
        for _ in range(self.integer(1, 3)):
            begin = self.integer(0, len(data))
            end = min(len(data), begin + self.integer(0, 40))
            data = data[:begin] + self.blob(12) + data[end:]
        return data
