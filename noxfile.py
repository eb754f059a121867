"""Every way to run this project: `nox -l` lists the sessions, `nox -s NAME` runs one."""

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "typecheck", "tests"]
# A supported Python that is not installed here is skipped, in CI too.
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)


def install(session: nox.Session, *extras: str, groups: tuple[str, ...] = ("tests",)) -> None:
    """Install the package as a user gets it, plus dependency groups."""
    wanted = [req for group in groups for req in nox.project.dependency_groups(PYPROJECT, group)]
    session.install(f".[{','.join(extras)}]" if extras else ".", *wanted)
