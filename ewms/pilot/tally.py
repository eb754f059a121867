"""How many tasks ended how; constant memory, however many there are; pure."""

from collections import Counter
from typing import Final

import attrs

from ewms.pilot.resources import Distribution

MAX_TEXTS: Final = 10
"""Different error texts that are told apart; further ones are only counted."""
_SHOWN: Final = 300


@attrs.define
class Tally:
    """The tasks of one pilot."""

    succeeded: int = 0
    failed: int = 0
    handed_back: int = 0
    parked: int = 0
    """Events that were parked by this pilot."""
    passed_on: int = 0
    """Times that a parked event came."""
    walls: Distribution = attrs.field(factory=Distribution)
    """s that each task took which succeeded."""
    _texts: Counter[str] = attrs.field(factory=Counter)

    @property
    def typical_s(self) -> float:
        """What nine of ten tasks that succeeded did not exceed (s); 0 as long as none has."""
        return self.walls.quantile(0.9)

    def add_success(self, wall_s: float) -> None:
        """Count a task that succeeded."""
        self.succeeded += 1
        self.walls.add(wall_s)

    def add_failure(self, text: str) -> None:
        """Count a failed task."""
        self.failed += 1
        text = last_line(text)
        if text in self._texts or len(self._texts) < MAX_TEXTS:
            self._texts[text] += 1

    def last_words(self) -> str:
        """The pilot's last line when tasks failed; "" when none did."""
        if not self.failed:
            return ""
        texts = [text if count == 1 else f"{text} ({count} times)" for text, count in self._texts.most_common()]
        others = self.failed - self._texts.total()
        if others:
            texts.append(f"and {others} others")
        return f"{self.failed} TASK(S) FAILED: {'; '.join(texts)}"


def last_line(text: str) -> str:
    """An error text on one line: its beginning, and for a traceback its last line."""
    first, *rest = text.strip().splitlines() or [""]
    line = f"{first.removesuffix('Traceback (most recent call last):').rstrip()} {rest[-1].strip()}" if rest else first
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
