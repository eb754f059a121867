"""`ewms check tms`: would the TMS run here? Every surrounding is tried, nothing is changed."""

import ctypes
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import attrs

from ewms.secret import redact
from ewms.settings import deprecated_in_use
from ewms.tms import sitefile
from ewms.tms.condor.base import CondorError, CondorRefused, Schedd
from ewms.tms.condor.schedd import open_schedd
from ewms.tms.envfile import parse_pilot_variables
from ewms.tms.service import auth
from ewms.tms.settings import Settings, without_effect
from ewms.tms.whose import refused
from ewms.wms.client import WMS, open_wms
from ewms.wms.errors import WMSError, WMSMalformed, WMSNotFound, WMSRefused, WMSUnauthorized, WMSUnavailable
from ewms.wms.retry import Retry

_TIMEOUT: Final = 20.0
_FREE_BYTES: Final = 2**30
_FULL_BYTES: Final = 2**20
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_BYTES: Final = 512  # more than struct timex has on any platform

Verdict = Literal["ok", "warning", "failed"]


@attrs.frozen
class Finding:
    """One line of the table."""

    what: str
    verdict: Verdict
    seen: str
    advice: str = ""

    @property
    def is_fatal(self) -> bool:
        """The TMS would not work."""
        return self.verdict == "failed"


async def check_all(settings: Settings, tell: Callable[[Finding], None]) -> list[Finding]:
    """Try everything; `tell` hears of each finding as soon as it is made (one that times out takes 20 s)."""
    found = [
        check_variables(settings.pilot_environment),
        check_user(settings, os.geteuid()),
        check_directory(settings),
        check_lock(settings.state_dir / "lock"),
        check_disk(settings.job_dir),
        check_clock(),
        *check_sites(settings.excluded_sites_file),
        *check_port(settings.metrics_port),
    ]
    _tell_all(found, tell)
    schedd_name, of_schedd = await _check_schedd(settings)
    _tell_all(of_schedd, tell)
    return [*found, *of_schedd, *await _check_wms(settings, schedd_name, tell)]


def _tell_all(findings: Iterable[Finding], tell: Callable[[Finding], None]) -> None:
    for finding in findings:
        tell(finding)


# --- this machine ---


def check_names(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Names of settings that are deprecated, or are none, where some are used."""
    for old, var in deprecated_in_use(Settings, environ):
        advice = f"use {var.name}: release {old.removed_in} will not know the old name"
        yield Finding("settings", "warning", f"{old.name} has another name now", advice)
    for line in without_effect(environ):
        yield Finding("settings", "warning", line, "correct it in the envfile, or take it out")


def check_variables(pilot_environment: str) -> Finding:
    """The settings could be read, or this would not run; what is dropped silently elsewhere is said here."""
    if dropped := parse_pilot_variables(pilot_environment).dropped:
        seen = f"TMS_ENV_VARS_AND_VALS_ADD_TO_PILOT: not for a pilot: {', '.join(dropped)}"
        return Finding("settings", "warning", seen, "use NAME=VALUE with names that begin with (_)EWMS_PILOT_")
    return Finding("settings", "ok", "all values can be read")


def check_user(settings: Settings, uid: int) -> Finding:
    """Its jobs are taken by HTCondor."""
    if reason := refused(settings, uid):
        return Finding("user", "failed", "root", reason)
    return Finding("user", "ok", f"jobs will be owned by uid {uid}")


def check_directory(settings: Settings) -> Finding:
    """Files can be made in the job directory, and where the TMS keeps its own; or these can be made."""
    job_dir = place = settings.job_dir
    try:
        for place in dict.fromkeys(map(_nearest, (job_dir, settings.state_dir))):
            with tempfile.TemporaryFile(dir=place):
                pass
    except OSError as error:
        who = f"uid {uid}" if (uid := os.geteuid()) else "the TMS's user"
        advice = f"make it, owned by {who}, or set JOB_EVENT_LOG_DIR to another one"
        return Finding("directory", "failed", f"{place}: {error.strerror}", advice)
    if not job_dir.exists():
        return Finding("directory", "warning", f"{job_dir} is not there, the TMS would make it", "is it the right one?")
    return Finding("directory", "ok", f"{job_dir} is writable")


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def check_lock(path: Path) -> Finding:
    """No other TMS works in the job directory."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the file is closed
    except (FileNotFoundError, NotADirectoryError):
        return Finding("one TMS", "ok", "no TMS has worked here yet")
    except BlockingIOError:
        return Finding("one TMS", "warning", "a TMS is running here", "a second one would wait until it ends")
    except OSError as error:
        return Finding("one TMS", "failed", f"{path}: {error.strerror}", "its owner must be the TMS's user")
    return Finding("one TMS", "ok", "no other TMS is running here")


def check_disk(job_dir: Path) -> Finding:
    """There is room for logs and envfiles."""
    try:
        free = shutil.disk_usage(_nearest(job_dir)).free
    except OSError as error:
        return Finding("disk space", "failed", f"{job_dir}: {error.strerror}", "see: directory")
    seen = f"{free / 2**30:.1f} GiB free"
    if free < _FREE_BYTES:
        verdict: Verdict = "failed" if free < _FULL_BYTES else "warning"
        return Finding("disk space", verdict, seen, "make room: without it no taskforce starts and logs have holes")
    return Finding("disk space", "ok", seen)


def check_clock() -> Finding:
    """The kernel says that something keeps its clock right: tokens and day logs go by it."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _TIME_ERROR:
        advice = "run chrony or systemd-timesyncd (a virtual machine may be kept right by its host)"
        return Finding("clock", "warning", "nothing synchronizes the clock", advice)
    return Finding("clock", "ok", "synchronized") if state >= 0 else Finding("clock", "warning", "cannot be asked")


def check_sites(path: Path | None) -> list[Finding]:
    """The file of excluded sites, where one is set."""
    if path is None:
        return []
    try:
        sites = sitefile.read(path)
    except sitefile.SiteFileError as error:
        advice = "correct it: the TMS would not start, and a running one keeps the sites that it knows"
        return [Finding("excluded sites", "failed", f"{path}: {error}", advice)]
    return [Finding("excluded sites", "ok", f"{path} names {len(sites)}")]


def check_port(port: int | None) -> list[Finding]:
    """The port of the status pages, where one is set."""
    if port is None:
        return []
    try:
        with socket.create_server(("127.0.0.1", port)):
            return [Finding("metrics", "ok", f"port {port} on 127.0.0.1 is free")]
    except OSError as error:
        seen = f"port {port} on 127.0.0.1: {error.strerror}"
        return [Finding("metrics", "warning", seen, "a running TMS has it? otherwise set TMS_METRICS_PORT to another")]


# --- the schedd ---


async def _check_schedd(settings: Settings) -> tuple[str | None, list[Finding]]:
    """The access point's name, as far as it is known, and the findings."""
    async with open_schedd(settings.schedd_helper, call_timeout=_TIMEOUT) as schedd:
        requirements = await _check_requirements(schedd, settings)
        try:
            name = settings.schedd_name or await schedd.param("FULL_HOSTNAME")
            await schedd.query("false", ["ClusterId"])
            history = await check_history(schedd)
        except CondorError as error:
            advice = "is condor_schedd running here, does condor_q work for this user, is htcondor installed?"
            return settings.schedd_name, [*requirements, Finding("schedd", "failed", str(error), advice)]
    if not name:
        return None, [
            *requirements,
            Finding("schedd", "failed", "HTCondor has no FULL_HOSTNAME", "set TMS_SCHEDD_NAME"),
        ]
    return name, [*requirements, Finding("schedd", "ok", f"answers; its name towards the WMS is {name}"), history]


async def check_history(schedd: Schedd) -> Finding:
    """The history is one of the places where a cluster is looked for that a crash may have left."""
    try:
        await schedd.history("true", ["ClusterId"], match=1)
    except CondorError as error:
        advice = (
            "the TMS would look into its ledger, the queue and the logs only; for condor_history to work here HISTORY"
            " must be set, and HISTORY_HELPER_MAX_CONCURRENCY not be 0"
        )
        return Finding("history", "warning", str(error), advice)
    return Finding("history", "ok", "can be asked")


async def _check_requirements(schedd: Schedd, settings: Settings) -> list[Finding]:
    try:
        await schedd.parse(settings.base_requirements)
    except CondorRefused as error:
        return [Finding("requirements", "failed", f"HTCondor refused: {error}", "correct TMS_BASE_REQUIREMENTS")]
    except CondorError:
        return []  # the schedd's own finding says why
    return [Finding("requirements", "ok", "TMS_BASE_REQUIREMENTS is a ClassAd expression")]


# --- the WMS ---

_WMS_ADVICE: Final = (
    ((WMSUnauthorized, WMSRefused), "does the client have the TMS's role, and does this WMS trust this issuer?"),
    (WMSNotFound, "EWMS_ADDRESS is the base URL, without /v1: is a WMS there?"),
    (WMSMalformed, "is that a WMS of this version? (a running TMS would tell it that the order failed)"),
    (WMSError, "check EWMS_ADDRESS, the network, and the WMS itself; a running TMS waits until it answers"),
)


async def _check_wms(settings: Settings, schedd_name: str | None, tell: Callable[[Finding], None]) -> list[Finding]:
    retry = Retry(attempts=1)
    async with open_wms(settings.wms_address, auth(settings), timeout=_TIMEOUT, retry=retry) as wms:
        token = await _check_token(settings, wms)
        tell(token)
        if token.is_fatal:
            seen = f"{settings.wms_address} was not asked: there is no token"
            orders = Finding("WMS", "failed", seen, "see: token")
        else:
            orders = await _check_orders(settings, wms, schedd_name)
        tell(orders)
        return [token, orders]


async def _check_token(settings: Settings, wms: WMS) -> Finding:
    if settings.no_auth:
        seen = "TMS_NO_AUTH: the WMS is called without a token"
        return Finding("token", "warning", seen, "only a local stand may do so: set EWMS_TOKEN_URL and the client")
    try:
        await wms.check_token()
    except WMSUnauthorized as error:
        return Finding("token", "failed", str(error), "check EWMS_CLIENT_ID and EWMS_CLIENT_SECRET with the issuer")
    except WMSUnavailable as error:
        advice = "check EWMS_TOKEN_URL (the issuer, not its token endpoint), and the network"
        return Finding("token", "failed", str(error), advice)
    return Finding("token", "ok", f"{settings.token_url} gives one to {settings.client_id}")


async def _check_orders(settings: Settings, wms: WMS, schedd_name: str | None) -> Finding:
    try:
        order = await wms.next_start_order(schedd_name or "check")
    except WMSError as error:
        advice = next(text for kinds, text in _WMS_ADVICE if isinstance(error, kinds))
        return Finding("WMS", "failed", str(error), advice)
    if schedd_name is None:
        return Finding("WMS", "ok", f"{settings.wms_address} answers")
    waiting = "no taskforce waits" if order is None else f"{order.taskforce.taskforce_uuid} waits for its start"
    return Finding("WMS", "ok", f"{settings.wms_address} answers; for {schedd_name} {waiting}")


def line(finding: Finding) -> str:
    """A finding as a line of the table, and below a bad one what to do about it."""
    text = f"{finding.verdict.upper():8} {finding.what:14} {redact(' '.join(finding.seen.split()))}"
    if finding.advice and finding.verdict != "ok":
        text += f"\n{'':8} {'':14} -> {finding.advice}"
    return text


def summary(findings: Sequence[Finding]) -> str:
    """The last line."""
    failed = [finding.what for finding in findings if finding.is_fatal]
    if failed:
        return f"The TMS would not work here: {', '.join(dict.fromkeys(failed))}."
    warned = [finding.what for finding in findings if finding.verdict == "warning"]
    return f"The TMS can run here; have a look at: {', '.join(warned)}." if warned else "The TMS can run here."
