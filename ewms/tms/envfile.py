"""The file of `export` lines that every pilot of a taskforce gets: its text, from the order and the settings (pure).

It holds queue tokens: whoever writes it does so with mode 0600 from the first byte on, and nothing in it is logged.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from ewms.contract import PILOT_ENV_PREFIXES
from ewms.tms.errors import OrderRefused
from ewms.wms.models import EnvironmentValue, MQProfile, StartOrder

_CONSTANTS: Final = {"EWMS_PILOT_HTCHIRP": "True", "EWMS_PILOT_HTCHIRP_DEST": "JOB_EVENT_LOG"}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = "# The environment of every pilot of this taskforce. It holds queue tokens: do not share it.\n"


@attrs.frozen
class PilotVariables:
    """The operator's own variables for every pilot; `dropped` are those that are not for a pilot, or no pairs."""

    passed_on: Mapping[str, str]
    dropped: tuple[str, ...]


def parse_pilot_variables(text: str) -> PilotVariables:
    """`TMS_ENV_VARS_AND_VALS_ADD_TO_PILOT`: `NAME=VALUE` pairs separated by blanks."""
    passed_on: dict[str, str] = {}
    dropped: list[str] = []
    for word in text.split():
        name, equals, value = word.partition("=")
        if equals and name.startswith(PILOT_ENV_PREFIXES) and _NAME.fullmatch(name):
            passed_on[name] = value
        else:
            dropped.append(name)  # never the value: it may be a secret
    return PilotVariables(passed_on, tuple(dropped))


def environment(order: StartOrder, operators: Mapping[str, str]) -> dict[str, str]:
    """The pilot's environment: constants < the operator's < `pilot_config.environment` < what the directive says."""
    directive = order.task_directive
    profiles = {profile.mqid: profile for profile in order.mqprofiles}
    sent = {name: _as_text(value) for name, value in order.taskforce.pilot_config.environment.items()}
    merged = {
        **_CONSTANTS,
        **operators,
        **sent,
        "EWMS_PILOT_TASK_IMAGE": directive.task_image,
        "EWMS_PILOT_TASK_ARGS": directive.task_args,
        **_json_variable("EWMS_PILOT_TASK_ENV_JSON", directive.task_env),
        **_queue_variables("INCOMING", directive.input_queues, profiles),
        **_queue_variables("OUTGOING", directive.output_queues, profiles),
    }
    if directive.init_image:
        merged["EWMS_PILOT_INIT_IMAGE"] = directive.init_image
        merged["EWMS_PILOT_INIT_ARGS"] = directive.init_args or ""
        merged |= _json_variable("EWMS_PILOT_INIT_ENV_JSON", directive.init_env)
    return merged


def envfile_text(variables: Mapping[str, str]) -> str:
    """A POSIX shell file that exports exactly `variables`, new-lines in values turned into spaces.

    Raises `OrderRefused` for a name that is none, and for a value that cannot be in an environment.
    """
    return _HEADER + "".join(
        f"export {_checked_name(name)}={_quoted(name, variables[name])}\n" for name in sorted(variables)
    )


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise OrderRefused(f"pilot_config.environment: {name!r} is not a variable's name")
    return name


def _quoted(name: str, value: str) -> str:
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise OrderRefused(f"{name}: its value has a character that cannot be in an environment")
    return shlex.quote(value.replace("\n", " "))


def _as_text(value: EnvironmentValue) -> str:
    return str(value) if isinstance(value, str | int) else ";".join(value)


def _json_variable(name: str, value: Mapping[str, str]) -> dict[str, str]:
    return {name: json.dumps(dict(value))} if value else {}


def _queue_variables(direction: str, mqids: Iterable[str], profiles: Mapping[str, MQProfile]) -> dict[str, str]:
    """The four lists of one direction, in step and in the directive's order; none where there is no queue."""
    queues = [_profile(mqid, profiles) for mqid in mqids]
    if not queues:
        return {}
    prefix = f"EWMS_PILOT_QUEUE_{direction}"
    return {
        prefix: _joined(prefix, [queue.mqid for queue in queues]),
        f"{prefix}_AUTH_TOKEN": _joined(
            f"{prefix}_AUTH_TOKEN", [queue.auth_token.reveal() if queue.auth_token else "" for queue in queues]
        ),
        f"{prefix}_BROKER_TYPE": _joined(f"{prefix}_BROKER_TYPE", [queue.broker_type or "" for queue in queues]),
        f"{prefix}_BROKER_ADDRESS": _joined(
            f"{prefix}_BROKER_ADDRESS", [queue.broker_address or "" for queue in queues]
        ),
    }


def _profile(mqid: str, profiles: Mapping[str, MQProfile]) -> MQProfile:
    profile = profiles.get(mqid)
    if profile is None:
        raise OrderRefused(f"queue {mqid}: the task directive names it, but the order has no MQ profile for it")
    if not profile.broker_type or not profile.broker_address:
        raise OrderRefused(f"queue {mqid}: its MQ profile has no broker type or no broker address")
    return profile


def _joined(name: str, values: list[str]) -> str:
    if len(values) > 1 and any(";" in value for value in values):
        raise OrderRefused(f"{name}: a value has a ';', which separates the values of several queues")
    return ";".join(values)
