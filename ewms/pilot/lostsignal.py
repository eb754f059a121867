"""The SIGTERM that came too early for anybody to take it.

While Apptainer starts the worker's container it loses signals: what it hands on before the container's first process
can take them, the kernel drops. HTCondor sends SIGTERM once and then waits for the whole vacate time (600 s by
default). But from then on the job's ad has a `VacateReason` that it had not when this run began, and chirp shows it: so
the pilot asks as soon as it can take signals itself.
"""

from typing import Final

import structlog
import trio

from ewms.pilot.chirp import ChirpClient, ChirpError
from ewms.pilot.lease import attributes
from ewms.pilot.settings import PilotSettings
from ewms.pilot.stopping import Stopping

log = structlog.stdlib.get_logger(__name__)

WAITS_S: Final = (0.0, 10.0)
"""Before each look: the ad follows the signal within about a second, on a slow machine later."""
SIGNAL_S: Final = 2.0
"""A signal that was not lost is here by then."""
_REASON: Final = "VacateReason"


async def look_for_lost_signal(settings: PilotSettings, job_ad: str, stopping: Stopping) -> None:
    """Begin the stop when HTCondor asked for it before the pilot could hear; without chirp nothing is asked.

    `job_ad` is the text of the job's ad as this run began ("" if there is none).
    """
    if not settings.htchirp or settings.chirp_config is None:
        return
    client = ChirpClient(settings.chirp_config, to_log=True)
    left_over = attributes(job_ad).get(_REASON.lower())
    try:
        for wait in WAITS_S:
            await trio.sleep(wait)
            reason = await client.get(_REASON)
            if reason.startswith('"') and reason != left_over:  # a text, and no spelling of "undefined"
                await trio.sleep(SIGNAL_S)
                if not stopping.evicted:
                    log.warning("a signal came before the pilot could take it, stopping", reason=reason)
                    stopping.evict()
                return
    except ChirpError as error:
        log.info("cannot ask whether a signal came too early", error=str(error))
    finally:
        client.close()
