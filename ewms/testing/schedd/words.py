"""HTCondor's argument and environment strings → words and variables (pure)."""

from collections.abc import Mapping


class WordsError(ValueError):
    """A string that does not follow HTCondor's quoting rules."""


def arguments(text: str) -> list[str]:
    """The words of `arguments`: the new syntax (all in double quotes) or the old one (split at white space)."""
    inner = _new_syntax(text)
    return text.split() if inner is None else _words(inner)


def variables(text: str) -> Mapping[str, str]:
    """The variables of `environment`: the new syntax (all in double quotes) or the old one (split at semicolons)."""
    inner = _new_syntax(text)
    pairs = [each for each in text.split(";") if each] if inner is None else _words(inner)
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise WordsError(f"not a variable: {pair!r}")
        found[name.strip()] = value
    return found


def _new_syntax(text: str) -> str | None:
    text = text.strip()
    if not text.startswith('"'):
        return None
    if len(text) < 2 or not text.endswith('"'):
        raise WordsError(f"no closing double quote: {text}")
    inner = text[1:-1]
    if '"' in inner.replace('""', ""):
        raise WordsError(f"a double quote must be doubled: {text}")
    return inner.replace('""', '"')


def _words(text: str) -> list[str]:
    words: list[str] = []
    word: str | None = None  # an empty pair of quotes is a word, too
    quoted = False
    position = 0
    while position < len(text):
        char = text[position]
        if char == "'" and quoted and text[position + 1 : position + 2] == "'":
            word, position = f"{word}'", position + 1
        elif char == "'":
            word, quoted = word or "", not quoted
        elif char.isspace() and not quoted:
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + char
        position += 1
    if quoted:
        raise WordsError(f"no closing single quote: {text}")
    return words if word is None else [*words, word]
