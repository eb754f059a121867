"""The Debian mirror of this machine, out of its own apt sources (pure)."""

from collections.abc import Iterable
from typing import Final

# Where security updates live there is no main archive; the others are Debian's name for one.
_NOT_A_MIRROR: Final = ("security", "backports", "debug")


def find_mirror(sources: Iterable[tuple[str, str]]) -> str | None:
    """The address of the machine's Debian archive, or None where it has none.

    `sources` are names and texts of the files that apt reads: `*.sources` in deb822 form, all others one line each.
    """
    found = [uri for name, text in sources for uri in (_deb822 if name.endswith(".sources") else _one_line)(text)]
    return next((uri for uri in found if _is_archive(uri)), None)


def _is_archive(uri: str) -> bool:
    path = uri.split("://", 1)[-1].rstrip("/")
    return path.endswith("/debian") and not any(word in uri for word in _NOT_A_MIRROR)


def _one_line(text: str) -> list[str]:
    """`deb [option=value …] URI SUITE COMPONENT…`, with comments."""
    uris = []
    for line in text.splitlines():
        kind, _, rest = line.split("#", 1)[0].strip().partition(" ")
        if kind != "deb":
            continue
        rest = rest.strip()
        if rest.startswith("["):
            rest = rest.partition("]")[2]
        uris += rest.split()[:1]
    return uris


def _deb822(text: str) -> list[str]:
    """Stanzas of `Field: value` lines; a value goes on in lines that start with a space."""
    uris = []
    for stanza in _stanzas(text):
        if "deb" in stanza.get("types", "").split() and stanza.get("enabled", "yes").lower() not in {"no", "false"}:
            uris += stanza.get("uris", "").split()
    return uris


def _stanzas(text: str) -> list[dict[str, str]]:
    stanzas: list[dict[str, str]] = [{}]
    field = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
        elif line[0].isspace():
            stanzas[-1][field] = f"{stanzas[-1].get(field, '')} {line.strip()}"
        else:
            field, _, value = line.partition(":")
            field = field.strip().lower()
            stanzas[-1][field] = value.strip()
    return stanzas
