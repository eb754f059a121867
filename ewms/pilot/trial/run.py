"""One trial from its first to its last word."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from ewms.pilot import service
from ewms.pilot.brokers.localstore import Store
from ewms.pilot.containers import open_platform
from ewms.pilot.containment import CONTAINER_PREFIX
from ewms.pilot.directories import read_tail
from ewms.pilot.errors import ExitStatus
from ewms.pilot.settings import PilotSettings
from ewms.pilot.trial.advice import Case, advice, differences
from ewms.pilot.trial.found import TAIL_BYTES, gather
from ewms.pilot.trial.plan import INCOMING, TriedEvent, queues
from ewms.pilot.trial.show import advice_lines, bullet_lines, event_lines, summary
from ewms.pilot.trial.watch import OpenPlatform, Watch

Say = Callable[[str], None]
STILL_RUNNING_S: Final = 10.0


async def run(
    settings: PilotSettings,
    production: PilotSettings,
    tried: Sequence[TriedEvent],
    directory: Path,
    say: Say,
    *,
    platforms: OpenPlatform = open_platform,
) -> ExitStatus:
    """Try `tried` with `settings` in `directory`, and say what happened; the pilot's exit status.

    `production` are the settings without what the trial itself changed.
    """
    labels = {event.event_id: f"event {event.number} ({event.path.name})" for event in tried}
    watch = Watch(say, lambda name: _label(name, labels), platforms)
    await trio.to_thread.run_sync(_put, directory, tried)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.tell_of_long_ones, STILL_RUNNING_S)
        status = ExitStatus(await service.main(settings, platforms=watch.open))
        nursery.cancel_scope.cancel()
    found = gather(tried, list(watch.runs.values()), directory)
    say("")
    if watch.refused is not None:
        _say_refused(watch, say)
    for each in found:
        if each.run is not None or each.error:
            _say_lines(say, [*event_lines(each, len(tried), watch.platform), ""])
    if walls := [each.run.wall_s for each in found if each.run]:
        there = differences(production, watch.platform, max(walls))
        _say_lines(say, ["In production:", *bullet_lines(there), ""])
    say(summary(found))
    return status


def _say_refused(watch: Watch, say: Say) -> None:
    """What ended the pilot before it could try all events."""
    assert watch.refused is not None
    say(f"THE PILOT ENDED: {watch.refused}")
    init = next((run for name, run in watch.runs.items() if _is_init(name)), None)
    stderr = ""
    if init is not None:
        stderr = read_tail(init.spec.stderr, TAIL_BYTES)
        if stderr.strip():
            say("  stderr of the init container")
            _say_lines(say, [f"    {line}" for line in stderr.splitlines()])
    case = Case(
        error=str(watch.refused),
        stderr=stderr,
        code=init.code if init else None,
        words=init.spec.args if init else (),
        has_output=True,
        platform=watch.platform,
    )
    for text in advice(case):
        _say_lines(say, advice_lines(text))
    say("")


def _say_lines(say: Say, lines: Sequence[str]) -> None:
    for line in lines:
        say(line)


def _label(name: str, labels: Mapping[str, str]) -> str:
    """A container's name for people: `ewms-event-1-PILOT-1` is event 1's."""
    found = next((label for event_id, label in labels.items() if name.startswith(f"{CONTAINER_PREFIX}{event_id}-")), "")
    return found or ("init container" if _is_init(name) else name)


def _is_init(name: str) -> bool:
    return name.startswith(f"{CONTAINER_PREFIX}init-")


def _put(directory: Path, tried: Sequence[TriedEvent]) -> None:
    store = Store(queues(directory))
    try:
        store.put(INCOMING, [(event.body, event.event_id) for event in tried])
    finally:
        store.close()
