"""Every way to run this project: `nox -l` lists the sessions, `nox -s NAME` runs one.

The sessions test the package as it is installed, not the work tree. A supported Python that is not on this machine
is skipped with a word; `tests` runs on all that are.
"""

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)

IMAGES = nox.project.load_toml("containers/images.toml")
LOCKS = "containers/locks"
SEEN = str(Path("build/versions-seen.json").resolve())

# pyenv keeps its Pythons off the PATH; nox finds an interpreter only there.
_PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *(str(path) for path in sorted(_PYENV.glob("3.*/bin")))])


def groups(*names: str) -> list[str]:
    """The requirements of some of pyproject's dependency groups."""
    return list(nox.project.dependency_groups(PYPROJECT, *names))


def install(session: nox.Session, *extras: str, also: tuple[str, ...] = ()) -> None:
    """Install the package as a user gets it, with extras, plus dependency groups."""
    session.install("--upgrade", f".[{','.join(extras)}]", *groups(*also))


def run(session: nox.Session, *command: str, **env: str) -> None:
    """Run what takes down what it started when it gets Ctrl-C; nox would kill it half a second later."""
    session.run(*command, env=env, interrupt_timeout=60, terminate_timeout=30)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, ruff, flake8-async, the import rules, and shell scripts."""
    install(session, "demo", also=("lint",))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    # Left out: 114 and 128 (our `main(settings, *, task_status)` hand the status on), 124 (protocols are async even
    # where one side need not wait), 127 (httpx is this project's choice).
    session.run("flake8-async", "--disable", "ASYNC114,ASYNC124,ASYNC127,ASYNC128,ASYNC9")
    session.run("lint-imports")
    session.run("shellcheck", ".ci/run", *map(str, sorted(Path("containers").rglob("*.sh"))))


@nox.session
def workflows(session: nox.Session) -> None:
    """GitHub's workflows: their form, and what is dangerous in such."""
    session.install(*groups("workflows"))
    files = sorted(str(path) for path in Path(".github/workflows").glob("*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    session.run("zizmor", "--offline", "--quiet", *files)


@nox.session
def typecheck(session: nox.Session) -> None:
    """Strict mypy over the package and its tests."""
    install(session, "all", also=("typecheck",))
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All fast tests, on every installed supported Python."""
    install(session, "demo", also=("tests",))
    run(session, "pytest", "-m", "not pool and not broker and not docker", *session.posargs, EWMS_TEST_VERSIONS=SEEN)


@nox.session
def integration(session: nox.Session) -> None:
    """The tests against the real thing: HTCondor pool, RabbitMQ, Apptainer, Docker; whole runs on the embedded one.

    `EWMS_TEST_EVENTS=10000 nox -s integration -- -k under_fire` is the long run (1,000 events by default).
    """
    install(session, "demo", also=("tests",))
    # One run, so that the pool is started once.
    run(
        session,
        "pytest",
        *("tests/integration", "tests/contract"),
        *("-m", "integration or pool or broker or docker"),
        *session.posargs,
        EWMS_TEST_WHEEL=build_wheel(session),
        EWMS_TEST_VERSIONS=SEEN,
    )


@nox.session
def sweep(session: nox.Session) -> None:
    """Kill the TMS and its helpers at hundreds of steps, lose answers: always one cluster; `-- --kills 30 --pool 3`."""
    install(session, "demo", also=("tests",))
    run(session, "python", "-m", "tests.sweep", *session.posargs, EWMS_TEST_WHEEL=build_wheel(session))


@nox.session
def chaos(session: nox.Session) -> None:
    """The whole system under a seeded schedule of faults; `-- --ground embedded --minutes 0.5`, `-- --help`."""
    install(session, "demo", also=("tests",))
    run(session, "python", "-m", "tests.chaos", *session.posargs, EWMS_TEST_WHEEL=build_wheel(session))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Inputs made to break what takes bytes from outside; `-- --minutes 10 --target log-damage`, `-- --list`."""
    install(session, "demo", also=("tests",))
    # Compiled, and not there for every machine; what runs without it says so.
    session.install("--only-binary", ":all:", *groups("fuzz"), success_codes=[0, 1])
    run(session, "python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def load(session: nox.Session) -> None:
    """Much of everything for minutes: do memory and open files stay what they are? `-- --tiny`, `-- --part log`."""
    install(session, "demo", also=("bench", "tests"))
    run(session, "python", "-m", "tests.load", *session.posargs, PYTHONPATH="tests/bench:tests/faults")


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on this machine; `-- --pool` or `-- --embedded` forces one ground."""
    install(session, "demo")
    run(session, "ewms", "demo", *session.posargs, EWMS_DEMO_WHEEL=build_wheel(session))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure ours beside references, in one run; `-- --quick` proves that it works, `-- --group tms` is one part."""
    install(session, "demo", also=("bench", "tests"))
    run(session, "python", "tests/bench/run.py", *session.posargs, PYTHONPATH="tests/faults")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; warnings are errors."""
    install(session, "demo", also=("docs",))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.log(f"open {Path('docs/_build/html/index.html').resolve()}")


@nox.session
def lock(session: nox.Session) -> None:
    """Pin what the images have, with hashes, within what pyproject.toml allows; `-- --upgrade` takes the newest."""
    session.install(*groups("lock"))
    for name, extras in IMAGES["locks"].items():
        session.run(
            *("uv", "pip", "compile", "--quiet", "--generate-hashes", "--only-binary", ":all:", "pyproject.toml"),
            *(word for extra in extras for word in ("--extra", extra)),
            # The images are Debian trixie.
            *("--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_40"),
            *("--custom-compile-command", "nox -s lock", "--output-file", f"{LOCKS}/{name}.txt"),
            *session.posargs,
            env={"UV_SYSTEM_CERTS": "1"},
        )


@nox.session
def sbom(session: nox.Session) -> None:
    """What is in the images, as CycloneDX, out of the locks: build/sbom."""
    session.install(*groups("sbom"))
    target = Path("build/sbom")
    target.mkdir(parents=True, exist_ok=True)
    for name in IMAGES["locks"]:
        session.run(
            *("cyclonedx-py", "requirements", f"{LOCKS}/{name}.txt", "--output-format", "JSON", "--validate"),
            *("--output-reproducible", "--output-file", str(target / f"ewms-{name}.cdx.json")),
        )


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities in what the images have; a word where the service that knows them is out of reach."""
    session.install(*groups("audit"))
    for name in IMAGES["locks"]:
        said = session.run(
            *("pip-audit", "--requirement", f"{LOCKS}/{name}.txt", "--disable-pip", "--require-hashes"),
            *session.posargs,
            silent=True,
            success_codes=[0, 1],
        )
        if "No known vulnerabilities" in str(said):
            session.log(f"{name}: no known vulnerabilities")
        elif "known vulnerabilit" in str(said):
            session.error(f"{name}:\n{said}")
        else:
            session.skip(
                f"the service that knows vulnerabilities cannot be asked: {str(said).strip().splitlines()[-1]}"
            )


@nox.session
def versions(session: nox.Session) -> None:
    """Take over what test runs saw of other people's software into docs/versions.json and the table in the docs."""
    session.run("python", "docs/versions.py", *(session.posargs or [SEEN]))


def build_wheel(session: nox.Session) -> str:
    """A wheel of this work tree, for the machines of the pool; its path."""
    target = Path(session.create_tmp()).resolve() / "wheel"
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), ".", silent=True)
    return str(max(target.glob("*.whl"), key=lambda path: path.stat().st_mtime))


if __name__ == "__main__":
    sys.exit("run me with nox: python3 -m pip install nox && nox -l")
