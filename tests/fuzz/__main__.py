"""`nox -s fuzz`: inputs made to break whatever takes bytes from outside; a finding is a small file.

Examples:
    nox -s fuzz                                   one minute for each target
    nox -s fuzz -- --minutes 10 --target log-damage
    nox -s fuzz -- --list                         the targets
    nox -s fuzz -- --minutes 0.03                 what CI does

A finding is saved in tests/fuzz/corpus/TARGET/ and shown with its traceback. It stays there when it is mended: a fast
test runs every target on every file of its corpus.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tests.fuzz.child import HAS_ATHERIS, REPORT
from tests.fuzz.target import CORPUS, Target
from tests.fuzz.targets import TARGETS
from tests.marked import put, table

_STARTING_S: Final = 600.0
"""For imports and first inputs, on a busy machine."""


def fuzz(target: Target, seconds: float) -> dict[str, Any]:
    """One target in a process of its own; its report, with what the process said if it ended otherwise."""
    with tempfile.TemporaryDirectory(prefix=f"ewms-fuzz-{target.name}-") as scratch:
        directory = Path(scratch)
        command = [sys.executable, "-m", "tests.fuzz.child", target.name, str(seconds), scratch]
        with (directory / "said").open("w+") as said:
            try:
                done = subprocess.run(command, stdout=said, stderr=said, timeout=seconds + _STARTING_S, check=False)
                end = f"the process ended with {done.returncode}" if done.returncode else ""
            except subprocess.TimeoutExpired:
                end = "it never came back from an input"
            said.seek(0)
            words = said.read()[-3000:]
        path = directory / REPORT
        empty = {"engine": "", "executions": 0, "seconds": 0.0, "cpu_s": 0.0, "found": {}}
        report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else empty
        if end:
            report["found"][end] = ["", words]
        for name, _ in report["found"].values():
            if name:
                kept = CORPUS / target.name / name
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes((directory / name).read_bytes())
        return report


def show(name: str, report: dict[str, Any]) -> None:
    """One line for a target, and each finding's traceback."""
    print(
        f"{name:<18} {report['executions']:>10} executions {report['seconds']:>7.1f} s "
        f"{report['cpu_s']:>7.1f} s of processor {len(report['found']):>3} findings   {report['engine']}",
        flush=True,
    )
    for kind, (file, trace) in report["found"].items():
        print(f"  {kind}: {file and CORPUS / name / file}\n{trace}", flush=True)


def publish(reports: Mapping[str, Mapping[str, Any]], command: str, page: Path) -> None:
    """Put a line for each target between the page's marks."""
    rows = [
        (
            f"`{name}`",
            TARGETS[name].what,
            f"{report['executions']:,}",
            f"{report['seconds']:,.0f}",
            str(len(report["found"])),
        )
        for name, report in reports.items()
    ]
    engines = ", ".join(sorted({report["engine"] for report in reports.values()}))
    text = table(("target", "what", "inputs", "s", "findings left"), rows)
    put(page, "fuzz", f"`{command}`, {engines}, {os.cpu_count()} cores that others used too:\n\n{text}")


def main(argv: Sequence[str]) -> int:
    """The command; 1 if something was found."""
    parser = argparse.ArgumentParser(
        prog="nox -s fuzz --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target (default: 1)")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at the same time")
    parser.add_argument("--docs", type=Path, help="put a table of the run into this page")
    parser.add_argument("--list", action="store_true", help="the targets, and end")
    options = parser.parse_args(argv)
    if options.list:
        for target in TARGETS.values():
            print(f"{target.name:<18} {target.what} ({len(target.corpus())} files in its corpus)")
        return 0
    if not HAS_ATHERIS:
        print("atheris is not installed here (dependency group fuzz): Hypothesis makes the inputs")
    chosen = [TARGETS[name] for name in options.target or TARGETS]
    reports: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for target, report in zip(chosen, pool.map(lambda each: fuzz(each, 60 * options.minutes), chosen), strict=True):
            show(target.name, report)
            reports[target.name] = report
    found = sum(len(report["found"]) for report in reports.values())
    if options.docs is not None:
        publish(reports, f"nox -s fuzz -- --minutes {options.minutes:g}", options.docs)
    executions = sum(report["executions"] for report in reports.values())
    cpu_s = sum(report["cpu_s"] for report in reports.values())
    print(f"{len(chosen)} targets, {executions} executions, {cpu_s:.1f} s of processor, {found} findings")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
