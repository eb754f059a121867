"""A submit description → the ads of its cluster and procs (pure), by HTCondor's rules as far as EWMS meets them.

A plain command that is not in the table only defines a macro, as in HTCondor, where a misspelt command is no error.
"""

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import attrs
import classad2

from ewms.testing.schedd import words
from ewms.testing.schedd.macros import MacroError, expand

AdValues = dict[str, Any]
"""Attribute → plain value or `classad2.ExprTree`."""


class SubmitRefused(Exception):
    """The description is wrong; the text is close to HTCondor's own."""


# --- the kinds of values ---


def expression(attribute: str, text: str) -> Any:
    """A ClassAd expression."""
    try:
        return classad2.ExprTree(text)
    except classad2.ClassAdException:
        raise SubmitRefused(f"Parse error in expression: \n\t{attribute} = {text}\n") from None


def _text(_attribute: str, text: str) -> str:
    return text


def _boolean(attribute: str, text: str) -> bool:
    value = expression(attribute, text).eval()
    if not isinstance(value, bool):
        raise SubmitRefused(f"{attribute}={text} is invalid, must eval to a boolean.")
    return value


def _integer(attribute: str, text: str) -> int:
    value = expression(attribute, text).eval()
    if type(value) not in (int, float):
        raise SubmitRefused(f"{attribute}={text} is invalid, must eval to an integer.")
    return int(value)


def size(text: str, unit: int) -> int | None:
    """A size such as `512M` or `1 GB` in units of `unit` bytes, rounded up; None when it is none. Bare: in units."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+) *(?:([KMGT])B?)?", text.strip(), re.IGNORECASE)
    if match is None:
        return None
    factor = unit if match[2] is None else 1024 ** ("KMGT".index(match[2].upper()) + 1)
    return -int(-float(match[1]) * factor // unit)


def _sized(unit: int) -> Callable[[str, str], Any]:
    def parse(attribute: str, text: str) -> Any:
        number = size(text, unit)
        return expression(attribute, text) if number is None else number

    return parse


def _arguments(_attribute: str, text: str) -> str:
    words.arguments(text)
    return text


def _environment(_attribute: str, text: str) -> str:
    words.variables(text)
    return text


_COMMANDS: Final[Mapping[str, tuple[str, Callable[[str, str], Any]]]] = {
    "allowed_execute_duration": ("AllowedExecuteDuration", expression),
    "allowed_job_duration": ("AllowedJobDuration", expression),
    "arguments": ("Args", _arguments),
    "batch_name": ("JobBatchName", _text),
    "container_image": ("ContainerImage", _text),
    "environment": ("Environment", _environment),
    "env": ("Environment", _environment),
    "error": ("Err", _text),
    "executable": ("Cmd", _text),
    "initialdir": ("Iwd", _text),
    "job_ad_information_attrs": ("JobAdInformationAttrs", _text),
    "job_max_vacate_time": ("JobMaxVacateTime", expression),
    "job_machine_attrs": ("JobMachineAttrs", _text),
    "leave_in_queue": ("LeaveJobInQueue", expression),
    "log": ("UserLog", _text),
    "max_retries": ("JobMaxRetries", _integer),
    "on_exit_hold": ("OnExitHold", expression),
    "on_exit_hold_reason": ("OnExitHoldReason", expression),
    "on_exit_hold_subcode": ("OnExitHoldSubCode", expression),
    "on_exit_remove": ("OnExitRemove", expression),
    "output": ("Out", _text),
    "periodic_hold": ("PeriodicHold", expression),
    "periodic_hold_reason": ("PeriodicHoldReason", expression),
    "periodic_hold_subcode": ("PeriodicHoldSubCode", expression),
    "periodic_release": ("PeriodicRelease", expression),
    "periodic_remove": ("PeriodicRemove", expression),
    "priority": ("JobPrio", _integer),
    "request_cpus": ("RequestCpus", expression),
    "request_disk": ("RequestDisk", _sized(1024)),
    "request_memory": ("RequestMemory", _sized(1024 * 1024)),
    "requirements": ("Requirements", expression),
    "should_transfer_files": ("ShouldTransferFiles", _text),
    "submit_event_notes": ("SubmitEventNotes", _text),
    "submit_event_notes_attrs": ("SubmitEventNotesAttrs", _text),
    "submit_event_user_notes": ("SubmitEventUserNotes", _text),
    "transfer_container": ("TransferContainer", _boolean),
    "transfer_executable": ("TransferExecutable", _boolean),
    "transfer_input_files": ("TransferInput", _text),
    "transfer_output_files": ("TransferOutput", _text),
    "when_to_transfer_output": ("WhenToTransferOutput", _text),
}

_DEFAULTS: Final[Mapping[str, Any]] = {
    "JobPrio": 0,
    "OnExitHold": False,
    "OnExitRemove": True,
    "PeriodicHold": False,
    "PeriodicRelease": False,
    "PeriodicRemove": False,
    "LeaveJobInQueue": False,
    "RequestCpus": 1,
    "RequestDisk": 1024,
    "RequestMemory": 128,
    "Requirements": True,
    "TransferExecutable": True,
    "WantIOProxy": False,
}
_FACTORY_LIMITS: Final = ("max_idle", "max_materialize")


@attrs.frozen
class Description:
    """A submit description with its `count`, checked by making its first proc."""

    commands: Mapping[str, str]
    """Lower-case command, or `+Attribute` → text with macros."""
    count: int
    environ: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @cached_property
    def factory_limits(self) -> tuple[int | None, int | None]:
        """`max_idle` and `max_materialize`; None for what is not set."""
        texts = [(name, self.commands.get(name)) for name in _FACTORY_LIMITS]
        idle, present = (text and _integer(name, expand(text, self.commands, self.environ)) for name, text in texts)
        return idle or None, present or None

    @property
    def is_factory(self) -> bool:
        """Whether the procs are materialized late."""
        return any(name in self.commands for name in _FACTORY_LIMITS)

    def values(self, cluster: int, proc: int) -> AdValues:
        """The attributes that the description gives to one proc; raises `SubmitRefused`."""
        ids = {"cluster": cluster, "clusterid": cluster, "proc": proc, "process": proc, "procid": proc}
        macros = {**self.commands, **{name: str(number) for name, number in ids.items()}}
        found: AdValues = dict(_DEFAULTS)
        for command, raw in self.commands.items():
            try:
                text = expand(raw, macros, self.environ).strip()
                found |= _attribute(command, text)
            except (MacroError, words.WordsError) as error:
                raise SubmitRefused(str(error)) from error
        if "JobMaxRetries" in found and "on_exit_remove" not in self.commands:
            retries = f"NumJobCompletions > {found['JobMaxRetries']} || ExitCode =?= 0"
            found["OnExitRemove"] = classad2.ExprTree(retries)
        return found


def _attribute(command: str, text: str) -> AdValues:
    if custom := _CUSTOM.fullmatch(command):
        return {custom[1]: expression(custom[1], text)}
    if command not in _COMMANDS or text == "":
        return {}
    attribute, parse = _COMMANDS[command]
    return {attribute: parse(attribute, text)}


_CUSTOM: Final = re.compile(r"(?:\+|(?i:MY)\.)(\w+)")


def read(submit: Mapping[str, Any], count: int, cluster: int, environ: Mapping[str, str]) -> Description:
    """Check a description (its first proc is made with the id `cluster`); raises `SubmitRefused`."""
    commands = {key if _CUSTOM.fullmatch(key) else key.lower(): str(value) for key, value in submit.items()}
    for key, value in commands.items():
        if re.search(r"[\r\n\0]", value) or value.endswith("\\"):
            raise SubmitRefused(f"parse_up_to_q_line() failed: {key}")
    description = Description(commands, count, environ)
    try:
        _check_universe(commands)
        values = description.values(cluster, 0)
        _ = description.factory_limits
        _check_directory(values.get("Iwd", "/"))
    except SubmitRefused as error:
        late = " (late materialization)" if description.is_factory else ""
        raise SubmitRefused(f"Failed to create job ad{late}, errmsg=Submit:-1:{error}") from error
    return description


def _check_directory(path: str) -> None:
    if not Path(path).is_dir():
        raise SubmitRefused(f"No such directory: {path}")


def _check_universe(commands: Mapping[str, str]) -> None:
    universe = commands.get("universe", "vanilla").lower()
    if universe not in ("container", "vanilla"):
        raise SubmitRefused(f"I don't know about the '{universe}' universe.")
    if universe == "container" and "container_image" not in commands:
        raise SubmitRefused("container jobs require a container_image or docker_image")
    if universe == "vanilla" and "executable" not in commands:
        raise SubmitRefused("No 'executable' parameter was provided")
