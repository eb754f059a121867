"""One lane of a sweep: a WMS, a job directory and a TMS of its own; its cases run one after the other."""

import json
import os
import signal
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from ewms.contract import ENVFILE_NAME
from ewms.testing.wms import Standin, open_standin
from ewms.testing.wms.phases import MAX_FAILURES
from ewms.testing.wms.schema import WorkflowRequest, structure
from ewms.tms.condor.base import Schedd
from ewms.tms.condor.schedd import open_schedd
from ewms.wms.models import Phase
from tests.sweep.cases import Act, Case, End
from tests.sweep.control import Control, Story
from tests.sweep.grounds import Ground
from tests.sweep.table import Result
from tests.sweep.truth import Evidence, LoggedCluster, judge, judge_running, read_log

N_WORKERS: Final = 2
_DEADLINE: Final = 120.0
_END_GRACE: Final = 30.0
_PACE: Final = {
    "TMS_OUTER_LOOP_WAIT": "0.1",
    "TMS_WATCHER_INTERVAL": "0.1",
    "TMS_ERROR_WAIT": "0.1",
    "TMS_SETTLE_TIME": "0.2",
}
_WORKER: Final = {
    "do_transfer_worker_stdouterr": True,
    "max_worker_runtime": 3600,
    "n_cores": 1,
    "priority": 50,
    "worker_disk": "1 MB",
    "condor_requirements": "",
}
_PILOT: Final = {"tag": "1.0", "image_source": "cvmfs", "environment": {}, "input_files": []}
_REMOVED: Final = 3


@attrs.define
class Lane:
    """Run cases in it with `run`."""

    name: str
    ground: Ground
    job_dir: Path
    gate: Path
    log: Path
    standin: Standin
    control: Control
    schedd: Schedd
    """Ours, to look at the truth."""
    bystander: str = ""
    """A taskforce that was started before; nothing may happen to it."""

    async def run(self, case: Case) -> Result:
        """Play a case and judge it."""
        began = trio.current_time()
        uuid = self.order(case.scenario.worker_memory)
        story = self._story(uuid, case)
        self.control.begin(story)
        with trio.move_on_after(_DEADLINE) as scope:
            async with self._tms(story, has_history=case.scenario.has_history):
                await self._play(case, story)
                story.is_over = True
        if scope.cancelled_caught:
            story.problems.append(f"it did not come to its end within {_DEADLINE:g} s")
        evidence = await self.look(uuid)
        story.problems += judge(
            case.scenario.end,
            N_WORKERS,
            evidence,
            story.calls,
            stop_must_be_told=not case.scenario.ends_by_itself,
        )
        self.control.story = None
        if story.problems:
            await self._clean_up(uuid)
        return Result(
            case,
            story.is_played,
            story.kills,
            len(evidence.clusters),
            tuple(dict.fromkeys(story.problems)),
            tuple(story.seen),
            trio.current_time() - began,
            tuple(story.diary),
        )

    def order(self, worker_memory: str) -> str:
        """A user's request, launched: its taskforce's UUID."""
        task = {
            "cluster_locations": ["here"],
            "input_queue_aliases": ["in"],
            "output_queue_aliases": ["out"],
            "task_image": "/images/task:1",
            "task_args": "",
            "n_workers": N_WORKERS,
            "pilot_config": _PILOT,
            "worker_config": {**_WORKER, "worker_memory": worker_memory},
        }
        request: dict[str, Any] = {"public_queue_aliases": ["in", "out"], "tasks": [task], "priority": 50}
        state = self.standin.state
        made = state.create_workflow(structure(WorkflowRequest, request))
        state.activate(made["workflow"]["workflow_id"])
        state.launch(made["workflow"]["workflow_id"])
        return str(made["taskforces"][0]["taskforce_uuid"])

    async def start_bystander(self) -> None:
        """A taskforce that runs, and of which every later TMS knows."""
        uuid = self.order("1 MB")
        story = Story(
            uuid, (), lambda _act: None, lambda: self._remove(uuid, "nobody does"), lambda: self._is_running(uuid)
        )
        self.control.begin(story)
        with trio.fail_after(_DEADLINE):
            async with self._tms(story):
                await _until(lambda: self._is_running(uuid))
        self.control.story = None
        self.bystander = uuid

    async def look(self, uuid: str) -> Evidence:
        """Ask the schedd, the logs and the WMS."""
        queue = await self._in_queue(uuid)
        ads = await self.schedd.history(f'EWMSTaskforceUUID == "{uuid}"', ["ClusterId"])
        logged: dict[int, LoggedCluster] = {}
        for path in sorted(self.job_dir.glob("*.tms.jel")):
            logged |= read_log(str(path), path.read_text(), uuid)
        return Evidence(
            queue,
            frozenset(int(str(ad["ClusterId"])) for ad in ads),
            logged,
            self.standin.state.taskforce(uuid),
            self._has_envfile(uuid),
            not self.bystander or (self._is_running(self.bystander) and bool(await self._in_queue(self.bystander))),
            self._entry(uuid),
        )

    async def _clean_up(self, uuid: str) -> None:
        """So that the next case does not begin with what is left of a wrong one."""
        document = self.standin.state.taskforce_document(uuid)
        self.standin.state.store.save([("taskforces", {**document, "phase": str(Phase.CONDOR_COMPLETE)})])
        await self._remove(uuid, "a case went wrong")

    async def _remove(self, uuid: str, reason: str) -> None:
        await self.schedd.act("remove", f'EWMSTaskforceUUID == "{uuid}"', reason=reason)

    # --- the story ---

    def _story(self, uuid: str, case: Case) -> Story:
        workflow_id = self.standin.state.taskforce(uuid).workflow_id

        def do_as_user(act: Act) -> None:
            self.standin.state.deactivate(workflow_id, "ABORTED" if act is Act.ABORT else "FINISHED")

        return Story(
            uuid,
            case.plan,
            do_as_user,
            lambda: self._remove(uuid, "the operator"),
            lambda: self._phase(uuid) != Phase.PENDING_STARTER,
        )

    async def _play(self, case: Case, story: Story) -> None:
        uuid = story.uuid
        match case.scenario.end:
            case End.COMPLETED:
                await _until(lambda: self._is_running(uuid) or self._phase(uuid) == Phase.CONDOR_COMPLETE)
                if self._phase(uuid) == Phase.CONDOR_SUBMIT and not case.loses_its_cluster:
                    story.problems += judge_running(N_WORKERS, await self.look(uuid))
                    await self._end_cluster(case, story)
                await _until(lambda: self._phase(uuid) == Phase.CONDOR_COMPLETE)
                await _until(lambda: self._entry(uuid).get("completed_at") is not None)
            case End.WITHDRAWN:
                await _until(lambda: self._phase(uuid) == Phase.PENDING_STOPPER)
            case End.REFUSED:
                await _until(lambda: self._n_failures(uuid) >= MAX_FAILURES)
        await _until(self.control.is_settled)
        if case.scenario.end is End.WITHDRAWN:
            while await self._in_queue(uuid):  # noqa: ASYNC110  HTCondor tells nobody
                await trio.sleep(0.1)

    async def _end_cluster(self, case: Case, story: Story) -> None:
        if case.scenario.ends_by_itself:
            await story.remove()
        else:
            story.do_as_user(Act.FINISH)

    def _n_failures(self, uuid: str) -> int:
        return sum(not each.was_successful for each in self.standin.state.taskforce(uuid).phase_change_log)

    def _phase(self, uuid: str) -> str:
        return str(self.standin.state.taskforce_document(uuid)["phase"])

    def _is_running(self, uuid: str) -> bool:
        taskforce = self.standin.state.taskforce_document(uuid)
        return taskforce["phase"] == Phase.CONDOR_SUBMIT and bool(taskforce["compound_statuses"])

    # --- the TMS ---

    @asynccontextmanager
    async def _tms(self, story: Story, *, has_history: bool = True) -> AsyncIterator[None]:
        """A TMS that is started again whenever it was killed; leaving is a clean SIGTERM."""
        keeper = _Keeper(partial(self._start, has_history=has_history), story)
        async with trio.open_nursery() as nursery:
            await nursery.start(keeper.keep)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):  # bounded inside
                    await keeper.end()
                nursery.cancel_scope.cancel()

    async def _start(self, *, has_history: bool) -> trio.Process:
        environment = {
            "PATH": os.defpath,
            "EWMS_ADDRESS": self.standin.address,
            "EWMS_TOKEN_URL": self.standin.token_url,
            "EWMS_CLIENT_ID": self.standin.client_id,
            "EWMS_CLIENT_SECRET": self.standin.client_secret.reveal(),
            "JOB_EVENT_LOG_DIR": str(self.job_dir),
            "TMS_SCHEDD_NAME": self.name,
            "TMS_SCHEDD_HELPER": self.ground.helper_setting(self.gate, has_history=has_history),
            "TMS_BASE_REQUIREMENTS": self.ground.requirements,
            "LOG_LEVEL": "DEBUG",
            **_PACE,
        }
        with self.log.open("ab") as log:
            return await trio.lowlevel.open_process(
                self.ground.tms(self.gate, self.job_dir),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    # --- the truth ---

    async def _in_queue(self, uuid: str) -> frozenset[int]:
        constraint = f'EWMSTaskforceUUID == "{uuid}"'
        ads = await self.schedd.query(constraint, ["ClusterId", "ProcId", "JobStatus"], cluster_ads=True)
        return frozenset(int(str(ad["ClusterId"])) for ad in ads if ad.get("JobStatus") != _REMOVED)

    def _entry(self, uuid: str) -> dict[str, Any]:
        path = self.job_dir / ".tms" / "ledger" / f"{uuid}.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _has_envfile(self, uuid: str) -> bool:
        path = self.job_dir / f"ewms-taskforce-{uuid}" / ENVFILE_NAME
        return path.exists() and stat.S_IMODE(path.stat().st_mode) == 0o600


@attrs.define
class _Keeper:
    """Keeps a TMS running, as systemd would."""

    start: Callable[[], Awaitable[trio.Process]]
    story: Story
    _process: trio.Process | None = None
    _ending: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def keep(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Start it again whenever it was ended by us; any other end is a problem."""
        with self._ending:
            self._process = await self.start()
            task_status.started()
            while True:
                status = await self._process.wait()
                if status not in self.story.ends:
                    self.story.problems.append(f"the TMS ended by itself, with status {status}")
                    await trio.sleep(0.5)
                self._process = await self.start()

    async def end(self) -> None:
        """SIGTERM; it must end well, and soon."""
        self._ending.cancel()
        assert self._process is not None
        with trio.move_on_after(_END_GRACE):
            self._process.send_signal(signal.SIGTERM)
            status = await self._process.wait()
            if status:
                self.story.problems.append(f"the TMS ended with status {status} after SIGTERM")
            return
        self.story.problems.append(f"the TMS did not end within {_END_GRACE:g} s after SIGTERM")
        self._process.kill()
        await self._process.wait()


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the case has the deadline."""
    while not condition():  # noqa: ASYNC110  nothing tells of a change at the stand-in
        await trio.sleep(0.03)


@asynccontextmanager
async def open_lane(ground: Ground, number: int, work_dir: Path) -> AsyncIterator[Lane]:
    """A lane with its bystander running."""
    name = f"ap-{number}.example.org"
    job_dir = ground.job_dir / f"lane-{number}"
    ground.make_job_dir(job_dir)
    control = Control()
    gate = work_dir / f"gate-{number}"
    helper = ground.command(list(ground.helper))
    async with (
        control.gate(gate),
        open_standin(locations={"here": name}, observer=control) as standin,
        open_schedd(helper, env={"PATH": os.defpath}) as schedd,
    ):
        lane = Lane(name, ground, job_dir, gate, work_dir / f"tms-{number}.log", standin, control, schedd)
        await lane.start_bystander()
        yield lane
