"""What may stand in a submit description: checks, quoting and sizes (pure).

The bindings paste `key = value` lines as text. A new-line in a value would inject submit commands, a trailing
backslash would swallow the next one, and `$(X)`, `$ENV(X)`, `$RANDOM_CHOICE(…)` would be expanded on the access point.
So whatever comes from outside is checked here before it gets into a description; it is refused, never repaired.
"""

import re
from fractions import Fraction
from typing import Final

from ewms.tms.errors import OrderRefused

_MACRO: Final = re.compile(r"\$\w*\(")
_UUID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
_POWERS: Final = {"": 0, "b": 0, "byte": 0, "bytes": 0} | {
    unit: power for power, letter in enumerate("kmgtp", start=1) for unit in (letter, f"{letter}b", f"{letter}ib")
}
_LARGEST_SIZE: Final = 2**60
MIB: Final = 2**20
KIB: Final = 2**10


def checked(name: str, value: str) -> str:
    """`value` unchanged; raises `OrderRefused` when it would mean more than itself in a submit description."""
    if not value.isprintable():
        raise OrderRefused(f"{name}: {value!r} has a new-line or another character that is not printable")
    if value.rstrip().endswith("\\"):
        raise OrderRefused(f"{name}: {value!r} ends with a backslash, which would join it to the next submit command")
    if macro := _MACRO.search(value):
        raise OrderRefused(f"{name}: {value!r} has the submit macro {macro.group()!r}, which HTCondor would expand")
    return value


def checked_uuid(uuid: str) -> str:
    """A taskforce UUID, which becomes a file name and a ClassAd string."""
    if not _UUID.fullmatch(uuid):
        raise OrderRefused(f"taskforce_uuid: {uuid!r} is not letters, digits, '-' and '_' only")
    return uuid


def checked_tag(tag: str) -> str:
    """An image tag; no path separators, so that it cannot name another image."""
    if not _TAG.fullmatch(tag):
        raise OrderRefused(f"pilot_config.tag: {tag!r} is not an image tag (letters, digits, '_', '.', '-')")
    return tag


def checked_file(name: str, path: str) -> str:
    """A path or URL for `transfer_input_files`, whose entries are separated by commas."""
    checked(name, path)
    if not path.strip() or path != path.strip() or set(path) & set(',"'):
        raise OrderRefused(f"{name}: {path!r} is empty, or has a comma, a quote, or blanks at its ends")
    return path


def classad_string(text: str) -> str:
    """`text` as a ClassAd string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def size_in_bytes(name: str, size: str | int) -> int:
    """Bytes from `1073741824`, `"512M"`, `"1 GB"`, `"1.5GiB"`; every unit is binary, a bare number is bytes."""
    match = _SIZE.fullmatch(str(size))
    power = _POWERS.get(match.group(2).lower()) if match else None
    if match is None or power is None:
        raise OrderRefused(
            f"{name}: {size!r} is not a size; use bytes or a number with a unit, such as '512M' or '1 GB'"
        )
    n_bytes = -(-Fraction(match.group(1)) * 1024**power // 1)
    if not 0 < n_bytes < _LARGEST_SIZE:
        raise OrderRefused(f"{name}: {size!r} is not between 1 byte and 1024 PB")
    return int(n_bytes)


def rounded_up(n_bytes: int, unit: int) -> int:
    """How many whole units hold `n_bytes`."""
    return -(-n_bytes // unit)


def for_proc(expression: str, proc: int) -> str:
    """An expression as it is for one proc."""
    return expression.replace("$(ProcId)", str(proc))


def priority_ramp(first: int, n_procs: int) -> str | int:
    """`priority`: the first proc gets `first`, the last one half of it; constant when `first` or `n_procs` is ≤ 1."""
    if first <= 1 or n_procs <= 1:
        return first
    return f"{first} - ( ($(ProcId) * {first // 2}) / {n_procs - 1} )"
