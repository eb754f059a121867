"""Task arguments: words as a POSIX shell would split them, placeholders replaced in them; no shell ever sees them."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

PLACEHOLDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "infile": ("{{INFILE}}", "{{IN_FILE}}"),
    "outfile": ("{{OUTFILE}}", "{{OUT_FILE}}"),
    "data_hub": ("{{DATA_HUB}}", "{{DATAHUB}}"),
}
"""What a placeholder stands for → its spellings."""

_BY_TEXT: Final = {text: name for name, texts in PLACEHOLDERS.items() for text in texts}
_ANY: Final = re.compile("|".join(re.escape(text) for text in _BY_TEXT))


class ArgumentsError(ValueError):
    """An argument string that cannot be split into words."""


def split(text: str) -> list[str]:
    """Split `text` into words, honouring quotes and backslashes, expanding nothing.

    Raises:
        ArgumentsError: a quote is not closed, or an escape ends the text.
    """
    try:
        words = shlex.split(text, comments=False, posix=True)
    except ValueError as error:
        raise ArgumentsError(f"{str(error).lower()}: it must split into words like a shell's arguments") from None
    if any("\0" in word for word in words):
        raise ArgumentsError("it holds a NUL character")
    return words


def fill(words: Sequence[str], paths: Mapping[str, str]) -> list[str]:
    """Replace the placeholders in each word.

    `paths` has `infile`, `outfile`, `data_hub`; a placeholder without a path (an init container has no infile) stays
    as it is. What was put in is not looked at again: a path that contains a placeholder's text is harmless.
    """

    def path(match: re.Match[str]) -> str:
        return paths.get(_BY_TEXT[match[0]], match[0])

    return [_ANY.sub(path, word) for word in words]
