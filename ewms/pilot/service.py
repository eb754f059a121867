"""One pilot: connections ⊃ in-flight tasks ⊃ intake. `stopping.py` has the order in which it stops."""

import math
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import attrs
import structlog
import trio

from ewms.contract import ENVFILE_NAME, SUSPECT_MACHINE_EXIT_STATUSES, PilotStatus
from ewms.pilot import arguments, tokens
from ewms.pilot import lease as leases
from ewms.pilot import place as places
from ewms.pilot.brokers import open_broker
from ewms.pilot.brokers.base import Broker, QueueAddress, Sink, Source
from ewms.pilot.containers import open_platform
from ewms.pilot.containers.base import Mount, Platform
from ewms.pilot.containers.mounts import checked, keep_apart
from ewms.pilot.containment import Meter, Paths, Recipe, hub_mount, run
from ewms.pilot.copies import Copies
from ewms.pilot.directories import DataDirectory, Kept
from ewms.pilot.errors import ExitStatus, InitFailed, TaskError, root_cause, status_of
from ewms.pilot.intake import Intake
from ewms.pilot.limits import Limits
from ewms.pilot.lostsignal import look_for_lost_signal
from ewms.pilot.output import say
from ewms.pilot.report import Report, open_report
from ewms.pilot.resources import Resources
from ewms.pilot.selfcheck import self_check
from ewms.pilot.settings import PilotSettings, environment
from ewms.pilot.spares import Spares
from ewms.pilot.stopping import Reason, Stopping
from ewms.pilot.tally import Tally
from ewms.pilot.task import CLEANING_LIMIT_S, Tasks, dump
from ewms.pilot.work import Work
from ewms.secret import Secret, redact

log = structlog.stdlib.get_logger(__name__)

OpenBroker = Callable[[str, str, Secret], AbstractAsyncContextManager[Broker]]
OpenPlatform = Callable[[PilotSettings], AbstractAsyncContextManager[Platform]]
LEASE_MARGIN_S: Final = 30.0
"""A task is begun only if the worker's time is longer than a typical task by so much."""
STOP_CONSUMING_S: Final = 5.0
"""For telling a broker to push no more; what it pushes all the same goes back when the source closes."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def main(
    settings: PilotSettings,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    brokers: OpenBroker = open_broker,
    platforms: OpenPlatform = open_platform,
) -> int:
    """Run one pilot to its end; its exit status. `task_status` is told when it listens for events."""
    pilot = Pilot(settings=settings, brokers=brokers, platforms=platforms, listening=task_status.started)
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, signals, pilot.stopping)
            nursery.start_soon(look_for_lost_signal, settings, _text_of(settings.job_ad), pilot.stopping)
            status = await pilot.run()
            nursery.cancel_scope.cancel()
    if words := pilot.tally.last_words():
        say(f"{redact(words)}\n", sys.stderr)
    return status


async def _watch(signals: AsyncIterator[int], stopping: Stopping) -> NoReturn:
    async for number in signals:
        log.warning("signal received, stopping", signal=signal.Signals(number).name)
        stopping.evict()
    raise AssertionError("signals never end")


@attrs.define(kw_only=True)
class Pilot:
    """One pilot's life."""

    settings: PilotSettings
    brokers: OpenBroker
    platforms: OpenPlatform
    listening: Callable[[], None]
    tally: Tally = attrs.field(factory=Tally)
    resources: Resources = attrs.field(factory=Resources)
    pilot_id: str = attrs.field(factory=lambda: f"{socket.gethostname()}-{secrets.token_hex(4)}")
    lease: leases.Lease = attrs.field(init=False)
    stopping: Stopping = attrs.field(init=False)
    data: DataDirectory = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.lease = read_lease(settings)
        self.stopping = Stopping(grace=self.lease.grace if settings.stop_grace is None else settings.stop_grace)
        kept = Kept(settings.keep_failed_count, settings.keep_failed_bytes)
        self.data = DataDirectory((settings.data_dir_parent or Path.cwd()).absolute(), kept=kept)

    async def run(self) -> ExitStatus:
        """From the first chirp to the last; the exit status."""
        async with open_report(self.settings) as report:
            report.place(*places.read(_text_of(self.settings.machine_ad)))
            report.started()
            try:
                with self.stopping.everything:
                    await self._connected(report)
                status, why = self._status(), str(self.stopping.reason)
            except Exception as error:  # noqa: BLE001  told, and turned into an exit status
                status, why = _tell_fatal(error, report), "an error"
            else:
                if self.tally.handed_back and self.stopping.evicted:
                    report.error("the pilot was stopped by a signal; unfinished tasks were handed back")
                report.status(PilotStatus.DONE)
            report.summary("; ".join(filter(None, (f"{status.name}: {why}", self.resources.line()))))
            self._tell_resources()
            log.info(
                "pilot ends",
                exit_status=status.name,
                reason=why,
                succeeded=self.tally.succeeded,
                failed=self.tally.failed,
                handed_back=self.tally.handed_back,
                parked=self.tally.parked,
            )
            await self._quarantine(status)
        return status

    def _tell_resources(self) -> None:
        if table := self.resources.table():
            say(f"{table}\n", sys.stdout)
            counts = {name: getattr(self.tally, name) for name in ("succeeded", "failed", "handed_back", "parked")}
            self.data.write_summary(self.pilot_id, self.resources.as_json(pilot=self.pilot_id, **counts))

    def _status(self) -> ExitStatus:
        if self.tally.failed:
            return ExitStatus.TASKS_FAILED
        if self.stopping.evicted:
            return ExitStatus.STOPPED
        nothing_else = not self.tally.succeeded and (self.tally.passed_on or self.tally.parked)
        return ExitStatus.ONLY_PARKED if nothing_else else ExitStatus.OK

    async def _connected(self, report: Report) -> None:
        for warning in (*self.settings.warnings, *self.lease.not_understood, *self._token_warnings()):
            log.warning("please note", note=warning)
        self.data.create()
        async with AsyncExitStack() as stack:
            platform = await stack.enter_async_context(self.platforms(self.settings))
            recipe = await self._recipe(platform, "task")
            # Each takes its time; a failure of one ends the other.
            check = partial(self_check, platform, recipe, self.data, min_free=self.settings.min_free_disk)
            checked = await stack.enter_async_context(_beside(check))
            connections = Connections(stack, self.brokers)
            sinks = [await connections.sink(address) for address in self.settings.outgoing]
            # A refusal is found before the init container has run.
            deadletter = await connections.sink(self.settings.deadletter) if self.settings.deadletter else None
            for address in self.settings.incoming:
                await connections.broker(address)
            await checked.wait()
            if self.settings.init_image:
                report.status(PilotStatus.RUNNING_INIT_COMMAND)
                await self._init(platform)
            prefetch = self.settings.broker_prefetch
            sources = [await connections.source(address, prefetch) for address in self.settings.incoming]
            copies = Copies(own_queue=connections.own_queue, deadletter=deadletter)
            await self._tasking(platform, recipe, Queues(sources, sinks, copies), report)

    def _token_warnings(self) -> list[str]:
        settings = self.settings
        queues = [*settings.incoming, *settings.outgoing, *([settings.deadletter] if settings.deadletter else [])]
        return tokens.warnings(queues, self.lease.ends, time.time())

    def _secret_files(self) -> list[Path]:
        """Where queue tokens and the cookie of chirp are, on a worker."""
        known = (Path(ENVFILE_NAME).absolute(), self.settings.chirp_config)
        return [path for path in known if path is not None and path.exists()]

    async def _recipe(self, platform: Platform, kind: str) -> Recipe:
        """What to run for each task, or once as init container; checks what can be checked beforehand."""
        settings = self.settings
        mounts = (hub_mount(self.data), *(Mount(path, path, read_only=True) for path in settings.external))
        if platform.isolates:
            _, *external = checked(mounts)
            keep_apart(external, self._secret_files(), self.data.root)
        is_task = kind == "task"
        return Recipe(
            image=await platform.prepare(settings.task_image if is_task else settings.init_image),
            words=arguments.split(settings.task_args if is_task else settings.init_args),
            environment=environment(settings.task_env_json if is_task else settings.init_env_json),
            timeout=settings.task_timeout if is_task else settings.init_timeout,
            limits=settings.limits if is_task else Limits(),
            mounts=mounts,
        )

    async def _init(self, platform: Platform) -> None:
        recipe = await self._recipe(platform, "init")
        directory = self.data.new_run(f"init-{secrets.token_hex(4)}")
        paths = Paths(data_hub=str(platform.path_inside(hub_mount(self.data))))
        try:
            await run(platform, recipe, directory, mounts=(), paths=paths, meter=Meter())
        except TaskError as error:
            dump(directory)
            raise InitFailed(f"init container: {error}") from error
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANING_LIMIT_S):
                await self.data.keep_unlimited(directory)
        log.info("init container done")

    async def _tasking(self, platform: Platform, recipe: Recipe, queues: "Queues", report: Report) -> None:
        spares = Spares(platform, recipe, self.data, self.settings.slots)
        tasks = Tasks(
            settings=self.settings,
            pilot_id=self.pilot_id,
            platform=platform,
            recipe=recipe,
            data=self.data,
            spares=spares,
            stopping=self.stopping,
            resources=self.resources,
        )
        work = Work(
            settings=self.settings,
            pilot_id=self.pilot_id,
            tasks=tasks,
            sinks=queues.sinks,
            copies=queues.copies,
            stopping=self.stopping,
            tally=self.tally,
            report=report,
        )
        intake = Intake(
            sources=queues.sources,
            slots=self.settings.slots,
            first_timeout=self.settings.first_message_timeout,
            timeout=self.settings.timeout_incoming,
            handle=work.handle,
            on_first=lambda: report.status(PilotStatus.TASKING),
            latest_begin=self._latest_begin(),
        )
        report.status(PilotStatus.AWAITING_FIRST_MESSAGE)
        try:
            with self.stopping.in_flight:
                async with spares.kept(), trio.open_nursery() as in_flight:
                    self.stopping.begun = True
                    self.listening()
                    with self.stopping.intake:
                        async with trio.open_nursery() as beside:
                            beside.start_soon(work.let_by_held, in_flight)
                            self.stopping.stop_listening(await intake.run(in_flight))
                    log.info("taking no more events", reason=str(self.stopping.reason))
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_CONSUMING_S):
                        for source in queues.sources:
                            await source.stop()
                    await work.hand_back_held()  # other pilots need not wait for the last tasks here
                    if in_flight.child_tasks:
                        report.status(PilotStatus.PENDING_REMAINING_TASKS)
        finally:
            await work.hand_back_held()  # noqa: ASYNC102  it is shielded inside
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANING_LIMIT_S):
                await self.data.drop_free()

    def _latest_begin(self) -> Callable[[], float]:
        """Until when one more typical task fits into what is left of this worker's time."""
        if self.lease.ends is None:
            return lambda: math.inf
        ends = trio.current_time() + self.lease.ends - time.time()
        return lambda: ends - self.tally.typical_s - LEASE_MARGIN_S

    async def _quarantine(self, status: ExitStatus) -> None:
        suspect = status in SUSPECT_MACHINE_EXIT_STATUSES or status is ExitStatus.BUG
        if status is ExitStatus.TASKS_FAILED:
            suspect = self.stopping.reason is Reason.TASK_ERROR
        if suspect and self.settings.quarantine_time and not self.stopping.evicted:
            log.warning("staying in place after an error", quarantine_s=self.settings.quarantine_time)
            with self.stopping.quarantine:
                await trio.sleep(self.settings.quarantine_time)


@attrs.frozen
class Queues:
    """The queues of a pilot, open."""

    sources: Sequence[Source]
    sinks: Sequence[Sink]
    copies: Copies


class Connections:
    """One connection to each broker, whatever number of queues it has; the stack closes them."""

    def __init__(self, stack: AsyncExitStack, open_one: OpenBroker) -> None:
        self._stack = stack
        self._open_one = open_one
        self._brokers: dict[tuple[str, str, Secret], Broker] = {}
        self._broker_of: dict[Source, Broker] = {}

    async def broker(self, address: QueueAddress) -> Broker:
        """The connection that `address` needs."""
        key = (address.broker_type, address.broker_address, address.auth_token)
        if key not in self._brokers:
            self._brokers[key] = await self._stack.enter_async_context(self._open_one(*key))
        return self._brokers[key]

    async def source(self, address: QueueAddress, prefetch: int) -> Source:
        """Start consuming a queue."""
        broker = await self.broker(address)
        source = await self._stack.enter_async_context(broker.source(address.queue, prefetch=prefetch))
        self._broker_of[source] = broker
        return source

    def own_queue(self, source: Source) -> AbstractAsyncContextManager[Sink]:
        """A way to publish to the queue that `source` takes from."""
        return self._broker_of[source].sink(source.queue)

    async def sink(self, address: QueueAddress) -> Sink:
        """Get ready to publish to a queue."""
        return await self._stack.enter_async_context((await self.broker(address)).sink(address.queue))


@asynccontextmanager
async def _beside(work: Callable[[], Awaitable[None]]) -> AsyncIterator[trio.Event]:
    """Do `work` beside the body; the event tells that it is done, and if it fails it ends the body."""
    done = trio.Event()

    async def do() -> None:
        await work()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(do)
        yield done


def read_lease(settings: PilotSettings) -> leases.Lease:
    """What the job's and the machine's ads say; outside HTCondor there are none."""
    return leases.read(_text_of(settings.job_ad), _text_of(settings.machine_ad), now=time.time())


def _text_of(ad: Path | None) -> str:
    try:
        return ad.read_text(errors="replace") if ad else ""
    except OSError as error:
        log.warning("cannot read an ad of this job", path=str(ad), error=str(error))
        return ""


def _tell_fatal(error: Exception, report: Report) -> ExitStatus:
    cause = root_cause(error)
    status = status_of(cause)
    if status is ExitStatus.BUG:
        log.error("a bug ends the pilot", exc_info=error)
    else:
        log.error("pilot failed", error=str(cause), exit_status=status.name)
    text = f"{type(cause).__name__}: {cause}"
    report.error(text, "".join(traceback.format_exception(error)) if status is ExitStatus.BUG else "")
    report.status(PilotStatus.FATAL_ERROR)
    return status
