"""Names that both sides speak: the TMS, the pilot, and today's tools that may sit on the other end.

Nothing here may be renamed: a pilot or a TMS of another version can be on the other side. This file imports nothing
of ours.
"""

from enum import StrEnum
from typing import Final

ENVFILE_NAME: Final = "ewms_htcondor_envfile.sh"
"""The file with `export NAME='value'` lines that the TMS transfers with each pilot; it holds queue tokens."""

TASKFORCE_ATTRIBUTE: Final = "EWMSTaskforceUUID"
"""The job attribute, and the key of the submit note, that names a cluster's taskforce."""

CHIRP_PREFIX: Final = "HTChirpEWMSPilot"


class ChirpAttribute(StrEnum):
    """What a pilot tells through chirp, one `ulog` line (HTCondor event 008) `NAME: "value"` each."""

    STARTED_TIMESTAMP = "HTChirpEWMSPilotStartedTimestamp"
    """When the pilot started (epoch s)."""
    LAST_UPDATED_TIMESTAMP = "HTChirpEWMSPilotLastUpdatedTimestamp"
    """When it told the rest of this batch (epoch s)."""
    STATUS = "HTChirpEWMSPilotStatus"
    """One of the statuses below."""
    TASKS_TOTAL = "HTChirpEWMSPilotTasksTotal"
    """Tasks that succeeded or failed."""
    TASKS_SUCCESS = "HTChirpEWMSPilotTasksSuccess"
    """Tasks that succeeded."""
    TASKS_FAILED = "HTChirpEWMSPilotTasksFailed"
    """Tasks that failed; only when > 0."""
    ERROR = "HTChirpEWMSPilotError"
    """The last error, of a task or of the pilot."""
    ERROR_TRACEBACK = "HTChirpEWMSPilotErrorTraceback"
    """Where a mistake in the pilot itself was; as much as fits."""
    # Ours. Today's TMS passes over an attribute that it does not know.
    SITE = "HTChirpEWMSPilotSite"
    """`GLIDEIN_Site` of the machine, or else its `OSG_SITE_NAME`; not sent where it has neither."""
    SUMMARY = "HTChirpEWMSPilotSummary"
    """Exit status, why no more events were taken, quantiles of what tasks used: once, last, on one line for people."""
    EVENTS_PARKED = "HTChirpEWMSPilotEventsParked"
    """Events that this pilot parked because they failed too often; only when > 0."""
    HOST = "HTChirpEWMSPilotHost"
    """The machine's full host name."""


class PilotStatus(StrEnum):
    """The states of one pilot, in the order in which it goes through them."""

    STARTED = "Started"
    """Looks at its settings, its machine and its queues."""
    RUNNING_INIT_COMMAND = "RunningInitCommand"
    """Runs the init container."""
    AWAITING_FIRST_MESSAGE = "AwaitingFirstMessage"
    """Listens, and had no event yet."""
    TASKING = "Tasking"
    """Had its first event, and takes more."""
    PENDING_REMAINING_TASKS = "PendingRemainingTasks"
    """Takes no more events, and waits for the tasks that run."""
    FATAL_ERROR = "FatalError"
    """Was ended by an error that is not a task's."""
    DONE = "Done"
    """Ended in order, with failed tasks or without."""


SUSPECT_MACHINE_EXIT_STATUSES: Final = (1, 3, 4, 5, 7, 8, 11)
"""A pilot's exit statuses that speak against its machine: a task or the init container failed, the container runtime,
the image or the data directory cannot be used there, the broker is out of its reach, its
self-check failed. (Today's pilot has 1 only.)"""

MAX_CHIRP_BYTES: Final = 900
"""One chirp line after escaping; HTCondor cuts at 1023 bytes, its own reader at 985 (both silently)."""

PILOT_ENV_PREFIXES: Final = ("EWMS_PILOT_", "_EWMS_PILOT_")
"""Only variables with these prefixes pass from the operator's settings to a pilot."""

TASK_DATA_DIR: Final = "/ewms-pilot-data"
"""Where a task container sees its data hub and its task-io directory."""


def taskforce_dir_name(taskforce_uuid: str) -> str:
    """The taskforce's directory under the job directory, as today's TMS names it."""
    return f"ewms-taskforce-{taskforce_uuid}"


DAY_LOG_SUFFIX: Final = ".tms.jel"


def day_log_name(day: str) -> str:
    """The job event log of one day; `day` is `YYYY-MM-DD`, in UTC."""
    return f"{day}{DAY_LOG_SUFFIX}"
