"""The TMS: its nursery, one child for each responsibility.

The stop order: a signal cancels every child. A submit that is under way is waited for and recorded (bounded). Then the
schedd helpers, the WMS's connections and, last, the lock are given up. No cluster is ever touched by it.
"""

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog
import trio

from ewms.liveness import Pulse
from ewms.logs import observed_by
from ewms.supervision import backoff
from ewms.tms.audit import run_audits
from ewms.tms.board import Board
from ewms.tms.condor.base import CondorBroken, CondorError, CondorRefused, CondorUnreachable, Schedd
from ewms.tms.condor.schedd import open_schedd
from ewms.tms.context import Context
from ewms.tms.dryrun import run_dry
from ewms.tms.envfile import parse_pilot_variables
from ewms.tms.errors import SettingWrong, SetupError
from ewms.tms.exclusions import load as load_exclusions
from ewms.tms.housekeeping import run_housekeeping
from ewms.tms.inside import Inside, run_outside
from ewms.tms.ledger import Ledger
from ewms.tms.lock import hold_lock
from ewms.tms.orders import run_starts, run_stops
from ewms.tms.outbox import Outbox
from ewms.tms.pulse import run_pulse
from ewms.tms.reconcile import note_ends, reconcile, retry_refused_ends
from ewms.tms.report import run_reports
from ewms.tms.review import run_reviews
from ewms.tms.settings import Settings
from ewms.tms.sitefile import SiteFile, reload_on_hangup
from ewms.tms.stopping import resume_stop
from ewms.tms.systemd import Notifier
from ewms.tms.watch import watch_logs
from ewms.tms.whose import refused
from ewms.wms.auth import Auth
from ewms.wms.client import open_wms

log = structlog.stdlib.get_logger(__name__)


async def main(settings: Settings, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Run the TMS until SIGTERM or SIGINT; started means: alone in its job directory, and HTCondor's bindings answer.

    Raises:
        SetupError: it cannot run here; the text says what to do. A `SettingWrong` where no restart mends it.
    """
    _tell_dropped_variables(settings)
    inside = Inside(pulse=Pulse(settings.stuck_time + settings.schedd_timeout))
    notifier = Notifier(settings.notify_socket)
    site_file = SiteFile(settings.excluded_sites_file)
    await site_file.load()
    async with trio.open_nursery() as nursery:
        with observed_by(inside.metrics.count_log_event):
            await nursery.start(_stop_on_signals, nursery.cancel_scope, notifier)
            await nursery.start(reload_on_hangup, site_file)
            nursery.start_soon(run_outside, settings, inside, notifier)
            await _serve(settings, inside, site_file, task_status)
        nursery.cancel_scope.cancel()
    log.info("TMS ended, clusters are left alone")


async def _serve(settings: Settings, inside: Inside, site_file: SiteFile, task_status: trio.TaskStatus[None]) -> None:
    if settings.dryrun:
        inside.is_ready.set()
        await _serve_dry(settings, site_file, task_status)
        return
    if reason := refused(settings, os.geteuid()):
        raise SettingWrong(reason)
    async with AsyncExitStack() as stack:
        try:
            lock = hold_lock(settings.state_dir / "lock", waits_for=inside.lacks)
            descriptor = await stack.enter_async_context(lock)
            ledger = Ledger(settings.state_dir / "ledger")
        except OSError as error:
            raise SetupError(f"JOB_EVENT_LOG_DIR: {settings.job_dir} cannot be worked in: {error}") from error
        schedd = await stack.enter_async_context(
            open_schedd(
                settings.schedd_helper,
                call_timeout=settings.schedd_timeout,
                pass_fds=(descriptor,),
                observe=inside.observe_schedd,
            )
        )
        wms = await stack.enter_async_context(
            open_wms(settings.wms_address, auth(settings), observe=inside.observe_wms)
        )
        schedd_name = await _meet_schedd(schedd, settings)
        outbox, board = Outbox(wms, ledger), Board()
        ctx = Context(
            settings,
            schedd_name,
            wms,
            schedd,
            ledger,
            outbox,
            board,
            inside.metrics,
            inside.pulse,
            exclusions=await trio.to_thread.run_sync(load_exclusions, settings),
            site_file=site_file,
        )
        log.info("TMS running", schedd=schedd_name, wms=settings.wms_address, job_dir=str(settings.job_dir))
        inside.show(ctx)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_get_ready, schedd, inside)
            await serve(ctx, task_status=task_status)


async def _get_ready(schedd: Schedd, inside: Inside) -> None:
    """Ready is who has had an answer about the queue; before it, logs are read and told all the same."""
    delays = backoff()
    while True:
        try:
            await schedd.query("false", ["ClusterId"])
        except CondorError as trouble:
            delay = next(delays)
            inside.lacks(f"the schedd, which does not answer ({trouble})")
            log.warning("not ready: the schedd does not answer", error=str(trouble), wait_s=round(delay, 1))
            await trio.sleep(delay)
        else:
            log.info("TMS ready: the schedd answers")
            inside.is_ready.set()
            return


async def serve(ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """The children of a TMS whose surroundings are open; runs until it is cancelled."""
    async with trio.open_nursery() as children:
        await children.start(run_housekeeping, ctx)
        children.start_soon(_live, ctx, "starts", run_starts)
        children.start_soon(_live, ctx, "stops", run_stops)
        children.start_soon(_watch_and_report, ctx)
        children.start_soon(run_pulse, ctx)
        task_status.started()


async def _live(ctx: Context, name: str, run: Callable[[Context], Awaitable[None]]) -> None:
    """Run a child that has to show life."""
    with ctx.pulse.child(name):
        await run(ctx)


async def _watch_and_report(ctx: Context) -> None:
    """Catch up with the logs in silence, learn what the WMS knows, then report (and review, and audit)."""
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch, ctx)
        ctx.caught_up.set()
        nursery.start_soon(_live, ctx, "review", run_reviews)
        nursery.start_soon(_reconcile_and_report, ctx)
        await ctx.outbox.reconciled.wait()
        nursery.start_soon(_live, ctx, "audit", run_audits)


async def _reconcile_and_report(ctx: Context) -> None:
    with ctx.pulse.child("report"):
        left = await reconcile(ctx)
    async with trio.open_nursery() as nursery:
        for uuid in left.stops:
            await nursery.start(resume_stop, ctx, uuid)
        nursery.start_soon(note_ends, ctx, left.ends)
        nursery.start_soon(_live, ctx, "refused ends", retry_refused_ends)
        nursery.start_soon(_live, ctx, "report", run_reports)


async def _watch(ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
    with ctx.pulse.child("watch"):
        await watch_logs(
            ctx.settings.job_dir,
            ctx.board,
            state_dir=ctx.settings.state_dir / "watch",
            sites=ctx.sites,
            tell_lag=ctx.metrics.log_lag,
            fresh=ctx.fresh,
            task_status=task_status,
        )


async def _serve_dry(settings: Settings, site_file: SiteFile, task_status: trio.TaskStatus[None]) -> None:
    async with (
        open_schedd(settings.schedd_helper, call_timeout=settings.schedd_timeout) as schedd,
        open_wms(settings.wms_address, auth(settings)) as wms,
    ):
        schedd_name = await _meet_schedd(schedd, settings)
        task_status.started()
        await run_dry(settings, wms, schedd, schedd_name, site_file)


async def _stop_on_signals(
    scope: trio.CancelScope, notifier: Notifier, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            await notifier.stopping()
            scope.cancel()


async def _meet_schedd(schedd: Schedd, settings: Settings) -> str:
    """The access point's name, when the schedd's side answers; checks the operator's requirements on the way."""
    delays = backoff()
    while True:
        try:
            await schedd.parse(settings.base_requirements)
            name = settings.schedd_name or await schedd.param("FULL_HOSTNAME")
        except CondorRefused as refusal:
            raise SettingWrong(f"TMS_BASE_REQUIREMENTS: HTCondor cannot parse it: {refusal}") from refusal
        except CondorBroken as failure:
            raise SetupError(
                f"HTCondor's bindings cannot be used here: {failure}; is htcondor installed for this Python?"
            ) from failure
        except CondorUnreachable as trouble:
            delay = next(delays)
            log.warning("HTCondor does not answer, trying again", error=str(trouble), wait_s=round(delay, 1))
            await trio.sleep(delay)
        else:
            if not name:
                raise SettingWrong("TMS_SCHEDD_NAME: is needed here, HTCondor has no FULL_HOSTNAME")
            return name


def auth(settings: Settings) -> Auth | None:
    """Who we are towards the WMS; None on a local stand that asked for it."""
    return None if settings.no_auth else Auth(settings.token_url, settings.client_id, settings.client_secret)


def _tell_dropped_variables(settings: Settings) -> None:
    for name in parse_pilot_variables(settings.pilot_environment).dropped:
        log.warning("TMS_ENV_VARS_AND_VALS_ADD_TO_PILOT: not passed on, it is no NAME=VALUE for a pilot", variable=name)
