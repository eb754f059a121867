"""A trial's results as lines for people; pure."""

import json
import textwrap
from collections.abc import Iterable, Iterator

from ewms.pilot.resources import megabytes
from ewms.pilot.tally import last_line
from ewms.pilot.trial.advice import Case, advice
from ewms.pilot.trial.found import Found
from ewms.pilot.trial.plan import described
from ewms.pilot.trial.watch import Run

WIDTH = 100
_SHOWN_LINES = 25
_SHOWN_DATA = 1000
_INDENT = "    "


def event_lines(found: Found, total: int, platform: str) -> Iterator[str]:
    """All about one event."""
    event = found.event
    yield f"event {event.number} of {total}: {event.path} ({described(event.data)})"
    yield f"  {_verdict(found)}"
    if found.run is not None:
        yield f"  used    {_used(found.run)}"
    if found.error:
        yield f"  error   {last_line(found.error)}"
    if found.has_output:
        yield f"  output  {described(found.output)}:"
        yield from _block(shown(found.output))
    for name, text in (("stdout", found.stdout), ("stderr", found.stderr)):
        if text.strip():
            yield f"  {name}"
            yield from _block(text)
    for text in advice(case_of(found, platform)):
        yield from advice_lines(text)


def case_of(found: Found, platform: str) -> Case:
    """What advice is given on."""
    return Case(
        error=found.error,
        stderr=found.stderr,
        code=found.run.code if found.run else None,
        words=found.run.spec.args if found.run else (),
        has_output=found.has_output,
        platform=platform,
        other_files=found.other_files,
    )


def advice_lines(text: str) -> list[str]:
    """One advice."""
    return _wrapped(text, "  →  ")


def bullet_lines(texts: Iterable[str]) -> Iterator[str]:
    """A list."""
    for text in texts:
        yield from _wrapped(text, "  - ")


def _wrapped(text: str, first: str) -> list[str]:
    # A path stays whole: it is to be copied.
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
        break_long_words=False,
    )


def shown(data: object) -> str:
    """An output event's data, cut if need be."""
    if isinstance(data, bytes):
        return f"{data[:32].hex(' ')}{' …' if len(data) > 32 else ''}"
    text = data if isinstance(data, str) else json.dumps(data, indent=2, ensure_ascii=False)
    return text if len(text) <= _SHOWN_DATA else f"{text[:_SHOWN_DATA]} …"


def summary(found: list[Found]) -> str:
    """The last word."""
    done, sent = sum(each.done for each in found), sum(each.has_output for each in found)
    failed = sum(bool(each.error) for each in found)
    not_tried = len(found) - done - failed
    text = f"{done} of {len(found)} events succeeded, with {sent} output event(s)"
    if failed:
        text += f"; {failed} failed"
    if not_tried:
        text += f"; {not_tried} not tried to the end"
    return text


def _verdict(found: Found) -> str:
    if found.run is None:
        return "FAILED  before a container was started" if found.error else "NOT TRIED"
    took = f"{found.run.wall_s:.2f} s"
    if found.error:
        return f"FAILED  after {took}"
    if not found.run.started:
        return "NOT STARTED"
    if found.run.code is None:
        return f"STOPPED after {took}"
    return f"done    in {took}"


def _used(run: Run) -> str:
    usage = run.usage
    parts = [
        "" if usage.cpu_s is None else f"{usage.cpu_s:.2f} s of CPU",
        "" if usage.peak_memory is None else f"{megabytes(usage.peak_memory):.0f} MB of memory",
        f"{megabytes(run.scratch):.1f} MB of scratch",
    ]
    return ", ".join(filter(None, parts))


def _block(text: str) -> list[str]:
    lines = text.rstrip("\n").splitlines() or [""]
    left_out = len(lines) - _SHOWN_LINES
    kept = lines[-_SHOWN_LINES:]
    return [f"{_INDENT}{line}" for line in ([f"… ({left_out} lines more)"] if left_out > 0 else []) + kept]
