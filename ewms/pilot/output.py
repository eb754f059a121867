"""The pilot's own stdout and stderr: what is written there is for people, and no event depends on it."""

import os
from contextlib import suppress
from typing import TextIO

import structlog

log = structlog.stdlib.get_logger(__name__)


def say(text: str, stream: TextIO | None) -> None:
    """Write a text; a stream that takes nothing is only told.

    Python has none (None) where the pilot was started without.
    """
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:  # the disk is full, nobody reads any more; ValueError: it is closed
        log.warning("the pilot's own output takes nothing", error=str(error))


def let_go(*streams: TextIO | None) -> None:
    """At the end of the process: what a stream has not taken is dropped, or Python would change the exit status."""
    for stream in filter(None, streams):
        with suppress(ValueError):
            try:
                stream.flush()
            except OSError:
                nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
