"""Structured logging for both services: text for people, JSON for collectors; secrets never pass.

Modules log through `structlog.get_logger()` with short, constant event texts and the facts as keys
(`log.info("taskforce confirmed", taskforce=uuid, cluster=id)`). What third-party libraries send to the standard
library's logging ends in the same stream, at its own level.
"""

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import IO, Any, Final, Literal

import structlog

from ewms.secret import redact

LogFormat = Literal["text", "json"]
Observer = Callable[[str, str], None]
"""Is told the level and the event text of each of our own log lines."""
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def configure(
    level: str = "INFO",
    third_party_level: str = "WARNING",
    form: LogFormat = "text",
    stream: IO[str] | None = None,
) -> None:
    """Set up logging for this process; call it once, at the edge."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_values,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            _tell_observers,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            renderer,
            _redact_line,
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(third_party_level)
    logging.getLogger("ewms").setLevel(level)


_observers: Final[list[Observer]] = []


@contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """While this lasts, `observer` hears of every line that is logged."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def _tell_observers(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for observer in _observers:
        observer(method, str(event.get("event")))
    return event


def redact_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: no registered secret in any value."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def _redact_line(_logger: Any, _method: str, line: Any) -> Any:
    # The last guard: values that only became text while they were rendered.
    return redact(line) if isinstance(line, str) else line
