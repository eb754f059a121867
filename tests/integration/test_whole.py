"""The main job and its bad days, on the embedded ground and on the real pool: the same tests, written once."""

import stat
from pathlib import Path

import trio
from asking import DEADLINE_S, request, stopped, until

from ewms.testing.grounds import Ground
from ewms.testing.stand import open_stand


async def test_events_flow_and_the_taskforce_completes(ground: Ground, work_dir: Path) -> None:
    async with open_stand(ground, work_dir) as stand, stand.tms():
        args = "sh -c 'tr a-z A-Z < {{INFILE}} > {{OUTFILE}}'"
        workflow = await stand.request(request(ground, args, EWMS_PILOT_TIMEOUT_QUEUE_INCOMING=5))
        words = [f"event {number}" for number in range(20)]
        await ground.queues.put(workflow.queue_in, words)
        results: list[str] = []
        with trio.fail_after(DEADLINE_S):
            await ground.queues.get(workflow.queue_out, len(words), results.append)
        assert sorted(results) == sorted(word.upper() for word in words)
        taskforce = await until(stand, workflow, lambda t: t["phase"] == "condor-complete", "condor-complete")
        assert taskforce["compound_statuses"] == {"COMPLETED": {"Done": 2}}
        assert taskforce["top_task_errors"] == {}
        targets = [change["target_phase"] for change in taskforce["phase_change_log"]]
        assert targets[-2:] == ["condor-submit", "condor-complete"]


async def test_stop_order_removes_the_cluster_and_hands_events_back(ground: Ground, work_dir: Path) -> None:
    async with open_stand(ground, work_dir) as stand, stand.tms():
        workflow = await stand.request(request(ground, "sleep 300"))
        await ground.queues.put(workflow.queue_in, ["one", "two"])
        await until(stand, workflow, lambda t: t["compound_statuses"] == {"RUNNING": {"Tasking": 2}}, "tasking")
        taskforce = await stopped(stand, workflow)
        assert set(taskforce["compound_statuses"]) == {"REMOVED"}
        targets = [change["target_phase"] for change in taskforce["phase_change_log"]]
        assert targets[-3:] == ["pending-stopper", "condor-rm", "condor-complete"]
        handed_back: list[str] = []
        with trio.fail_after(30):
            await ground.queues.get(workflow.queue_in, 2, handed_back.append)
        assert sorted(handed_back) == ["one", "two"]


async def test_a_failing_task_is_a_top_task_error(ground: Ground, work_dir: Path) -> None:
    async with open_stand(ground, work_dir) as stand, stand.tms():
        workflow = await stand.request(request(ground, "sh -c 'echo no such detector >&2; exit 3'", workers=1))
        await ground.queues.put(workflow.queue_in, ["one"])
        taskforce = await until(stand, workflow, lambda t: bool(t["top_task_errors"]), "an error at the WMS")
        assert taskforce["top_task_errors"] == {"task failed (exit code 3): no such detector": 1}
        await stopped(stand, workflow)


async def test_a_held_worker_is_shown_with_its_reason(ground: Ground, work_dir: Path) -> None:
    async with open_stand(ground, work_dir) as stand, stand.tms():
        asked = request(ground, "true", workers=1)
        asked.pilot_config["input_files"] = ["/nonexistent/input"]  # type: ignore[index]
        workflow = await stand.request(asked)
        taskforce = await until(
            stand, workflow, lambda t: any(key.startswith("HELD: ") for key in t["compound_statuses"]), "held"
        )
        assert "/nonexistent/input" in str(taskforce["compound_statuses"])
        await stopped(stand, workflow)


async def test_no_token_is_to_be_seen_anywhere(ground: Ground, work_dir: Path) -> None:
    """Not in a log, not in `ps`, not in a file that others can read."""
    async with open_stand(ground, work_dir) as stand:
        async with stand.tms():
            workflow = await stand.request(request(ground, "sleep 300", workers=1))
            await ground.queues.put(workflow.queue_in, ["one"])
            await until(stand, workflow, lambda t: t["compound_statuses"] == {"RUNNING": {"Tasking": 1}}, "tasking")
            processes = (await trio.run_process(["ps", "-eww", "-o", "args"], capture_stdout=True)).stdout
            await stopped(stand, workflow)
        secrets = [stand.wms.client_secret.reveal(), ground.broker_token.reveal()]
    assert all(secrets)
    for secret in secrets:
        assert secret.encode() not in processes
        for path in _readable_by_others(work_dir, ground.job_dir, ground.logs):
            assert secret.encode() not in path.read_bytes(), f"{path} shows a token"


def _readable_by_others(*roots: Path) -> list[Path]:
    files = {path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    logs = {path for path in files if path.suffix in {".log", ".jel", ".out", ".err"}}
    return sorted(logs | {path for path in files if path.stat().st_mode & stat.S_IROTH})
