"""The settings of the TMS: names and meaning as operators' envfiles have them today, new ones under `TMS_`."""

import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import attrs

from ewms.contract import PILOT_ENV_PREFIXES, SUSPECT_MACHINE_EXIT_STATUSES
from ewms.logs import LEVELS, LogFormat
from ewms.secret import Secret
from ewms.settings import AtLeast, TextForm, load, names_without_effect, variable
from ewms.tms.errors import OrderRefused
from ewms.tms.policy import HELD_BY_SOMEBODY, Policy
from ewms.tms.submit_language import checked

_BASE_REQUIREMENTS: Final = (
    "ifthenelse(!isUndefined(HAS_SINGULARITY), HAS_SINGULARITY, HasSingularity)"
    " && HAS_CVMFS_icecube_opensciencegrid_org"
    " && HasUserNamespaces =?= true"
)
_EXCLUDED_GLIDEIN_SITES: Final = (
    "AMNH",
    "Kansas State University",
    "NotreDame",
    "Rhodes-HPC",
    "SDSC-PRP",
    "SU-ITS",
    "San Diego Supercomputer Center",
)
_EXCLUDED_OSG_SITES: Final = ("Wichita State University",)
_CVMFS_PILOT_PATH: Final = (
    "/cvmfs/icecube.opensciencegrid.org/containers/ewms/observation-management-service/ewms-pilot"
)
_KILLED: Final = 137
"""A container whose pilot got SIGKILL: the machine was short of memory, or somebody's hand."""
_APPTAINER_FAILED: Final = 255
"""The exit status of Apptainer itself: there was no pilot."""
_PASSING_HOLD_CODES: Final = (6, 7, 9, 10, 11, 12, 13, 14, 18, 19, 21, 22, 23, 34, 35, 45, 48)
"""Holds whose cause may pass, or be another one on another machine: transfers, images, file systems, memory."""
_DAY: Final = 86400.0
_PREFIXES: Final = ("TMS_", "JOB_EVENT_LOG_", "TASKFORCE_DIRS_", "CVMFS_PILOT_")
"""What only settings of the TMS begin with; a misspelt one among the others is missed, because it is required."""
_AUTH_HELP: Final = {
    "EWMS_TOKEN_URL": "the OpenID issuer, e.g. https://host/auth/realms/NAME",
    "EWMS_CLIENT_ID": "the OAuth2 client of this TMS",
    "EWMS_CLIENT_SECRET": "its secret",
}


def plain(text: str) -> str:
    """A text that means only itself in a submit description."""
    try:
        return checked("here", text)
    except OrderRefused as error:
        raise ValueError(str(error).removeprefix("here: ")) from None


def split_names(text: str) -> tuple[str, ...]:
    """Names with spaces and commas in them: separated by `;` or new-lines, blanks around them ignored."""
    return tuple(plain(name) for part in re.split(r"[;\n]", text) if (name := part.strip()))


def parse_job_dir(text: str) -> Path:
    """An absolute, normal path whose characters mean nothing in a submit description."""
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("use an absolute path without '..'")
    if not re.fullmatch(r"[\w./+@:=-]+", text):
        raise ValueError("use letters, digits and . _ - + @ : = only: HTCondor lists paths separated by commas")
    return path


def parse_level(text: str) -> str:
    """A level of the standard library's logging, in any case."""
    if (level := text.strip().upper()) in LEVELS:
        return level
    raise ValueError(f"use one of: {', '.join(LEVELS)}")


def parse_image_sources(text: str) -> tuple[tuple[str, str], ...]:
    """`NAME=IMAGE` pairs separated by `;`; `{tag}` in IMAGE stands for the order's tag."""
    pairs = [pair.partition("=")[::2] for pair in split_names(text)]
    for name, image in pairs:
        if not name.strip() or not image.strip():
            raise ValueError("use NAME=IMAGE pairs separated by ';', e.g. docker=docker://ghcr.io/group/pilot:{tag}")
    return tuple((name.strip(), image.strip()) for name, image in pairs)


def parse_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers separated by blanks or commas; `none` for none at all."""
    words = text.replace(",", " ").split()
    if [word.lower() for word in words] == ["none"]:
        return ()
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError("use whole numbers separated by spaces, or 'none'")
    return tuple(sorted({int(word) for word in words}))


def parse_hold_codes(text: str) -> tuple[int, ...]:
    """HTCondor's hold codes, without those of holds that are somebody's own decision."""
    codes = parse_numbers(text)
    if theirs := [code for code in codes if code in HELD_BY_SOMEBODY]:
        raise ValueError(f"{', '.join(map(str, theirs))}: what a person or the access point's policy holds is theirs")
    return codes


def parse_url(text: str) -> str:
    """An http(s) URL, without the slash at its end."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("use a URL such as https://ewms.example.org")
    return text.rstrip("/")


def parse_port(text: str) -> int:
    """A TCP port."""
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise ValueError("use a port number from 1 to 65535")


Level = Annotated[str, TextForm(parse_level)]
Url = Annotated[str, TextForm(parse_url)]
Plain = Annotated[str, TextForm(plain)]
Seconds = Annotated[float, AtLeast(0.01)]
Age = Annotated[float, AtLeast(0)]
Port = Annotated[int, TextForm(parse_port)]
Numbers = Annotated[tuple[int, ...], TextForm(parse_numbers)]
HoldCodes = Annotated[tuple[int, ...], TextForm(parse_hold_codes)]
Count = Annotated[int, AtLeast(0)]
Names = Annotated[tuple[str, ...], TextForm(split_names)]
Argv = Annotated[tuple[str, ...], TextForm(lambda text: tuple(shlex.split(text)))]


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that the TMS can be told; one instance is read at the edge and handed down."""

    # --- the WMS ---
    wms_address: Url = variable("EWMS_ADDRESS", "the WMS's base URL, e.g. https://ewms.example.org")
    token_url: Url = variable("EWMS_TOKEN_URL", _AUTH_HELP["EWMS_TOKEN_URL"], default="")
    client_id: str = variable("EWMS_CLIENT_ID", _AUTH_HELP["EWMS_CLIENT_ID"], default="")
    client_secret: Secret = variable("EWMS_CLIENT_SECRET", _AUTH_HELP["EWMS_CLIENT_SECRET"], default=Secret(""))
    no_auth: bool = variable("TMS_NO_AUTH", "speak to the WMS without tokens (local stands only)", default=False)

    # --- where things are ---
    job_dir: Annotated[Path, TextForm(parse_job_dir)] = variable(
        "JOB_EVENT_LOG_DIR", "absolute path of the directory for job event logs and taskforce directories"
    )
    schedd_name: str | None = variable(
        "TMS_SCHEDD_NAME", "this access point's name towards the WMS, instead of FULL_HOSTNAME", default=None
    )
    schedd_helper: Argv = variable(
        "TMS_SCHEDD_HELPER",
        "the command that speaks to the schedd, split like a shell does",
        default=(sys.executable, "-m", "ewms.tms.condor.helper"),
    )
    schedd_timeout: Annotated[float, AtLeast(0.1)] = variable(
        "TMS_SCHEDD_TIMEOUT", "s after which an unanswered schedd call is given up", default=60.0
    )

    # --- the pilots ---
    cvmfs_pilot_path: Plain = variable(
        "CVMFS_PILOT_PATH", "the pilot image's path; :TAG is appended", default=_CVMFS_PILOT_PATH
    )
    image_sources: Annotated[tuple[tuple[str, str], ...], TextForm(parse_image_sources)] = variable(
        "TMS_IMAGE_SOURCES",
        "more image sources: NAME=IMAGE pairs separated by ';', with {tag} in IMAGE; cvmfs and auto may be redefined",
        default=(),
    )
    pilot_environment: str = variable(
        "TMS_ENV_VARS_AND_VALS_ADD_TO_PILOT",
        f"NAME=VALUE pairs separated by spaces for every pilot; names begin with {' or '.join(PILOT_ENV_PREFIXES)}",
        default="",
    )
    base_requirements: Plain = variable(
        "TMS_BASE_REQUIREMENTS",
        "what every worker's machine must have, a ClassAd expression ('true' for no base)",
        default=_BASE_REQUIREMENTS,
    )
    excluded_glidein_sites: Names = variable(
        "TMS_EXCLUDED_GLIDEIN_SITES",
        "values of GLIDEIN_Site to avoid, separated by ';' (';' alone for none)",
        default=_EXCLUDED_GLIDEIN_SITES,
    )
    excluded_osg_sites: Names = variable(
        "TMS_EXCLUDED_OSG_SITES",
        "values of OSG_SITE_NAME to avoid, separated by ';' (';' alone for none)",
        default=_EXCLUDED_OSG_SITES,
    )
    excluded_sites_file: Path | None = variable(
        "TMS_EXCLUDED_SITES_FILE",
        "more to avoid, in a file read again on SIGHUP: lines GLIDEIN_Site = X, OSG_SITE_NAME = X or Machine = X",
        default=None,
    )
    exclude_suspicious: bool = variable(
        "TMS_EXCLUDE_SUSPICIOUS",
        "new workers avoid, for a day, sites and hosts where pilots fail much more often than elsewhere",
        default=False,
    )
    max_idle: Annotated[int, AtLeast(1)] = variable(
        "TMS_MAX_IDLE", "idle workers of one taskforce that wait in the queue at a time", default=200
    )
    job_max_vacate_time: Annotated[int | None, AtLeast(1)] = variable(
        "TMS_JOB_MAX_VACATE_TIME",
        "s between a worker's SIGTERM and its SIGKILL; HTCondor's own value (600) when not set",
        default=None,
    )

    # --- workers that fail, cannot start, or are held ---
    requeue_exit_statuses: Numbers = variable(
        "TMS_REQUEUE_EXIT_STATUSES",
        "a worker's exit statuses that speak against its machine: it goes back to the queue ('none' for no such rule)",
        default=(*SUSPECT_MACHINE_EXIT_STATUSES, _KILLED, _APPTAINER_FAILED),
    )
    max_requeues: Count = variable("TMS_MAX_REQUEUES", "how many times a worker goes back to the queue", default=3)
    avoid_machine_time: Age = variable(
        "TMS_AVOID_MACHINE_TIME",
        "s for which a worker does not run again on the machine where it failed (0: no such rule)",
        default=1200.0,
    )
    max_start_failures: Annotated[int, AtLeast(1)] = variable(
        "TMS_MAX_START_FAILURES",
        "a worker whose container could not be started so many times is held, with the reason",
        default=10,
    )
    release_hold_codes: HoldCodes = variable(
        "TMS_RELEASE_HOLD_CODES",
        "HTCondor's codes of holds whose cause may pass: they are released ('none' for no such rule)",
        default=_PASSING_HOLD_CODES,
    )
    max_releases: Count = variable("TMS_MAX_RELEASES", "how many times a worker is released", default=3)
    release_wait: Age = variable(
        "TMS_RELEASE_WAIT", "s before a worker's first release; before its second one twice as long, …", default=300.0
    )
    held_expiry: Age = variable(
        "TMS_HELD_EXPIRY", "s on hold after which a worker is removed (never when a person holds it)", default=_DAY
    )

    # --- pace ---
    outer_loop_wait: Seconds = variable(
        "TMS_OUTER_LOOP_WAIT", "s between polls of the WMS when there was nothing to do", default=60.0
    )
    watcher_interval: Seconds = variable("TMS_WATCHER_INTERVAL", "s between reports to the WMS", default=180.0)
    settle_time: Age = variable(
        "TMS_SETTLE_TIME",
        "s for which a report that the WMS did not answer may still reach it, late; then it is told anew what is true",
        default=120.0,  # proxies wait 60 s by default, kernels resend what a closed socket has for up to 100 s
    )
    error_wait: Seconds = variable("TMS_ERROR_WAIT", "s of pause after a failed start or stop", default=10.0)
    audit_interval: Seconds = variable(
        "TMS_AUDIT_INTERVAL",
        "s between questions to the schedd whether clusters that the log takes for living are in its queue",
        default=600.0,
    )
    max_logging_interval: Annotated[float, AtLeast(1)] = variable(
        "TMS_MAX_LOGGING_INTERVAL", "s within which something is logged, even when nothing happens", default=300.0
    )

    # --- housekeeping ---
    file_manager_interval: Seconds = variable("TMS_FILE_MANAGER_INTERVAL", "s between housekeepings", default=3600.0)
    log_expiry_short: Age = variable(
        "JOB_EVENT_LOG_MODIFICATION_EXPIRY_SHORT",
        "s after its last change when a day log without an open taskforce is compressed",
        default=_DAY,
    )
    log_expiry_long: Age = variable(
        "JOB_EVENT_LOG_MODIFICATION_EXPIRY_LONG",
        "s after its last change when a day log is compressed, whatever the WMS says, unless the schedd has jobs in it",
        default=7 * _DAY,
    )
    log_archive_expiry: Age = variable(
        "JOB_EVENT_LOG_ARCHIVE_DELETE_EXPIRY", "age in s at which a compressed day log is deleted", default=7 * _DAY
    )
    taskforce_dirs_expiry: Age = variable(
        "TASKFORCE_DIRS_EXPIRY",
        "s after the last change in it when a taskforce's directory is archived, unless the schedd has jobs of it",
        default=5 * _DAY,
    )
    taskforce_archive_expiry: Age = variable(
        "TASKFORCE_DIRS_TAR_EXPIRY", "age in s at which a taskforce directory's archive is deleted", default=5 * _DAY
    )

    # --- seeing inside ---
    stuck_time: Annotated[float, AtLeast(1)] = variable(
        "TMS_STUCK_TIME",
        "s of silence, beyond TMS_SCHEDD_TIMEOUT, after which a part of the TMS is stuck and systemd is to restart it",
        default=300.0,
    )
    metrics_port: Port | None = variable(
        "TMS_METRICS_PORT",
        "port on 127.0.0.1 for /metrics (Prometheus), /healthz and /taskforces; off when not set",
        default=None,
    )
    notify_socket: str = variable(
        "NOTIFY_SOCKET", "set by systemd (Type=notify): where readiness and status go", default=""
    )
    watchdog_usec: int | None = variable(
        "WATCHDOG_USEC", "set by systemd (WatchdogSec=): microseconds between signs of life at most", default=None
    )

    # --- how it runs and what it says ---
    dryrun: bool = variable(
        "DRYRUN", "print the submit description that would be used, and touch nothing", default=False
    )
    log_level: Level = variable("LOG_LEVEL", "level of our own log lines", default="INFO")
    log_level_third_party: Level = variable(
        "LOG_LEVEL_THIRD_PARTY", "level of the libraries' log lines", default="WARNING"
    )
    log_format: LogFormat = variable("TMS_LOG_FORMAT", "text (for people) or json (for collectors)", default="text")

    @property
    def policy(self) -> Policy:
        """What HTCondor shall do with workers that fail, cannot start, or are held."""
        return Policy(**{field.name: getattr(self, field.name) for field in attrs.fields(Policy)})

    @property
    def state_dir(self) -> Path:
        """Where the TMS keeps its own state: lock, ledger, reader checkpoints."""
        return self.job_dir / ".tms"

    @staticmethod
    def problems_between(values: Mapping[str, Any]) -> Iterable[str]:
        """What is wrong with several settings together: no tokens unless that is asked for, expiries out of order."""
        problems = []
        if values["log_expiry_long"] < values["log_expiry_short"]:
            problems.append(
                "JOB_EVENT_LOG_MODIFICATION_EXPIRY_LONG: is smaller than JOB_EVENT_LOG_MODIFICATION_EXPIRY_SHORT"
            )
        given = (values["token_url"], values["client_id"], values["client_secret"])
        missing = [name for name, value in zip(_AUTH_HELP, given, strict=True) if not value]
        if not values.get("no_auth"):
            hint = "only a local stand may do without: TMS_NO_AUTH=true"
            problems += [f"{name}: is required but not set ({_AUTH_HELP[name]}); {hint}" for name in missing]
        return problems


def read(environ: Mapping[str, str]) -> Settings:
    """The settings from `environ`; raises `SettingsError` with every problem at once."""
    return load(Settings, environ)


def without_effect(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that looks like a setting of the TMS's and is none."""
    return names_without_effect(Settings, environ, _PREFIXES)
