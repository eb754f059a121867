"""What is fuzzed: a function of bytes that raises when something is wrong, and inputs to begin with."""

import hashlib
import re
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import attrs

CORPUS: Final = Path(__file__).parent / "corpus"
LIMIT_S: Final = 20.0
"""Of this process's CPU time, for one input: what takes longer hangs."""
_OURS: Final = re.compile(r"/(ewms|tests)/")


class Hangs(Exception):
    """One input took all of its time."""


@attrs.frozen
class Target:
    """One thing that takes bytes from outside."""

    name: str
    what: str
    run: Callable[[bytes], None]
    """Raises for a finding; what must not hold is asserted there."""
    seeds: Callable[[], Iterable[bytes]] = lambda: ()

    def corpus(self) -> list[Path]:
        """The inputs that are kept for it: findings that were mended, and what reaches far."""
        return sorted((CORPUS / self.name).glob("*"))

    def inputs(self) -> Iterator[bytes]:
        """What it begins with."""
        yield b""
        yield from self.seeds()
        for path in self.corpus():
            yield path.read_bytes()


@contextmanager
def limited(seconds: float = LIMIT_S) -> Iterator[None]:
    """Raise `Hangs` in what takes longer (processor time: a busy machine is no finding)."""

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise Hangs(f"more than {seconds:g} s for one input")

    former = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


def signature(error: BaseException) -> str:
    """What tells one finding from another: the exception's class, and our line that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _OURS.search(frame.filename)]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}"


def file_name(data: bytes) -> str:
    """The name of an input in the corpus."""
    return hashlib.sha256(data).hexdigest()[:16]
