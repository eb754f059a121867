"""A failed task's stderr → the one text that tells its user what went wrong; pure."""

import re
from typing import Final

NOTHING: Final = "<no stderr logs>"
TAIL_BYTES: Final = 64 * 1024
"""So much of the end of a stderr file is looked at."""

_TRACEBACK: Final = "Traceback (most recent call last):"
_RUNTIME_LINES: Final = {
    # Its own log: `LEVEL   [U=1000,P=12]   Func()   message`.
    "Apptainer": re.compile(
        r"^(?:\x1b\[[0-9;]*m)*(?:FATAL|ERROR|WARNING|LOG|INFO|VERBOSE|DEBUG)(?:\x1b\[[0-9;]*m|\s)+"
        r"\[U=\d+,P=\d+\]\s+\S+\s+(?P<message>.*)$"
    ),
    "Bwrap": re.compile(r"^bwrap: (?P<message>.*)$"),
}
"""Container runtimes, and what their own lines look like."""
_EXCEPTION: Final = re.compile(r"^(?P<name>[A-Za-z_][\w.]*)(?::|$)")


def excerpt(stderr: str) -> str:
    """The last Python traceback; else the last line that is not the runtime's own; else the runtime's last word."""
    if found := last_traceback(stderr):
        return found
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if not lines:
        return NOTHING
    for line in reversed(lines):
        if not _of_the_runtime(line):
            return line
    return _of_the_runtime(lines[-1])


def _of_the_runtime(line: str) -> str:
    """What a runtime says in its own name; "" for a line that is not a runtime's."""
    for name, pattern in _RUNTIME_LINES.items():
        if match := pattern.match(line):
            return f"[{name}-Error] {match['message'].strip()}"
    return ""


def last_traceback(stderr: str) -> str:
    """The last Python traceback from its heading to its exception's line; "" if there is none."""
    # Lines end in more ways than with a new-line: a progress bar ends its own with a carriage return.
    lines = stderr.splitlines()
    start = next((number for number in reversed(range(len(lines))) if _TRACEBACK in lines[number]), None)
    if start is None:
        return ""
    lines = lines[start:]
    # A traceback inside an exception group is indented behind `|`; a plain one may be indented as a whole.
    margin = lines[0][: lines[0].index(_TRACEBACK)]
    kept = [lines[0]]
    for line in lines[1:]:
        kept.append(line)
        body = line.removeprefix(margin)
        if body and not body[0].isspace():
            break
    return "\n".join(line.removeprefix(margin).rstrip() for line in kept)


def exception_name(stderr: str) -> str:
    """The class of the exception that the last traceback ends with, as Python printed it; "" if there is none."""
    lines = last_traceback(stderr).splitlines()
    match = _EXCEPTION.match(lines[-1]) if lines else None
    return match["name"] if match else ""
