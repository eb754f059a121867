"""What a release is made of: images.toml, locks, the builder's commands, GitHub's workflows, and versions from tags."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import build_images
import pytest
import versions as version_table
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ewms.tms.settings import Settings

ROOT: Final = Path(__file__).parents[2]
CONTAINERS: Final = ROOT / "containers"
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TABLE: Final[dict[str, Any]] = tomllib.loads((CONTAINERS / "images.toml").read_text())
WORKFLOWS: Final = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
PAGES_BUILDS: Final = re.findall(
    r"^.*python3 containers/build_images\.py .*$", (ROOT / "docs" / "images.md").read_text(), re.MULTILINE
)
STAND_INS: Final = {"sudo": '#!/bin/sh\nexec "$@"\n', "pip": '#!/bin/sh\nmkdir -p build; echo "$*" >> "$TOLD"\n'}
IN_AN_IMAGE: Final = {"python_version": "3.13", "python_full_version": "3.13.5", "sys_platform": "linux"}


# --- the locks ---


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Project → (version, number of hashes)."""
    text = (CONTAINERS / "locks" / f"{name}.txt").read_text()
    entries = re.findall(r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(entries) == text.count("==")
    return {canonicalize_name(project): (version, hashes.count("sha256")) for project, version, hashes in entries}


def needs(extras: Iterable[str]) -> Iterator[Requirement]:
    """What pyproject.toml asks for, its own extras followed."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    for requirement in (Requirement(text) for texts in lists for text in texts):
        if canonicalize_name(requirement.name) == PROJECT["name"]:
            yield from needs(requirement.extras)
        elif requirement.marker is None or requirement.marker.evaluate(IN_AN_IMAGE):
            yield requirement


@pytest.mark.parametrize(("name", "extras"), TABLE["locks"].items())
def test_a_lock_fits_pyproject(name: str, extras: list[str]) -> None:
    pins = locked(name)
    for requirement in needs(extras):
        version, hashes = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: nox -s lock"
        assert hashes


def test_locks_and_images_belong_together() -> None:
    assert {path.stem for path in (CONTAINERS / "locks").iterdir()} == TABLE["locks"].keys()
    assert {image["lock"] for image in TABLE["images"].values()} == TABLE["locks"].keys()


def test_a_pilot_has_no_bindings_and_no_http_client() -> None:
    assert not {"htcondor", "httpx"} & locked("pilot").keys()


# --- images ---


@pytest.mark.parametrize("name", TABLE["images"])
def test_an_image_is_made_of_what_there_is(name: str) -> None:
    image = build_images.images()[name]
    assert (CONTAINERS / "pool" / f"{image.recipe}.toml").is_file()
    assert (CONTAINERS / f"{image.of}.def").is_file()
    assert re.search(rf"^FROM \w+ AS {image.of}$", (CONTAINERS / "Dockerfile").read_text(), re.MULTILINE)


def test_every_image_has_a_tag_of_its_own() -> None:
    tags = [image.tag("v1.2.3") for image in build_images.images().values()]
    assert len(set(tags)) == len(tags)
    assert {"ewms-task-management-service:v1.2.3", "ewms-pilot:v1.2.3", "ewms-pilot:v1.2.3-nats"} <= set(tags)


def test_commands() -> None:
    image = build_images.images()["pilot-nats"]
    make, add = build_images.site(image, Path("dist/ewms.whl"), Path("build/site"))
    assert make[-1].endswith("/locks/pilot-nats.txt")
    assert "--require-hashes" in make
    assert add[-2:] == ["--no-deps", "dist/ewms.whl"]
    docker = build_images.docker(image, "ewms-pilot:v1-nats", "build/site", root="root:1")
    assert docker[-3:] == ["--tag", "ewms-pilot:v1-nats", "."]
    assert {"RECIPE=pilot-root", "SITE=build/site", "ROOT=root:1"} <= set(docker)
    apptainer = build_images.apptainer(image, Path("build/cvmfs/x"), Path("build/site"))
    assert apptainer[:3] == ["apptainer", "build", "--fix-perms"]
    assert apptainer[-2:] == ["build/cvmfs/x", str(CONTAINERS / "pilot.def")]
    for definition in CONTAINERS.glob("*.def"):
        named = {
            word
            for word in apptainer
            if "=" in word and "{{ " + word.partition("=")[0] + " }}" in definition.read_text()
        }
        assert definition.stem in {"task", "worker"} or len(named) == 3


@pytest.mark.parametrize("line", PAGES_BUILDS)
def test_the_pages_commands_build(line: str, tmp_path: Path) -> None:
    """Run as they stand, with programs that only say what they were told to do."""
    for name in ("docker", "apptainer", "sudo", "pip"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(STAND_INS.get(name, f'#!/bin/sh\necho "{name} $*" >> "$TOLD"\n'))
        program.chmod(0o755)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "ewms_htcondor-1.2.3-py3-none-any.whl").touch()
    (tmp_path / "containers").symlink_to(CONTAINERS)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHON": str(tmp_path / "bin" / "pip"),
        "TOLD": str(tmp_path / "told"),
    }
    done = subprocess.run(["bash", "-euc", line], cwd=tmp_path, check=True, env=environment, capture_output=True)
    built = done.stdout.decode().splitlines()
    told = (tmp_path / "told").read_text().splitlines()
    assert len(built) == sum(line.endswith(f" {name}") or f" {name} " in line for name in TABLE["images"])
    for tag in built:
        (command,) = [command for command in told if f" {tag} " in command]
        assert command.startswith(("docker build ", "apptainer build "))
    assert len([command for command in told if " install " in command]) == 2 * len(built)


def test_scripts_know_the_packages_of_a_recipe(tmp_path: Path) -> None:
    """Run with programs that say that all is installed."""
    for name in ("dpkg-query", "id", "python3"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/sh\ncase "$*" in *db:Status-Status*) printf installed ;; *) printf 1.0 ;; esac\n')
        program.chmod(0o755)
    shutil.copy(CONTAINERS / "prepare-image.sh", tmp_path)
    command = ["sh", str(tmp_path / "prepare-image.sh"), str(CONTAINERS / "pool" / "pilot-root.toml")]
    subprocess.run(command, check=True, env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"})
    assert (tmp_path / "versions").read_text() == "python 1.0, apptainer 1.0, bubblewrap 1.0\n"


# --- workflows ---


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for stem, workflow in WORKFLOWS.items():
        for name, job in workflow["jobs"].items():
            yield f"{stem}/{name}", job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, step) for name, job in jobs() for step in job["steps"])


def test_actions_are_pinned_to_a_commit() -> None:
    used = [step["uses"] for _, step in steps() if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", action)] == []


def test_permissions_are_the_least() -> None:
    assert all(workflow["permissions"] == {"contents": "read"} for workflow in WORKFLOWS.values())
    more = {name: job["permissions"] for name, job in jobs() if "permissions" in job}
    assert more == {
        "image-publish/pypi": {"id-token": "write"},
        "image-publish/docker": {"contents": "read", "packages": "write"},
        "image-publish/cvmfs": {"contents": "write"},
        "image-publish/sbom": {"contents": "write"},
    }


def test_no_script_has_an_expression_pasted_into_it() -> None:
    assert [(name, step["run"]) for name, step in steps() if "${{" in step.get("run", "")] == []
    assert all(job["timeout-minutes"] for _, job in jobs())


def test_all_parts_of_ci_are_run() -> None:
    listed = subprocess.run([ROOT / ".ci" / "run", "--list"], check=True, capture_output=True, text=True)
    assert {"lint", "integration", "unit tests, every Python"} <= set(json.loads(listed.stdout))
    (names,) = (step for step in WORKFLOWS["tests"]["jobs"]["parts"]["steps"] if step.get("id") == "list")
    assert ".ci/run --list" in names["run"]


def test_all_images_are_published() -> None:
    publish = WORKFLOWS["image-publish"]["jobs"]
    assert publish["docker"]["strategy"]["matrix"]["image"] == list(TABLE["images"])
    for_cvmfs = [name for name, image in TABLE["images"].items() if image["recipe"] != "pilot-docker-root"]
    assert publish["cvmfs"]["strategy"]["matrix"]["image"] == for_cvmfs


def test_cvmfs_paths_are_the_ones_that_the_tms_takes_by_default() -> None:
    assert (
        attrs.fields(Settings).cvmfs_pilot_path.default
        == f"/cvmfs/icecube.opensciencegrid.org/{build_images.CVMFS}/{build_images.NAMES['pilot']}"
    )


# --- versions ---


def test_a_tag_is_the_version_of_the_wheel_and_of_what_an_image_says(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    (tree / "ewms").mkdir(parents=True)
    shutil.copy(ROOT / "ewms" / "__init__.py", tree / "ewms")
    shutil.copytree(CONTAINERS, tree / "containers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    git = ["git", "-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "tag.gpgSign=false"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "--no-gpg-sign", "-m", "all"], ["tag", "v1.2.3"]):
        subprocess.run([*git, *command], cwd=tree, check=True)
    hatch = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(hatch, cwd=tree, check=True, capture_output=True)
    (wheel,) = out.iterdir()
    assert wheel.name == "ewms_htcondor-1.2.3-py3-none-any.whl"

    image = tmp_path / "image"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(image / "site")
    for script in ("tms-entrypoint.sh", "say-versions.sh"):
        shutil.copy(image / "site" / "ewms" / "_containers" / script, image)
    said = subprocess.run(
        ["/bin/sh", str(image / "tms-entrypoint.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stderr.startswith("versions: ewms 1.2.3, ")


def test_the_table_of_versions_is_the_record() -> None:
    record = json.loads(version_table.RECORD.read_text())
    page = version_table.PAGE.read_text()
    assert version_table.with_table(page, record) == page, "nox -s versions"


def test_what_a_run_saw_is_taken_over() -> None:
    record = version_table.merged({"Docker": {"26.1": "2026-01-01"}}, {"Docker": {"26.1": "2026-02-01"}, "NATS": {}})
    assert record == {"Docker": {"26.1": "2026-02-01"}, "NATS": {}}
    assert "| B | 1.10 (y), 1.9 (x) |" in version_table.table({"B": {"1.9": "x", "1.10": "y"}})
