"""`$(NAME)`, `$ENV(NAME)` and `$INT(…)` in submit descriptions (pure)."""

import re
from collections.abc import Mapping
from typing import Final

import classad2

_MAX_DEPTH: Final = 20
_CALL: Final = re.compile(r"\$(ENV|INT|REAL)?\(")


class MacroError(ValueError):
    """A macro that cannot be expanded."""


def expand(text: str, macros: Mapping[str, str], environ: Mapping[str, str], depth: int = 0) -> str:
    """Replace every macro; `macros` has lower-case names. An unknown one becomes its default, or nothing.

    As in HTCondor, `$(DOLLAR)` is a dollar sign, and `$$(…)` is left for the match.
    """
    if depth > _MAX_DEPTH:
        raise MacroError(f"macro recursion in {text!r}")
    pieces: list[str] = []
    position = 0
    while call := _CALL.search(text, position):
        end = _closing(text, call.end())
        if text[call.start() - 1 : call.start()] == "$":
            pieces.append(text[position : end + 1])
        else:
            pieces.append(text[position : call.start()])
            inner = expand(text[call.end() : end], macros, environ, depth + 1)
            pieces.append(_value(call[1], inner, macros, environ, depth))
        position = end + 1
    return "".join(pieces) + text[position:]


def _value(function: str | None, inner: str, macros: Mapping[str, str], environ: Mapping[str, str], depth: int) -> str:
    name, colon, default = inner.partition(":")
    key = name.strip().lower()
    if function == "ENV":
        return environ.get(name.strip(), default if colon else "UNDEFINED")
    if function in ("INT", "REAL"):
        text = expand(macros.get(key, inner), macros, environ, depth + 1)
        try:
            number = classad2.ExprTree(text).eval()
        except classad2.ClassAdException:
            number = None
        if type(number) not in (int, float):
            raise MacroError(f"${function}({inner}) is not a number")
        return str(int(number) if function == "INT" else float(number))
    if key == "dollar":
        return "$"
    return expand(macros.get(key, default), macros, environ, depth + 1)


def _closing(text: str, start: int) -> int:
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise MacroError(f"no closing parenthesis in {text!r}")
