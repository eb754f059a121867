"""Where this worker runs, as the machine's ad says it; pure."""

import re
from typing import Final, NamedTuple

from ewms.pilot.lease import attributes

_SITES: Final = ("GLIDEIN_Site", "OSG_SITE_NAME")
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")


class Place(NamedTuple):
    """The worker's site and its machine's full host name; "" where that is not known."""

    site: str
    host: str


def read(machine_ad: str) -> Place:
    """What the text of the machine's ad ("" where there is none) says."""
    machine = attributes(machine_ad)

    def string(name: str) -> str:
        match = _STRING.fullmatch(machine.get(name.lower(), ""))
        return _ESCAPED.sub(r"\1", match[1]).strip() if match else ""

    return Place(next(filter(None, map(string, _SITES)), ""), string("Machine"))
