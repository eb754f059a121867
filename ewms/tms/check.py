"""`ewms check tms`: would the TMS run here? Every surrounding is tried, nothing is changed."""

import ctypes
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal

import attrs

from ewms.secret import redact
from ewms.tms.condor.base import CondorError, CondorRefused
from ewms.tms.condor.schedd import open_schedd
from ewms.tms.service import auth
from ewms.tms.settings import Settings
from ewms.wms.client import open_wms
from ewms.wms.errors import WMSError, WMSUnauthorized
from ewms.wms.retry import Retry

_TIMEOUT: Final = 20.0
_FREE_BYTES: Final = 2**30
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


async def check_all(settings: Settings) -> list[Finding]:
    """Try everything; one finding each."""
    settings_finding = Finding("settings", "ok", "all names and values can be read")
    found = [settings_finding, check_directory(settings.job_dir), check_lock(settings.state_dir / "lock")]
    found += [check_disk(settings.job_dir), check_clock()]
    name, schedd_finding = await _check_schedd(settings)
    return [*found, schedd_finding, await _check_wms(settings, name)]


def check_directory(job_dir: Path) -> Finding:
    """Files can be made in the job directory."""
    try:
        with tempfile.TemporaryFile(dir=job_dir):
            return Finding("directory", "ok", f"{job_dir} is writable")
    except OSError as error:
        advice = f"make it, owned by uid {os.getuid()}, or set JOB_EVENT_LOG_DIR to another one"
        return Finding("directory", "failed", f"{job_dir}: {error.strerror}", advice)


def check_lock(path: Path) -> Finding:
    """No other TMS works in the job directory."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the file is closed
    except FileNotFoundError:
        return Finding("one TMS", "ok", "no TMS has worked here yet")
    except BlockingIOError:
        return Finding("one TMS", "warning", "a TMS is running here", "a second one would wait until it ends")
    except OSError as error:
        return Finding("one TMS", "failed", f"{path}: {error.strerror}", "its owner must be the TMS's user")
    return Finding("one TMS", "ok", "no other TMS is running here")


def check_disk(job_dir: Path) -> Finding:
    """There is room for logs and envfiles."""
    try:
        free = shutil.disk_usage(job_dir).free
    except OSError as error:
        return Finding("disk space", "failed", f"{job_dir}: {error.strerror}", "see: directory")
    seen = f"{free / 2**30:.1f} GiB free"
    if free < _FREE_BYTES:
        return Finding("disk space", "warning", seen, "make room: without it no taskforce starts and logs have holes")
    return Finding("disk space", "ok", seen)


def check_clock() -> Finding:
    """The kernel says that something keeps its clock right: tokens and day logs go by it."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _TIME_ERROR:
        advice = "run chrony or systemd-timesyncd (a virtual machine may be kept right by its host)"
        return Finding("clock", "warning", "nothing synchronizes the clock", advice)
    return Finding("clock", "ok", "synchronized") if state >= 0 else Finding("clock", "warning", "cannot be asked")


async def _check_schedd(settings: Settings) -> tuple[str | None, Finding]:
    async with open_schedd(settings.schedd_helper, call_timeout=_TIMEOUT) as schedd:
        try:
            name = settings.schedd_name or await schedd.param("FULL_HOSTNAME")
            await schedd.query("false", ["ClusterId"])
            await schedd.parse(settings.base_requirements)
        except CondorRefused as error:
            advice = "correct TMS_BASE_REQUIREMENTS, or the access point's configuration"
            return None, Finding("schedd", "failed", f"HTCondor refused: {error}", advice)
        except CondorError as error:
            advice = "is condor_schedd running here, and does condor_q work for this user?"
            return None, Finding("schedd", "failed", str(error), advice)
    if not name:
        return None, Finding("schedd", "failed", "HTCondor has no FULL_HOSTNAME", "set TMS_SCHEDD_NAME")
    return name, Finding("schedd", "ok", f"answers; its name towards the WMS is {name}")


async def _check_wms(settings: Settings, schedd_name: str | None) -> Finding:
    tokens = "without a token" if settings.no_auth else f"with a token from {settings.token_url}"
    try:
        async with open_wms(settings.wms_address, auth(settings), timeout=_TIMEOUT, retry=Retry(attempts=1)) as wms:
            order = await wms.next_start_order(schedd_name or "check")
    except WMSUnauthorized as error:
        advice = "check EWMS_TOKEN_URL, EWMS_CLIENT_ID, EWMS_CLIENT_SECRET and the client's role"
        return Finding("token and WMS", "failed", str(error), advice)
    except (WMSError, ValueError) as error:
        return Finding("token and WMS", "failed", str(error), "check EWMS_ADDRESS and EWMS_TOKEN_URL, and the network")
    waiting = "no taskforce waits" if order is None else f"{order.taskforce.taskforce_uuid} waits for its start"
    return Finding("token and WMS", "ok", f"{settings.wms_address} answers {tokens}; {waiting}")


def table(findings: list[Finding]) -> str:
    """The findings as text: one line each, and below a bad one what to do about it."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.verdict.upper():8} {finding.what:14} {redact(finding.seen)}")
        if finding.advice and finding.verdict != "ok":
            lines.append(f"{'':8} {'':14} -> {finding.advice}")
    return "\n".join(lines)
