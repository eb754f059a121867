"""What is wrong with a pilot's settings taken together, and the lists of queues in them; pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ewms.pilot.arguments import ArgumentsError, split
from ewms.pilot.brokers import check_address
from ewms.pilot.brokers.base import BrokerRefused, QueueAddress
from ewms.secret import Secret

LIST_SEPARATOR: Final = ";"
DIRECTIONS: Final = ("incoming", "outgoing", "deadletter")
_P: Final = "EWMS_PILOT_"
MOST_PREFETCHED: Final = 65_535
"""AMQP has 16 bits for it."""
_LONGEST_NAME: Final = 255
"""Bytes of a queue's name that a broker takes."""
_LONGEST_EXTENSION: Final = 50
_SIZE: Final = re.compile(r"(\d+(\.\d+)?\s?([kmgtp]i?)?b?)?", re.IGNORECASE)


def problems(values: Mapping[str, Any]) -> Iterator[str]:
    """One line for each problem; a setting that is wrong by itself is not in `values`."""
    for name in ("task_image", "queue_incoming"):
        if not values.get(name, "set").strip():
            yield f"{_P}{name.upper()}: is required but empty"
    for direction in DIRECTIONS:
        yield from _queue_problems(direction, values)
    if LIST_SEPARATOR in values.get("queue_deadletter", ""):
        yield f"{_P}QUEUE_DEADLETTER: {values['queue_deadletter']!r} is not allowed: use one queue"
    for kind in ("task", "init"):
        yield from _environment_problems(f"{_P}{kind.upper()}_ENV_JSON", values.get(f"{kind}_env_json", {}))
        yield from _argument_problems(f"{_P}{kind.upper()}_ARGS", values.get(f"{kind}_args", ""))
    yield from _file_and_number_problems(values)
    yield from _directory_problems(values)
    yield from _pattern_problems(values.get("okay_error_pattern", ""))
    if not _SIZE.fullmatch(values.get("docker_shm_size", "")):
        yield f"_EWMS_PILOT_DOCKER_SHM_SIZE: {values['docker_shm_size']!r} is not allowed: use a size such as 2g"
    if values.get("quarantine_time") and values.get("stop_listening_on_task_error") is False:
        yield (
            f"{_P}QUARANTINE_TIME: {values['quarantine_time']:g} is not allowed: it works only together with "
            f"{_P}STOP_LISTENING_ON_TASK_ERROR"
        )


def _file_and_number_problems(values: Mapping[str, Any]) -> Iterator[str]:
    for name in ("infile_ext", "outfile_ext"):
        if not _is_extension(values.get(name, "")):
            yield f"{_P}{name.upper()}: {values[name]!r} is not allowed: use a file extension such as .json"
    for name in ("prefetch", "max_concurrent_tasks"):
        if values.get(name, 1) > MOST_PREFETCHED:
            yield f"{_P}{name.upper()}: '{values[name]}' is not allowed: use at most {MOST_PREFETCHED}"


def queues(direction: str, values: Mapping[str, Any]) -> tuple[QueueAddress, ...]:
    """The queues of one direction, of settings that were checked."""
    return tuple(
        QueueAddress(queue, broker_type.lower(), address, Secret(token))
        for queue, broker_type, address, token in zip(*_columns(direction, values).values(), strict=True)
    )


def _columns(direction: str, values: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The four lists of one direction, the ones that were left at their defaults as long as the list of queues."""
    field = f"queue_{direction}"
    queues = _split(values[field])
    token = values[f"{field}_auth_token"].reveal()
    columns: dict[str, Sequence[str]] = {field: queues}
    for name, text, default in (
        (f"{field}_broker_type", values[f"{field}_broker_type"], "rabbitmq"),
        (f"{field}_broker_address", values[f"{field}_broker_address"], "localhost"),
        (f"{field}_auth_token", token, ""),
    ):
        columns[name] = [default] * len(queues) if text == default else _split(text)
    return columns


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(LIST_SEPARATOR)] if text.strip() else []


def _queue_problems(direction: str, values: Mapping[str, Any]) -> Iterator[str]:
    field = f"queue_{direction}"
    if field not in values:
        return
    columns = _columns(direction, values)
    queues = columns[field]
    if any(not queue for queue in queues):
        yield f"{_P}{field.upper()}: {values[field]!r} is not allowed: one of its queues has no name"
    for queue in queues:
        if not queue.isprintable() or len(queue.encode()) > _LONGEST_NAME:
            yield (
                f"{_P}{field.upper()}: {queue!r} is not allowed: a queue's name has at most {_LONGEST_NAME} bytes, and "
                "no control characters"
            )
    for name, column in columns.items():
        if len(column) != len(queues):
            yield (
                f"{_P}{name.upper()}: has {len(column)} entries separated by `;`, but {_P}{field.upper()} has "
                f"{len(queues)}: use one for each queue"
            )
    if len({*map(len, columns.values())}) == 1:
        yield from _address_problems(direction, values)


def _address_problems(direction: str, values: Mapping[str, Any]) -> Iterator[str]:
    told = set()
    for each in queues(direction, values):
        try:
            check_address(each.broker_type, each.broker_address, each.auth_token)
        except BrokerRefused as error:
            column = "BROKER_TYPE" if str(error).startswith("unknown") else "BROKER_ADDRESS"
            told.add(f"{_P}QUEUE_{direction.upper()}_{column}: {error}")
    yield from sorted(told)


def _is_extension(text: str) -> bool:
    return len(text) <= _LONGEST_EXTENSION and text.isprintable() and not set(text) & set("/ ")


def _environment_problems(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if not key or "=" in key or "\0" in key:
            yield f"{name}: the name {key!r} is not allowed: use names without `=`"
        elif isinstance(value, bool) or not isinstance(value, str | int):
            yield f"{name}: the value of {key} is not allowed: use a string or an integer"
        elif isinstance(value, str) and not _fits_an_environment(value):
            yield f"{name}: the value of {key} is not allowed: it holds a NUL or a lone surrogate"


def _fits_an_environment(value: str) -> bool:
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _argument_problems(name: str, text: str) -> Iterator[str]:
    try:
        split(text)
    except ArgumentsError as error:
        yield f"{name}: {text!r} is not allowed: {error}"


def _pattern_problems(pattern: str) -> Iterator[str]:
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"{_P}OKAY_ERROR_PATTERN: {pattern!r} is not allowed: {error}"


def _directory_problems(values: Mapping[str, Any]) -> Iterator[str]:
    for word in values.get("external_directories", "").split(","):
        if word.strip() and not Path(word.strip()).is_absolute():
            yield f"{_P}EXTERNAL_DIRECTORIES: {word.strip()!r} is not allowed: use absolute paths"
