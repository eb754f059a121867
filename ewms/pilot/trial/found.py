"""After the trial's pilot has ended: what became of each event, gathered from the queues and the tasks' directories."""

from collections.abc import Sequence
from pathlib import Path

import attrs

from ewms.pilot import events
from ewms.pilot.brokers.localstore import Store
from ewms.pilot.containment import CONTAINER_PREFIX
from ewms.pilot.directories import RunDirectory, read_tail
from ewms.pilot.trial.plan import FAILED, OUTGOING, TriedEvent, queues
from ewms.pilot.trial.watch import Run

TAIL_BYTES = 8192


@attrs.frozen(kw_only=True)
class Found:
    """What became of one event."""

    event: TriedEvent
    run: Run | None
    """None: no container was started for it."""
    error: str = ""
    """As the user of a workflow is told it; "" if nothing failed."""
    has_output: bool = False
    output: object = attrs.field(default=None, repr=False)
    """The data of the output event, if there is one."""
    stdout: str = ""
    stderr: str = ""
    """Their ends."""
    other_files: tuple[str, ...] = ()
    """What the task left beside its infile, and outfile."""

    @property
    def done(self) -> bool:
        """Whether its task was run and succeeded."""
        return self.run is not None and self.run.code == 0 and not self.error


def gather(tried: Sequence[TriedEvent], runs: Sequence[Run], directory: Path) -> list[Found]:
    """One for each event, in their order."""
    outputs = {event.headers.get(events.INPUT_EVENT_ID): event for event in _taken(directory, OUTGOING)}
    failed = {event.event_id: str(event.headers.get(events.LAST_ERROR, "")) for event in _taken(directory, FAILED)}
    found = []
    for event in tried:
        run = next((run for run in runs if run.spec.name.startswith(f"{CONTAINER_PREFIX}{event.event_id}-")), None)
        output = outputs.get(event.event_id)
        found.append(
            Found(
                event=event,
                run=run,
                error=failed.get(event.event_id, ""),
                has_output=output is not None,
                output=output.data if output else None,
                stdout=read_tail(_kept(run).stdout, TAIL_BYTES) if run else "",
                stderr=read_tail(_kept(run).stderr, TAIL_BYTES) if run else "",
                other_files=tuple(_other_files(run)) if run else (),
            )
        )
    return found


def _taken(directory: Path, queue: str) -> list[events.Event]:
    store = Store(queues(directory))
    try:
        return [events.decode(message.body, message.message_id) for message in store.take_all(queue)]
    finally:
        store.close()


def _kept(run: Run) -> RunDirectory:
    """Where its files are by now: a trial keeps those of each run, under the run's name."""
    run_id = run.spec.name.removeprefix(CONTAINER_PREFIX)
    return RunDirectory(run.spec.scratch.parent.with_name(run_id), run_id)


def _other_files(run: Run) -> list[str]:
    ours = {Path(run.spec.environment[name]).name for name in ("EWMS_TASK_INFILE", "EWMS_TASK_OUTFILE")}
    return sorted(path.name for path in _kept(run).task_io.iterdir() if path.name not in ours)
