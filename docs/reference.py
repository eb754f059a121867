"""Write the reference pages from the code: what it says cannot grow stale."""

import sys
import types
import typing
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import attrs
import trio

from ewms.pilot.settings import PilotSettings
from ewms.secret import Secret
from ewms.settings import AtLeast, variables
from ewms.tms.metrics import Metrics
from ewms.tms.settings import Settings as TMSSettings

PAGES = {
    "tms-settings": ("The TMS's settings", TMSSettings),
    "pilot-settings": ("The pilot's settings", PilotSettings),
}


def write_reference(directory: Path) -> None:
    """One page for each settings class, and one for the metrics."""
    directory.mkdir(exist_ok=True)
    for name, (title, cls) in PAGES.items():
        (directory / f"{name}.md").write_text(page(title, cls))
    (directory / "tms-metrics.md").write_text(trio.run(metrics_page))


async def metrics_page() -> str:
    """A table with every metric of the TMS."""
    lines = [
        "# The TMS's metrics",
        "",
        "`/metrics` at `TMS_METRICS_PORT` tells them, and what every process tells of itself (`process_…`). No label",
        "holds a taskforce's UUID: `/taskforces` and `ewms top` are about single ones.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    for family in sorted(Metrics().families, key=lambda family: family.name):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.text} |")
    return "\n".join(lines) + "\n"


def page(title: str, cls: type) -> str:
    """A table with every variable of a settings class."""
    attrs.resolve_types(cls, include_extras=True)  # type: ignore[type-var]
    lines = [
        f"# {title}",
        "",
        "All are environment variables, read once at the start. Every bad value is told at once.",
        "",
        "| variable | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for field, var in variables(cls):
        names = ", ".join(f"`{name}`" for name in (var.name, *var.aliases))
        meaning = var.help.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {names} | {type_name(field.type)} | {default_text(field.default)} | {meaning} |")
    return "\n".join(lines) + "\n"


def type_name(kind: Any) -> str:
    """A type in an operator's words."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        bounds = [f" ≥ {note.minimum:g}" for note in notes if isinstance(note, AtLeast)]
        return type_name(inner) + "".join(bounds)
    if get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(type_name(arg) for arg in get_args(kind) if arg is not type(None))
    if get_origin(kind) is typing.Literal:
        return " \\| ".join(f"`{arg}`" for arg in get_args(kind))
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
        return f"`{'; '.join(map(str, default)).replace(sys.executable, 'python')}`"
    return "`" + str(default).replace("|", "\\|") + "`"
