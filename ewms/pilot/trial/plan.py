"""What the author asked for → the environment of the pilot that tries it, and the events that it gets."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from ewms.pilot import events
from ewms.settings import SettingsError

INCOMING: Final = "events"
OUTGOING: Final = "outputs"
FAILED: Final = "failed"

_NOT_TAKEN_OVER: Final = ("EWMS_PILOT_QUEUE_", "EWMS_PILOT_HTCHIRP", "_CONDOR_")
_TASK_ENV: Final = "EWMS_PILOT_TASK_ENV_JSON"
_PLATFORM: Final = "_EWMS_PILOT_CONTAINER_PLATFORM"
_DIRECTORY_IMAGE: Final = "_EWMS_PILOT_APPTAINER_IMAGE_DIRECTORY_MUST_BE_PRESENT"

OF_A_TRIAL: Final[Mapping[str, str]] = {
    "EWMS_PILOT_KEEP_ALL_TASK_FILES": "true",
    "EWMS_PILOT_KEEP_FAILED_COUNT": "1000000",
    "EWMS_PILOT_KEEP_FAILED_BYTES": str(10**15),
    # Each event is tried once, and a failure of one is no reason not to try the others.
    "EWMS_PILOT_MAX_FAILURES": "1",
    "EWMS_PILOT_STOP_LISTENING_ON_TASK_ERROR": "false",
    "EWMS_PILOT_QUARANTINE_TIME": "0",
    "EWMS_PILOT_TIMEOUT_QUEUE_INCOMING": "1",
    "EWMS_PILOT_TIMEOUT_QUEUE_WAIT_FOR_FIRST_MESSAGE": "1",
    "EWMS_PILOT_STOP_GRACE": "0",
}
"""What the trial's pilot does otherwise than one in production."""


@attrs.frozen(kw_only=True)
class Plan:
    """The options of `ewms pilot try`; None leaves a setting to the environment, and so to its default."""

    image: str
    args: str | None = None
    env: Mapping[str, str] = attrs.field(factory=dict)
    timeout: float | None = None
    init_image: str | None = None
    init_args: str | None = None
    infile_ext: str | None = None
    outfile_ext: str | None = None
    platform: str | None = None

    @property
    def variables(self) -> dict[str, str | None]:
        """The pilot's variables that the options stand for."""
        return {
            "EWMS_PILOT_TASK_IMAGE": self.image,
            "EWMS_PILOT_TASK_ARGS": self.args,
            "EWMS_PILOT_TASK_TIMEOUT": None if self.timeout is None else f"{self.timeout:g}",
            "EWMS_PILOT_INIT_IMAGE": self.init_image,
            "EWMS_PILOT_INIT_ARGS": self.init_args,
            "EWMS_PILOT_INFILE_EXT": self.infile_ext,
            "EWMS_PILOT_OUTFILE_EXT": self.outfile_ext,
            _PLATFORM: self.platform,
        }


def environ_of(plan: Plan, environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    """The environment of a pilot for `plan` in `directory`, before `OF_A_TRIAL`: the author's own, and the options.

    Raises:
        SettingsError: `--env` cannot be put into the author's own `EWMS_PILOT_TASK_ENV_JSON`.
    """
    found = {name: text for name, text in environ.items() if not name.startswith(_NOT_TAKEN_OVER)}
    found.setdefault(_PLATFORM, "auto")
    # A trial may convert images; where a pilot must not, it is said.
    found.setdefault(_DIRECTORY_IMAGE, "false")
    found |= {name: text for name, text in plan.variables.items() if text is not None}
    if plan.env:
        found[_TASK_ENV] = _with(plan.env, found.get(_TASK_ENV, ""))
    for direction, queue in (("INCOMING", INCOMING), ("OUTGOING", OUTGOING), ("DEADLETTER", FAILED)):
        found[f"EWMS_PILOT_QUEUE_{direction}"] = queue
        found[f"EWMS_PILOT_QUEUE_{direction}_BROKER_TYPE"] = "local"
        found[f"EWMS_PILOT_QUEUE_{direction}_BROKER_ADDRESS"] = str(queues(directory))
    return found | {"EWMS_PILOT_DATA_DIR_PARENT_PATH_ON_HOST": str(directory)}


def missing_images(plan: Plan, environ: Mapping[str, str]) -> list[str]:
    """A line for each image that is a path to nothing; `environ` is that of `environ_of`."""
    images = {"--image": plan.image, "--init-image": plan.init_image or ""}
    if environ[_PLATFORM] == "process":
        return []
    return [
        f"{option} {image}: No such file or directory"
        for option, image in images.items()
        if image.startswith(("/", "./", "../")) and not Path(image).exists()
    ]


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping.

    Raises:
        SettingsError: with a line for each text that is not one.
    """
    problems = [f"--env {text}: is not allowed: use NAME=VALUE" for text in texts if "=" not in text]
    if problems:
        raise SettingsError(problems)
    return dict(text.split("=", 1) for text in texts)


def queues(directory: Path) -> Path:
    """Where the embedded broker lives."""
    return directory / "queues"


def _with(env: Mapping[str, str], text: str) -> str:
    try:
        values = json.loads(text or "{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise SettingsError([f"{_TASK_ENV}: the value (not shown) is not allowed: use a JSON object"])
    return json.dumps({**values, **env})


@attrs.frozen
class TriedEvent:
    """One event of a trial."""

    number: int
    path: Path
    data: Any = attrs.field(repr=False)

    @property
    def event_id(self) -> str:
        """In the event's headers; the names of its task's directories begin with it."""
        return f"event-{self.number}"

    @property
    def body(self) -> bytes:
        """The message."""
        return events.encode(self.data, {events.EVENT_ID: self.event_id})


def read_events(paths: Sequence[Path]) -> list[TriedEvent]:
    """Each file as an event: JSON where it is called `.json`, else text, else bytes.

    Raises:
        SettingsError: with a line for each file that cannot be read, or is no JSON.
    """
    found, problems = [], []
    for number, path in enumerate(paths, start=1):
        try:
            found.append(TriedEvent(number, path, events.outfile_data(path.read_bytes(), path.suffix)))
        except OSError as error:
            problems.append(f"--event {path}: {error.strerror}")
        except events.EventError:
            problems.append(f"--event {path}: is not valid JSON; give it another extension if it is meant as text")
    if problems:
        raise SettingsError(problems)
    return found


def described(data: Any) -> str:
    """What kind of event data it is, and how much, for people."""
    if isinstance(data, bytes):
        return f"{len(data)} bytes, not text"
    if isinstance(data, str):
        return f"text, {len(data.encode(errors='replace'))} bytes"
    return f"JSON, {len(json.dumps(data))} bytes"
