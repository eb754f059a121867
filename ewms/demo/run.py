"""The main job, told as a story: ground, WMS, TMS, workflow, events, results, stop, the end."""

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from ewms.demo.display import Display, Progress
from ewms.testing.grounds import Ground, open_embedded_ground, open_pool_ground
from ewms.testing.pool import PoolUnavailable
from ewms.testing.stand import Stand, Workflow, WorkflowRequest, open_stand

TASK_ARGS: Final = "sh -c 'read n < {{INFILE}}; sleep 0.1; echo $((n * n)) > {{OUTFILE}}'"
"""Each task squares the number in its event."""

_POLL_S: Final = 0.25
_DEADLINE_S: Final = 120


class DemoFailed(Exception):
    """The main job did not do what it must; the text says what."""


class Interrupted(Exception):
    """Somebody asked to stop (Ctrl-C, SIGTERM)."""


@attrs.frozen(kw_only=True)
class Plan:
    """What the command line asked for."""

    ground: str
    """`auto`, `pool` or `embedded`."""
    n_events: int
    n_workers: int
    work_dir: Path
    wheel: Path | None


async def run_demo(plan: Plan) -> None:
    """Run the main job; whatever happens, nothing is left behind.

    Raises:
        DemoFailed: a step did not succeed.
        KeyboardInterrupt: it was interrupted, and everything is torn down.
    """
    display = Display()
    interrupted = False

    async def watch_signals(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        nonlocal interrupted
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                interrupted = True
                display.say("interrupted: tearing everything down")
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals)
        async with AsyncExitStack() as stack:
            ground = await _choose_ground(plan, display, stack)
            await _main_job(plan, ground, display)
            display.say("tearing everything down")
        nursery.cancel_scope.cancel()
    if interrupted:
        raise KeyboardInterrupt
    display.say(f"done. Logs of everything: {plan.work_dir}")


async def _choose_ground(plan: Plan, display: Display, stack: AsyncExitStack) -> Ground:
    if plan.ground != "embedded":
        try:
            ground = await stack.enter_async_context(
                open_pool_ground(plan.work_dir, display.say, wheel=plan.wheel, n_cpus=max(8, plan.n_workers))
            )
        except PoolUnavailable as error:
            if plan.ground == "pool":
                raise DemoFailed(f"no real pool here: {error}") from error
            display.say(f"no real pool here ({error}); using the embedded schedd and broker instead")
        else:
            display.say(f"the ground is {ground.description}")
            return ground
    ground = await stack.enter_async_context(open_embedded_ground(plan.work_dir, display.say, slots=plan.n_workers))
    display.say(f"the ground is {ground.description}")
    return ground


async def _main_job(plan: Plan, ground: Ground, display: Display) -> None:
    async with open_stand(ground, plan.work_dir) as stand:
        display.say(f"a WMS stand-in listens at {stand.wms.address}; a TMS starts for it")
        async with stand.tms() as tms:
            job = _Job(plan, stand, display, Progress(plan.n_events))
            await job.run(tms)


@attrs.define
class _Job:
    plan: Plan
    stand: Stand
    display: Display
    progress: Progress
    results: list[int] = attrs.field(factory=list)
    _looked: trio.Event = attrs.field(factory=trio.Event)
    """Set, and replaced, whenever the WMS was asked."""

    async def run(self, tms: trio.Process) -> None:
        workflow = await self._request()
        with self.display.live():
            async with self._watching(workflow, tms):
                await self._process_events(workflow)
                await self._see_everything_counted()
                self.display.say("asking for the stop: POST /v1/workflows/…/actions/finished")
                await self.stand.finish(workflow)
                await self._see_phase("condor-complete")
        self.display.say("the taskforce at the end:")
        self.display.console.print_json(json.dumps(_shortened(await self.stand.taskforce(workflow))))
        self.display.say(
            f"{len(self.results)} of {self.plan.n_events} events processed, all results right, on "
            f"{self.stand.ground.description}"
        )

    async def _request(self) -> Workflow:
        ground = self.stand.ground
        request = WorkflowRequest(
            task_image=ground.task_image,
            task_args=TASK_ARGS,
            n_workers=self.plan.n_workers,
            pilot_config=ground.pilot_config,
        )
        workflow = await self.stand.request(request)
        self.display.say(f"workflow {workflow.workflow_id} requested: {self.plan.n_workers} workers, task: {TASK_ARGS}")
        return workflow

    async def _process_events(self, workflow: Workflow) -> None:
        queues = self.stand.ground.queues
        await queues.put(workflow.queue_in, [str(number) for number in range(self.plan.n_events)])
        self.progress.sent = self.plan.n_events
        started = trio.current_time()
        self.display.say(f"{self.plan.n_events} events sent with {queues.client}")
        await queues.get(workflow.queue_out, self.plan.n_events, self._collect)
        self.display.say(
            f"{len(self.results)} results collected with {queues.client} in {trio.current_time() - started:.1f} s"
        )
        expected = sorted(number * number for number in range(self.plan.n_events))
        if sorted(self.results) != expected:
            raise DemoFailed(f"{len(self.results)} results came, but they are not the squares that were asked for")

    def _collect(self, value: Any) -> None:
        self.results.append(int(value))
        self.progress.collected += 1

    @asynccontextmanager
    async def _watching(self, workflow: Workflow, tms: trio.Process) -> AsyncIterator[None]:
        """Keep the display up to date, and fail when the TMS ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, workflow, tms)
            yield
            nursery.cancel_scope.cancel()

    async def _watch(self, workflow: Workflow, tms: trio.Process) -> None:
        phase = ""
        while True:
            taskforce = await self.stand.taskforce(workflow)
            progress = self.progress
            progress.phase, progress.cluster_id = taskforce["phase"], taskforce["cluster_id"]
            progress.compound_statuses = taskforce["compound_statuses"]
            progress.top_task_errors = taskforce["top_task_errors"]
            if progress.phase != phase:
                phase = progress.phase
                self.display.say(f"taskforce {workflow.taskforce_uuid}: {phase}")
            self.display.show(progress)
            self._looked.set()
            self._looked = trio.Event()
            if (status := tms.poll()) is not None:
                raise DemoFailed(f"the TMS ended with status {status}; see {self.plan.work_dir / 'tms.log'}")
            await trio.sleep(_POLL_S)

    async def _see_everything_counted(self) -> None:
        """Wait until the WMS shows every worker at its task: the statuses' whole way, from chirp to REST, works."""
        wanted = {"RUNNING": {"Tasking": self.plan.n_workers}}
        if not await self._reached(lambda: self.progress.compound_statuses == wanted):
            self.display.say(f"not all workers were seen at their task: {self.progress.workers}")

    async def _see_phase(self, phase: str) -> None:
        if not await self._reached(lambda: self.progress.phase == phase):
            raise DemoFailed(f"the taskforce is still {self.progress.phase} after {_DEADLINE_S} s, expected {phase}")

    async def _reached(self, wanted: Callable[[], bool]) -> bool:
        with trio.move_on_after(_DEADLINE_S):
            while not wanted():
                await self._looked.wait()
            return True
        return False


def _shortened(taskforce: dict[str, Any]) -> dict[str, Any]:
    """The final object without its longest parts: they are in the WMS's own answer."""
    requirements = {**taskforce, "submit_dict": f"({len(taskforce['submit_dict'])} entries)"}
    requirements["phase_change_log"] = [change["target_phase"] for change in taskforce["phase_change_log"]]
    return requirements
