"""`ewms pilot try` on images that are broken in each way: what it prints is enough to mend each."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

if TYPE_CHECKING:
    from ewms.testing.docker import DockerHost
    from ewms.testing.pool import Pool

PATIENCE = 120


@attrs.frozen
class Variant:
    """An image by what its entrypoint does, and what is said about it."""

    does: str
    """A shell script; "" for an entrypoint that is not in the image."""
    says: Sequence[str]
    status: int = 1
    options: Sequence[str] = ()


MISSING = "/opt/science/reco"
VARIANTS = {
    "works": Variant(
        'read -r line < "$1"; echo "got $line" > "$2"; echo "$line" >> "$EWMS_TASK_DATA_HUB_DIR/seen"',
        ["done    in", "output  text, 13 bytes:\n    got an event", "1 of 1 events succeeded, with 1 output"],
        status=0,
    ),
    "entrypoint-missing": Variant(
        "", ["A program was not found in the container: the image's entrypoint", MISSING, "FAILED  after"]
    ),
    "no-outfile": Variant(
        'cp "$1" "$(dirname "$2")/result.txt"',
        ["It wrote no outfile, so no output event is sent", "nobody gets them: result.txt", "{{OUTFILE}}"],
        status=0,
    ),
    "crash": Variant(
        "exec python3 -c 'def reco():\n    raise ValueError(\"bad frame 7\")\nreco()'",
        ["error   task failed (exit code 1): ValueError: bad frame 7", "Traceback (most recent call last)", "in reco"],
    ),
    "timeout": Variant(
        "echo loading tables; echo almost >&2; exec sleep 1000",
        ["[Timeout-Error] timed out after 2s", "    loading tables", "    almost", "--timeout here"],
        options=["--timeout", "2"],
    ),
}
ARGS = "{{INFILE}} {{OUTFILE}}"


def options_of(variant: Variant, image: str, platform: str, directory: Path) -> list[str]:
    (directory / "event.txt").write_text("an event\n")
    event = str(directory / "event.txt")
    return ["--image", image, "--platform", platform, "--args", ARGS, "--event", event, *variant.options]


def check(variant: Variant, command: list[str]) -> None:
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
    said = ended.stdout.decode(errors="replace")
    unwrapped = " ".join(said.split())
    assert ended.returncode == variant.status, said
    for text in variant.says:
        assert " ".join(text.split()) in unwrapped, said
    assert "In production:" in said


@pytest.mark.pool
@pytest.mark.parametrize("platform", ["apptainer", "bwrap"])
@pytest.mark.parametrize("name", VARIANTS)
def test_directory_image(name: str, platform: str, pool: "Pool") -> None:
    try_directory_image(VARIANTS[name], f"{platform}-{name}", platform, pool)


@pytest.mark.pool
def test_auto_takes_bubblewrap_on_a_worker(pool: "Pool") -> None:
    works = VARIANTS["works"]
    works = attrs.evolve(works, says=["containers are run by: bwrap", *works.says])
    try_directory_image(works, "auto", "auto", pool)


def try_directory_image(variant: Variant, name: str, platform: str, pool: "Pool") -> None:
    """In the pilot image, as an ordinary user: a container in a container, as on a worker."""
    directory = pool.job_dir / f"trial-{name}"
    image = f"{directory}/image"
    runscript = f"{image}/.singularity.d/runscript"
    script = variant.does or f'exec {MISSING} "$@"'
    _succeed(pool.command(["install", "--directory", "--mode=0777", str(directory)]))
    _succeed(pool.command(["cp", "--archive", pool.task_image, image], user="root"))
    _succeed(pool.command(["tee", runscript], user="root"), stdin=f"#!/bin/sh\n{script}\n")
    trial = ["python3", "-m", "ewms", "pilot", "try", *options_of(variant, image, platform, directory)]
    pilot = f"{pool.pilot_image_base}:{pool.pilot_tag}"
    # With --containall, /tmp has no room for a trial.
    options = ["--containall", "--bind", str(directory), "--env", f"TMPDIR={directory}"]
    check(variant, pool.command(["apptainer", "-s", "exec", *options, pilot, *trial]))
    _succeed(pool.command(["rm", "-rf", image], user="root"))


@pytest.mark.docker
@pytest.mark.parametrize("name", VARIANTS)
def test_docker(name: str, docker_host: "DockerHost") -> None:
    variant = VARIANTS[name]
    directory = docker_host.job_dir / f"trial-{name}"
    directory.mkdir()
    image = f"ewms-trial:{name}"
    entrypoint = f'ENTRYPOINT ["{MISSING}"]' if not variant.does else _as_entrypoint(variant.does)
    _succeed(docker_host.command(["docker", "create", "--name", name, docker_host.task_image, "true"]))
    _succeed(docker_host.command(["docker", "commit", "--change", entrypoint, name, image]))
    _succeed(docker_host.command(["docker", "rm", name]))
    trial = ["-m", "ewms", "pilot", "try", *options_of(variant, image, "docker", directory)]
    check(variant, docker_host.command([docker_host.python, *trial]))


def _as_entrypoint(script: str) -> str:
    return f"ENTRYPOINT {json.dumps(['/bin/sh', '-c', script, 'task'])}"


def _succeed(command: list[str], stdin: str = "") -> None:
    subprocess.run(command, input=stdin.encode(), stdout=subprocess.DEVNULL, timeout=PATIENCE, check=True)
