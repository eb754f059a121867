"""Which variables a shell in the container can set; pure."""

import re
from collections.abc import Iterable
from typing import Final

from ewms.pilot.containers.base import ContainerError

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_names(names: Iterable[str], runtime: str) -> None:
    """Raise `ContainerError` for the name of a variable that `runtime` cannot pass on."""
    for name in names:
        if not _IDENTIFIER.match(name) or name == "HOME":
            raise ContainerError(
                f"the environment variable {name!r} cannot be set in a container of {runtime}: "
                "use letters, digits and underscores, and not HOME"
            )
