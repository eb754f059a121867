"""Error and hold texts that say the same are one group: what varies in them is left out (pure)."""

import re
from functools import lru_cache
from typing import Final

_VARYING: Final = re.compile(
    r"""
    (?P<keep> \b(?:exit\ code|return\ value|signal|errno|status|subcode|code|error)\W{0,3}-?\d+\b )
  | (?P<url>  \b[a-z][a-z0-9+.-]*://[^\s'"<>]+ )
  | (?P<address> <[^<>\s]*:\d+[^<>]*> | \[?\b[0-9a-fA-F]{1,4}(?:::?[0-9a-fA-F]{1,4}){2,}\]?(?::\d+)?
              | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b | \b[\w-]+(?:\.[\w-]+)+:\d+\b )
  | (?P<slot> \b(?:slot\d+(?:_\d+)?@)[\w.-]+ )
  | (?P<path> (?<![\w<])~?(?:/[\w.+@:=%,~-]+)+/? )
  | (?P<id>   \b0x[0-9a-fA-F]+\b | \b(?=[0-9a-fA-F-]*\d)[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*\b )
  | (?P<n>    \d+(?:\.\d+)? )
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _placeholder(match: re.Match[str]) -> str:
    kind = match.lastgroup
    return match[0] if kind == "keep" else f"<{kind}>"


@lru_cache(maxsize=4096)
def group_of(text: str) -> str:
    """The text without what varies from job to job: ids, numbers, paths, addresses, slots.

    An exit code, signal or errno says what went wrong and stays.
    """
    return _VARYING.sub(_placeholder, text)
