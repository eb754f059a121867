"""Write the reference pages from the code: what it says cannot grow stale."""

import ast
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin

import attrs
import trio

import ewms
from ewms.contract import MAX_CHIRP_BYTES, SUSPECT_MACHINE_EXIT_STATUSES, ChirpAttribute, PilotStatus
from ewms.pilot import events
from ewms.pilot.errors import ExitStatus
from ewms.pilot.settings import PilotSettings
from ewms.secret import Secret
from ewms.settings import AtLeast, Variable, variables
from ewms.tms.metrics import Metrics
from ewms.tms.overview import Overview, Row
from ewms.tms.settings import Settings as TMSSettings

PACKAGE = Path(ewms.__file__).parent

LOG_FIELDS: Final = {
    "taskforce": "its UUID",
    "cluster": "HTCondor's number of its cluster",
    "error": "what went wrong, in the words of who said it",
    "reason": "why, in the words that the WMS, HTCondor or its users get to see",
    "wait_s": "in how many seconds it is tried again",
    "log": "the name of a day log",
    "file": "a file or directory of the job directory, or a file that a setting names",
    "place": "a site or a host",
    "queue": "the name of a queue",
    "broker": "a broker's address, without credentials",
    "event_id": "the id of one event",
    "task": "the name of one run; where its files are kept, of their directory in `ewms-pilot-data`",
    "image": "an image, as the workflow names it",
}
"""The fields that many messages have; a test looks whether they do."""


def write_reference(directory: Path) -> None:
    """All pages."""
    directory.mkdir(exist_ok=True)
    for name, text in pages().items():
        (directory / f"{name}.md").write_text(text)


def pages() -> dict[str, str]:
    """The pages, by their names."""
    return {
        "tms-settings": settings_page("The TMS's settings", TMSSettings),
        "tms-metrics": trio.run(metrics_page),
        "tms-pages": status_pages_page(),
        "pilot-settings": settings_page("The pilot's settings", PilotSettings),
        "exit-statuses": exit_statuses_page(),
        "message-headers": headers_page(),
        "chirp-attributes": chirp_page(),
        "log-messages": logs_page(),
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; new-lines and bars in a cell are made harmless."""
    cells = [[cell.replace("\n", " ").replace("|", "\\|") for cell in row] for row in rows]
    lines = [list(head), ["---"] * len(head), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: object) -> str:
    """A text as code."""
    return f"`{text}`"


# --- settings ---


def settings_page(title: str, cls: type) -> str:
    """A table with every variable of a settings class."""
    attrs.resolve_types(cls, include_extras=True)
    rows = [
        (
            ", ".join(map(code, (var.name, *var.aliases))),
            type_name(field.type),
            default_text(field.default),
            meaning(var),
        )
        for field, var in variables(cls)
    ]
    return (
        f"# {title}\n\nAll are environment variables, read once at the start. Every bad value is told at once.\n\n"
        + table(("variable", "type", "default", "meaning"), rows)
    )


def meaning(var: Variable) -> str:
    """What it is for, and the names that it had."""
    return var.help + "".join(f" (deprecated, until {old.removed_in}: {code(old.name)})" for old in var.deprecated)


def type_name(kind: Any) -> str:
    """A type in an operator's words."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        bounds = [f" ≥ {note.minimum:g}" for note in notes if isinstance(note, AtLeast)]
        return type_name(inner) + "".join(bounds)
    if get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(type_name(arg) for arg in get_args(kind) if arg is not type(None))
    if get_origin(kind) is typing.Literal:
        return " | ".join(map(code, get_args(kind)))
    names = {Secret: "secret", dict: "JSON object", tuple: "list"}
    return names.get(get_origin(kind) or kind, getattr(kind, "__name__", str(kind)))


def default_text(default: Any) -> str:
    """A default as it would be written in an envfile."""
    if default is attrs.NOTHING:
        return "**required**"
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    if default in (None, (), {}, "", Secret("")):
        return "none"
    if isinstance(default, tuple):
        # A command's interpreter is this machine's; on another one it is another.
        return code("; ".join(map(str, default)).replace(sys.executable, "python"))
    return code(default)


# --- metrics ---


async def metrics_page() -> str:
    """A table with every metric of the TMS."""
    families = sorted(Metrics().families, key=lambda family: family.name)
    rows = [(code(each.name), each.kind, ", ".join(map(code, each.labels)), each.text) for each in families]
    return (
        "# The TMS's metrics\n\n"
        "`/metrics` at `TMS_METRICS_PORT` tells them, and what every process tells of itself (`process_…`). No label\n"
        "holds a taskforce's UUID: `/taskforces` and `ewms top` are about single ones.\n\n"
        + table(("metric", "kind", "labels", "meaning"), rows)
    )


# --- what is said in classes ---


def fields(cls: type) -> Iterator[tuple[str, str]]:
    """Each field of a class, and the text below it in the source."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    for node, after in itertools.pairwise([*tree.body, None]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said = after.value if isinstance(after, ast.Expr) else None
            yield node.target.id, " ".join(str(said.value).split()) if isinstance(said, ast.Constant) else ""


def status_pages_page() -> str:
    """Tables with what the TMS's status pages say."""
    health = (
        ("healthy", "true where it is ready and no part of it is stuck; the status is 200 then, and else 503"),
        ("ready", "whether the schedd has answered"),
        ("stuck", "parts that show no life, and for how many seconds"),
        ("status", "what it does now, as one line; `systemctl status` shows the same"),
    )
    return (
        "# The TMS's status pages\n\n"
        "At `TMS_METRICS_PORT` on 127.0.0.1, beside `/metrics` ([metrics](tms-metrics.md)). Both are JSON, without\n"
        "tokens; `ewms top` shows the second.\n\n## `/healthz`\n\n"
        + table(("key", "value"), [(code(name), text) for name, text in health])
        + "\n## `/taskforces`\n\n"
        + table(("key", "value"), [(code(name), text) for name, text in fields(Overview)])
        + "\nEach of `rows` is one taskforce, 100 at most:\n\n"
        + table(("key", "value"), [(code(name), text) for name, text in fields(Row)])
    )


def members(cls: type) -> Iterator[tuple[str, Any, str]]:
    """Each member of an enumeration: its name, its value, and the text below it in the source ("" if there is none)."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            said = after.value if isinstance(after, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) else ""
            yield name, cls[name].value, " ".join(str(text).split())  # type: ignore[index]


def exit_statuses_page() -> str:
    """A table with the pilot's exit statuses."""
    rows = [
        (str(value), code(name), meaning, "yes" if value in SUSPECT_MACHINE_EXIT_STATUSES else "")
        for name, value, meaning in members(ExitStatus)
    ]
    return (
        "# The pilot's exit statuses\n\n"
        "With a status that speaks against the machine a worker goes back to the queue and to another machine\n"
        "(`TMS_REQUEUE_EXIT_STATUSES`, `TMS_MAX_REQUEUES`), and its site's failures are counted.\n"
        "[Every error of a pilot](../pilot-errors.md) has the texts.\n\n"
        + table(("status", "name", "meaning", "speaks against the machine"), rows)
    )


def chirp_page() -> str:
    """Tables with what a pilot tells through chirp."""
    attributes = [(code(value), meaning) for _, value, meaning in members(ChirpAttribute)]
    statuses = [(code(value), meaning) for _, value, meaning in members(PilotStatus)]
    return (
        "# What a pilot chirps\n\n"
        'Each attribute is one line `NAME: "value"` of a generic event (number 008) in the job event log, the\n'
        "value quoted as a ClassAd string; with `EWMS_PILOT_HTCHIRP_DEST=JOB_ATTR` it is an attribute of the job.\n"
        f"A line has at most {MAX_CHIRP_BYTES} bytes, in ASCII. All values are absolute, so repeats are harmless.\n\n"
        + table(("attribute", "value"), attributes)
        + "\n## The pilot's statuses\n\nIn the order in which a pilot goes through them.\n\n"
        + table(("status", "the pilot"), statuses)
    )


def headers_page() -> str:
    """The table of headers in the module that writes and reads them."""
    lines = inspect.cleandoc(events.__doc__ or "").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return (
        "# The headers of an event\n\n"
        'A message is what `oms-mqclient` 2 writes and reads: zstd-compressed JSON `{"headers": {…}, "data": …}`.\n'
        "Producers may set `ewms-event-id`; all of these are optional, and others are handed on as they are.\n\n"
        + "\n".join(rows)
        + "\n\n## Where an id came from\n\n"
        + table(
            ("source", "who gave the id"), [(code(value), meaning) for _, value, meaning in members(events.IdSource)]
        )
    )


# --- logs ---


@attrs.frozen(order=True)
class Message:
    """One message of the logs."""

    text: str
    level: str
    fields: tuple[str, ...]


def messages(packages: Sequence[str]) -> list[Message]:
    """Every message that some packages log through `log.LEVEL("text", field=…)`, or through a helper of theirs."""
    fields: dict[tuple[str, str], set[str]] = {}
    for _, call in log_calls(packages):
        text = _text(call)
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            known = fields.setdefault((text.value, _level(call)), set())
            known.update(each.arg for each in call.keywords if each.arg not in (None, "exc_info"))
    return sorted(Message(text, level, tuple(sorted(known))) for (text, level), known in fields.items())


def log_calls(packages: Sequence[str]) -> Iterator[tuple[Path, ast.Call]]:
    """Every call that logs something, and its file; those of `ewms pilot try` are not a service's."""
    for package in packages:
        for path in sorted((PACKAGE / package).rglob("*.py")):
            if "trial" not in path.parts:
                nodes = ast.walk(ast.parse(path.read_text()))
                yield from ((path, node) for node in nodes if isinstance(node, ast.Call) and _level(node))


_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_HELPERS: Final = {"say": "warning", "gone": "info", "_persist": "warning"}
"""Functions that log the text that they are given."""


def _level(call: ast.Call) -> str:
    """The level of what a call logs; "" if it does not."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    is_log = getattr(getattr(call.func, "value", None), "id", "") == "log"
    if is_log and name in _LEVELS:
        return name
    return _HELPERS.get(name, "") if isinstance(_text(call), ast.Constant) else ""


def _text(call: ast.Call) -> ast.expr | None:
    """The first constant text; without one, whatever comes first."""
    return next((each for each in call.args if isinstance(each, ast.Constant)), call.args[0] if call.args else None)


def logs_page() -> str:
    """Tables with every message of both services."""
    text = (
        "# What the services log\n\n"
        "Texts are constant, and what differs stands in fields: search for the text, filter by the fields. With\n"
        "`TMS_LOG_FORMAT=json` each line is an object with `event` (the text), `level`, `logger`, `timestamp` (UTC),\n"
        "and the fields. What the TMS logs while it carries out a start or a stop also has `workflow`, the id of the\n"
        "taskforce's workflow. No secret is in any of them. [What to do](../messages.md) about those that need\n"
        "somebody, and [every error of a pilot](../pilot-errors.md), have pages of their own.\n\n"
    )
    text += table(("field", "what it is"), [(code(name), meaning) for name, meaning in LOG_FIELDS.items()])
    for title, packages in (("The TMS", ("tms", "wms")), ("The pilot", ("pilot",))):
        rows = [(each.text, each.level, ", ".join(map(code, each.fields))) for each in messages(packages)]
        text += f"\n## {title}\n\n" + table(("text", "level", "fields"), rows)
    return text
