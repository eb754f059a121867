"""What HTCondor itself does with a worker that failed, cannot start or is held: policy expressions (pure).

One mechanism, all of it in the submit description, so that it works while the TMS is away:

- A worker whose exit status speaks against its machine goes back to the queue, a few times. For a while it does not
  run on that machine again (HTCondor would start it there at once, in the very claim that it has).
- A worker whose container could not be started so many times is held, and the reason is seen; HTCondor would try for
  ever, every few seconds. It is held while it is idle: no machine will do any more. (Of a running job HTCondor counts
  one hold several times, and puts a reason of its own in place of the container's.)
- A hold whose cause may pass is released, a few times, after a longer wait each time. A worker that was held because
  it used more memory than it had asked for asks for more.
- A worker over its runtime limit is removed at once (HTCondor only holds it), one that stays on hold after some time.
- What a person holds, or an administrator's policy, is neither released nor removed.
"""

from collections.abc import Iterable
from typing import Final

import attrs

HELD_BY_SOMEBODY: Final = (1, 15, 16, 26, 27)
"""Hold codes: by condor_hold, submitted on hold, spooling, by the access point's own policy."""
RUNTIME_LIMIT_CODES: Final = (46, 47)
"""Hold codes of `allowed_job_duration` and `allowed_execute_duration`."""
START_FAILURES_SUBCODE: Final = 9001
"""Hold subcode (of code 3, the job's own policy) of a worker whose container could not be started."""

EXPRESSIONS: Final = ("on_exit_remove", "periodic_hold", "periodic_hold_reason", "periodic_release", "periodic_remove")
"""The commands whose values are ClassAd expressions."""

_IDLE: Final = 1
_HELD: Final = 5
_NEVER_STARTED: Final = "(NumVacatesByReason.SingularityTestFailed ?: 0)"
_HOLDS: Final = "((NumHolds ?: 0) - (NumHoldsByReason.UserRequest ?: 0))"
"""How many times HTCondor, not a person, has held the worker."""
_MEMORY_HOLDS: Final = (
    "(NumHoldsByReason.JobOutOfResources ?: 0)"
    # Machines with a policy of their own hold with code 21 for several reasons; 102 is the memory.
    " + ifthenelse(LastHoldReasonCode =?= 21 && LastHoldReasonSubCode =?= 102,"
    " NumHoldsByReason.StartdHeldJob ?: 0, 0)"
)


@attrs.frozen(kw_only=True)
class Policy:
    """The operator's numbers; times are in s."""

    requeue_exit_statuses: tuple[int, ...]
    max_requeues: int
    avoid_machine_time: float
    """For how long a worker is kept from the machine where it failed; 0: not at all."""
    max_start_failures: int
    release_hold_codes: tuple[int, ...]
    max_releases: int
    release_wait: float
    """Before the first release; twice as long before the second one, and so on."""
    held_expiry: float

    def commands(self) -> dict[str, str]:
        """Submit command → policy expression."""
        return {
            "on_exit_remove": self._on_exit_remove(),
            "periodic_hold": self._periodic_hold(),
            "periodic_hold_reason": (
                f'strcat("its container could not be started ", {_NEVER_STARTED}, " times: ", VacateReason ?: "?")'
            ),
            "periodic_hold_subcode": str(START_FAILURES_SUBCODE),
            "periodic_release": self._periodic_release(),
            "periodic_remove": self._periodic_remove(),
            **({"job_machine_attrs": "Machine"} if self.avoid_machine_time else {}),
        }

    def requirements(self) -> list[str]:
        """What a worker that failed before must find, or be, in order to run."""
        found = [f"{_NEVER_STARTED} < {self._start_failures}"]
        if self.avoid_machine_time:
            ended = "(JobCurrentFinishTransferOutputDate ?: 0)"
            found.append(
                "((NumJobCompletions ?: 0) == 0 || TARGET.Machine =!= MachineAttrMachine0"
                f" || time() - {ended} > {self.avoid_machine_time:g})"
            )
        return found

    @property
    def _start_failures(self) -> str:
        """How many it may have: after each release as many again."""
        return f"{self.max_start_failures} * (1 + (NumHoldsByReason.JobPolicy ?: 0))"

    def _on_exit_remove(self) -> str:
        # A run counts as completion when the worker ended by itself; evictions cost none of its tries.
        by_status = f"(ExitBySignal =?= false && {_member('ExitCode', self.requeue_exit_statuses)})"
        by_signal = f"(ExitBySignal =?= true && {_member('128 + ExitSignal', self.requeue_exit_statuses)})"
        return f"!(({by_status} || {by_signal}) && NumJobCompletions <= {self.max_requeues})"

    def _periodic_hold(self) -> str:
        return f"JobStatus == {_IDLE} && {_NEVER_STARTED} >= {self._start_failures}"

    def _periodic_release(self) -> str:
        own = f"(HoldReasonCode == 3 && HoldReasonSubCode == {START_FAILURES_SUBCODE})"
        passing = f"({_member('HoldReasonCode', self.release_hold_codes)} || {own})"
        waited = f"time() - EnteredCurrentStatus >= {self.release_wait:g} * {_HOLDS}"
        return f"{passing} && {_HOLDS} <= {self.max_releases} && {waited}"

    def _periodic_remove(self) -> str:
        too_long = _member("HoldReasonCode", RUNTIME_LIMIT_CODES)
        hopeless = (
            f"(!{_member('HoldReasonCode', HELD_BY_SOMEBODY)} && time() - EnteredCurrentStatus > {self.held_expiry:g})"
        )
        return f"JobStatus == {_HELD} && ({too_long} || {hopeless})"


def memory_request(mib: int) -> str:
    """`request_memory` for so many MiB: half as much again for each time that it was not enough."""
    return f"{mib} + {-(-mib // 2)} * ({_MEMORY_HOLDS})"


def _member(attribute: str, codes: Iterable[int]) -> str:
    return f"member({attribute}, {{{', '.join(str(code) for code in codes)}}})"
