"""Run `ewms` with a wall clock that is wrong: by as many seconds as a file says, read anew at each look.

    python shifted.py FILE WORD…

Python's clocks are replaced before anything of ours is imported. What runs in C (file times, HTCondor) keeps the
machine's clock, as another machine would. Standard library only: a stand-alone script.
"""

import datetime as dt
import sys
import time
from pathlib import Path
from typing import Any

_true_time, _true_gmtime = time.time, time.gmtime
_argv = sys.argv


def offset() -> float:
    """Seconds by which the clock is wrong now."""
    try:
        return float(Path(_argv[1]).read_text())
    except (OSError, ValueError):
        return 0.0


def _time() -> float:
    return _true_time() + offset()


def _gmtime(*seconds: Any) -> time.struct_time:
    return _true_gmtime(*(seconds or (_time(),)))


class _Datetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "_Datetime":
        return cls.fromtimestamp(_time(), tz)


if __name__ == "__main__":
    time.time, time.gmtime = _time, _gmtime
    dt.datetime = _Datetime  # type: ignore[misc]
    sys.argv = ["ewms", *sys.argv[2:]]
    from ewms.cli import main

    main()
