"""Which variables a shell in the container can set; pure."""

import re
from collections.abc import Iterator
from typing import Final

from ewms.pilot.settings import PilotSettings
from ewms.settings import SettingsError

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_names(settings: PilotSettings, runtime: str) -> None:
    """See that `runtime` can pass on all variables of the containers' environments.

    Raises:
        SettingsError: it cannot, for their names.
    """
    if problems := list(_problems(settings, runtime)):
        raise SettingsError(problems)


def _problems(settings: PilotSettings, runtime: str) -> Iterator[str]:
    for kind, names in (("TASK", settings.task_env_json), ("INIT", settings.init_env_json)):
        for name in names:
            if not _IDENTIFIER.match(name) or name == "HOME":
                yield (
                    f"EWMS_PILOT_{kind}_ENV_JSON: the name {name!r} cannot be set in a container of {runtime}: "
                    "use letters, digits and underscores, and not HOME"
                )
