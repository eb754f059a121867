"""One target for some time, in a process of its own: `python -m tests.fuzz.child TARGET SECONDS DIRECTORY`.

Its last act is a JSON file in DIRECTORY: which engine, how many inputs, what was found. With atheris the inputs follow
what they reach in the code; without it Hypothesis makes them. Findings of one kind are one: the shortest input is kept.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import structlog

from tests.fuzz.target import Target, file_name, limited, signature

HAS_ATHERIS: Final = find_spec("atheris") is not None
REPORT: Final = "report.json"
_LONGEST: Final = 4096
_SAVED_EVERY_S: Final = 5.0


@attrs.define
class Run:
    """One target's run."""

    target: Target
    seconds: float
    directory: Path
    engine: str
    executions: int = 0
    found: dict[str, tuple[bytes, str]] = attrs.field(factory=dict)
    """By their signatures: input and traceback."""
    _began: float = attrs.field(factory=time.monotonic)
    _saved: float = 0.0

    def once(self, data: bytes) -> None:
        """One input; ends the process when the time is over."""
        self.executions += 1
        try:
            with limited():
                self.target.run(data)
        except Exception as error:  # noqa: BLE001  whatever it is, it is a finding
            self._note(data, error)
        spent = time.monotonic() - self._began
        if spent >= self.seconds:
            self.end()
        if spent - self._saved > _SAVED_EVERY_S:
            self._saved = spent
            self.save()

    def _note(self, data: bytes, error: Exception) -> None:
        kind = signature(error)
        if kind not in self.found or len(data) < len(self.found[kind][0]):
            self.found[kind] = data, "".join(traceback.format_exception(error))
            (self.directory / file_name(data)).write_bytes(data)

    def save(self) -> None:
        """Write the report."""
        report: dict[str, Any] = {
            "engine": self.engine,
            "executions": self.executions,
            "seconds": time.monotonic() - self._began,
            "cpu_s": sum(os.times()[:4]),  # with that of the shells that a target runs
            "found": {kind: [file_name(data), trace] for kind, (data, trace) in self.found.items()},
        }
        new = self.directory / f"{REPORT}.new"
        new.write_text(json.dumps(report))
        new.replace(self.directory / REPORT)

    def end(self) -> NoReturn:
        """Write the report and end: libFuzzer would print pages, and knows no other way out."""
        self.save()
        os._exit(0)


def with_atheris(run: Run, grown: Path) -> None:
    """Let libFuzzer make the inputs, from the target's own ones; what reaches further is kept in `grown`."""
    import atheris

    for data in run.target.inputs():
        (grown / file_name(data)).write_bytes(data)
    # Its own limit is of real time, and would find whatever a busy machine does not get to.
    limits = [f"-max_len={_LONGEST}", "-rss_limit_mb=4096", "-timeout=100000"]
    places = [f"-artifact_prefix={run.directory}/", str(grown)]
    atheris.Setup([sys.argv[0], "-verbosity=0", *limits, *places], run.once)
    atheris.Fuzz()


def with_hypothesis(run: Run) -> None:
    """Let Hypothesis make the inputs: any bytes, and the target's own ones with changes."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    inputs = list(run.target.inputs())

    @st.composite
    def changed(draw: Callable[[Any], Any]) -> bytes:
        data: bytes = draw(st.sampled_from(inputs))
        begin = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 8))
        new: bytes = draw(st.binary(max_size=8))
        return data[:begin] + new + data[begin + length :]

    @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=200), changed()))
    def one(data: bytes) -> None:
        run.once(data)

    for data in inputs:
        run.once(data)
    while True:
        one()


def _silence(_logger: object, _method: str, _event: structlog.types.EventDict) -> NoReturn:
    raise structlog.DropEvent


def main(name: str, seconds: str, directory: str) -> None:
    """See above."""
    structlog.configure(processors=[_silence])  # errors are told for half the inputs
    if HAS_ATHERIS:
        import atheris

        with atheris.instrument_imports(include=["ewms"], enable_loader_override=False):
            from tests.fuzz.targets import TARGETS
    else:
        from tests.fuzz.targets import TARGETS
    run = Run(TARGETS[name], float(seconds), Path(directory), "atheris" if HAS_ATHERIS else "Hypothesis")
    if HAS_ATHERIS:
        grown = Path(directory, "grown")
        grown.mkdir()
        with_atheris(run, grown)
    else:
        with_hypothesis(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
