"""Whom the TMS waits for: who has not answered, since when, in words for the status line."""

from typing import Final

import attrs
import trio

from ewms.tms.condor.base import CondorBroken, CondorUnreachable
from ewms.wms.errors import WMSUnauthorized, WMSUnavailable

_WORDS: Final[dict[type[Exception], str]] = {
    WMSUnauthorized: "the WMS, or who gives tokens for it, refuses this TMS",
    WMSUnavailable: "the WMS does not answer",
    CondorUnreachable: "the schedd does not answer",
    CondorBroken: "HTCondor's bindings do not work",
}
"""What is waited out → what it is; any other fault is an answer."""


@attrs.define
class Silence:
    """One that is called again and again: the WMS, or the schedd."""

    _words: str = ""
    _since: float = 0

    def note(self, fault: type[Exception] | None) -> None:
        """A call ended with `fault`, or (None) with an answer."""
        before, self._words = self._words, _WORDS.get(fault, "") if fault else ""
        if not before:
            self._since = trio.current_time()

    def words(self) -> str:
        """Empty when the last call was answered."""
        return f"{self._words} (for {trio.current_time() - self._since:.0f} s)" if self._words else ""
