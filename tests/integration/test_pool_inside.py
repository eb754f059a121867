"""What a healthy pool is good for: container jobs, containers in them, an ordinary user, secrets that stay secret."""

from pathlib import Path

import pytest
import trio

from ewms.testing.pool import CommandFailed, Pool

pytestmark = pytest.mark.pool

SUBMIT = """\
universe = container
container_image = {image}
transfer_container = false
transfer_input_files = job.sh
initialdir = {directory}
output = out
error = err
log = {directory}/log
should_transfer_files = yes
request_memory = 100
request_disk = 10M
queue
"""

NESTED = """\
set -e
id --user --name
echo from the host > infile
unset APPTAINER_BIND SINGULARITY_BIND
bind=type=bind,source=$PWD/infile,target=/infile,readonly
apptainer run --containall --no-eval --mount "$bind" /images/task:1 cat /infile
bwrap --ro-bind /images/task:1 / --proc /proc --dev-bind /dev /dev --unshare-pid python3 -c 'print(6 * 7)'
"""


async def directory_of_job(pool: Pool, name: str, script: str) -> Path:
    directory = pool.job_dir / name
    await pool.run(["mkdir", str(directory)])
    await pool.run(["tee", str(directory / "job.sh")], stdin=script.encode())
    return directory


async def test_container_job_runs_nested_containers(pool: Pool) -> None:
    directory = await directory_of_job(pool, "nested", NESTED)
    text = SUBMIT.format(image=pool.worker_image, directory=directory)
    await pool.run(["condor_submit", "-"], stdin=text.encode())
    await pool.run(["condor_wait", "-wait", "60", f"{directory}/log"])
    assert await trio.Path(directory / "out").read_text() == "ewms\nfrom the host\n42\n", (
        directory / "err"
    ).read_text()


async def test_user_has_the_package_and_the_bindings_in_step(pool: Pool) -> None:
    program = "import htcondor2, ewms.tms.service; print(htcondor2.version().split()[1])"
    said = await pool.run([pool.python, "-c", program])
    assert said.stdout.decode().strip().rpartition(".")[0] == pool.versions.condor.rpartition(".")[0]


async def test_root_stays_as_it_was_built(pool: Pool) -> None:
    await pool.run(["touch", "/etc/written-inside", "/usr/bin/written-inside"], user="root")
    mounts = (await pool.run(["cat", "/proc/mounts"])).stdout.decode()
    (lower,) = {word.removeprefix("lowerdir=") for word in mounts.replace(" ", ",").split(",") if "lowerdir=" in word}
    assert not await trio.Path(lower, "etc/written-inside").exists()
    assert not await trio.Path(lower, "usr/bin/written-inside").exists()


async def test_images_are_read_only(pool: Pool) -> None:
    with pytest.raises(CommandFailed, match="Read-only file system"):
        await pool.run(["touch", f"{pool.task_image}/etc/written"], user="root")


async def test_token_is_nowhere_to_be_read(pool: Pool) -> None:
    token = pool.broker_token.reveal().encode()
    told = await pool.run(["sh", "-c", "ps -eww -o args; cat /etc/rabbitmq/* /proc/[0-9]*/environ"], check=False)
    assert told.stdout.count(b"\n") > 5
    assert token not in told.stdout
    for log in (pool.logs / "rabbitmq").iterdir():
        assert token not in await trio.Path(log).read_bytes()


async def until_gone(pool: Pool, command: str) -> None:
    with trio.fail_after(5):
        while command.encode() in (await pool.run(["ps", "-eo", "args"])).stdout:  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_status_and_signals_pass_through(pool: Pool) -> None:
    assert (await pool.run(["sh", "-c", "exit 7"], check=False)).returncode == 7
    process = await trio.lowlevel.open_process(pool.command(["sleep", "60"]), env={})
    await trio.sleep(0.3)
    process.terminate()
    with trio.fail_after(5):
        assert await process.wait() == -15
    await until_gone(pool, "sleep 60")


async def test_killing_the_command_kills_what_it_runs(pool: Pool) -> None:
    process = await trio.lowlevel.open_process(pool.command(["sleep", "61"]), env={})
    await trio.sleep(0.3)
    process.kill()
    await process.wait()
    await until_gone(pool, "sleep 61")


async def test_environment_is_the_process_s_own(pool: Pool) -> None:
    said = await pool.run(["env"], env={"TOKEN": "s3cret"})
    names = {line.partition("=")[0] for line in said.stdout.decode().splitlines()}
    assert names <= {"HOME", "USER", "LOGNAME", "PATH", "TOKEN", "LC_CTYPE"}
