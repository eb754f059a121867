"""The sites and hosts that no new worker goes to, where the operator allows it: kept on disk, with their expiry."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import cattrs
import structlog
import trio

from ewms.tms.errors import OrderRefused
from ewms.tms.files import write_atomically
from ewms.tms.settings import Settings
from ewms.tms.submit_language import checked
from ewms.tms.suspects import Exclusion, Suspect, avoided

log = structlog.stdlib.get_logger(__name__)

_FILE: Final = "exclusions.json"
_converter: Final = cattrs.Converter(forbid_extra_keys=True)


def can_be_avoided(place: Suspect | Exclusion) -> bool:
    """Whether its name, which the machine chose, may stand in a submit description."""
    try:
        checked("place", place.name)
    except OrderRefused:
        return False
    return True


@attrs.define
class Exclusions:
    """What is excluded now; `path` is where it is kept (None: nowhere). `clock` gives epoch s."""

    _path: Path | None = None
    _clock: Callable[[], float] = time.time
    _known: tuple[Exclusion, ...] = ()

    def known(self) -> Sequence[Exclusion]:
        """All of them, also those that have just lapsed."""
        return self._known

    def now(self) -> list[Exclusion]:
        """Those that hold now."""
        return [each for each in self._known if each.until > self._clock()]

    def avoided(self) -> list[tuple[str, str]]:
        """Machine attributes and the values that a new worker's machine must not have."""
        return avoided(self.now())

    async def replace(self, exclusions: Sequence[Exclusion]) -> None:
        """From now on, these; on disk before this returns, if the disk takes it."""
        if tuple(exclusions) == self._known:
            return
        self._known = tuple(exclusions)
        if self._path is None:
            return
        text = json.dumps(_converter.unstructure(self._known), indent=1)
        try:
            await trio.to_thread.run_sync(write_atomically, self._path, text.encode())
        except OSError as error:
            log.warning("excluded places cannot be saved, a restart forgets them", error=str(error))


def load(settings: Settings) -> Exclusions:
    """Those of an earlier run, if the operator allows any; a file that cannot be read is told, and counts as none."""
    if not settings.exclude_suspicious:
        return Exclusions()
    path = settings.state_dir / _FILE
    known: tuple[Exclusion, ...] = ()
    try:
        known = _converter.structure(json.loads(path.read_bytes()), tuple[Exclusion, ...])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, cattrs.BaseValidationError) as error:
        log.warning("the excluded places cannot be read, beginning with none", file=str(path), error=str(error))
    found = Exclusions(path, known=tuple(each for each in known if can_be_avoided(each)))
    for each in found.now():
        log.info("still excluded for new workers", place=each.place, reason=each.reason)
    return found
