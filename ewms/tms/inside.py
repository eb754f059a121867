"""The TMS as it is seen from outside: by systemd, by Prometheus, by whoever asks `/healthz`."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NoReturn

import attrs
import trio

from ewms.liveness import Pulse
from ewms.secret import redact
from ewms.supervision import keep_running
from ewms.tms.context import Context
from ewms.tms.metrics import CONTENT_TYPE, Metrics
from ewms.tms.outbox import Stage
from ewms.tms.overview import Overview, Row, blocked, dump, overview, row_of
from ewms.tms.page import Page, serve_pages
from ewms.tms.settings import Settings
from ewms.tms.silence import Silence
from ewms.tms.systemd import Notifier, keep_informed

_JSON: Final = "application/json"
_OVERVIEW_AGE: Final = 5.0
"""An overview of 5,000 taskforces takes 0.1 s to make, in which the TMS does nothing else: it may be so old, in s."""


@attrs.define
class Inside:
    """What there is to see; the service fills it in as it comes up."""

    metrics: Metrics = attrs.field(factory=Metrics)
    pulse: Pulse = attrs.field(factory=Pulse)
    is_ready: trio.Event = attrs.field(factory=trio.Event)
    _status: Callable[[], str] = lambda: "starting"
    _lack: str = ""
    _look: Callable[[], Overview] = Overview
    _seen: tuple[float, bytes] | None = None
    _of_wms: Silence = attrs.field(factory=Silence)
    _of_schedd: Silence = attrs.field(factory=Silence)

    def status_now(self) -> str:
        """One line of what the TMS does, and whom it waits for."""
        if not self.is_ready.is_set() and self._lack:
            return f"not ready, waits for {self._lack}; {self._status()}"
        return "; ".join(filter(None, (self._of_wms.words(), self._of_schedd.words(), self._status())))

    def observe_wms(self, call: str, fault: type[Exception] | None, seconds: float) -> None:
        """One attempt of a call to the WMS."""
        self.metrics.observe_wms(call, fault, seconds)
        self._of_wms.note(fault)

    def observe_schedd(self, call: str, fault: type[Exception] | None, seconds: float) -> None:
        """One call to the schedd."""
        self.metrics.observe_schedd(call, fault, seconds)
        self._of_schedd.note(fault)

    def lacks(self, what: str) -> None:
        """Say what it needs to be ready."""
        self._lack = what

    def show(self, ctx: Context) -> None:
        """From now on the TMS works, and what it does is `ctx`'s."""
        self.metrics.refresh_with(partial(_refresh, ctx))
        self._status = partial(_status, ctx)
        self._look = partial(_overview, ctx)

    def pages(self, path: str) -> Page | None:
        """The status pages."""
        pages = {
            "/metrics": self._metrics_page,
            "/healthz": self._health_page,
            "/taskforces": self._taskforces_page,
        }
        return pages.get(path, lambda: None)()

    def _metrics_page(self) -> Page:
        self.metrics.stuck.replace(self.pulse.stuck())
        return Page(self.metrics.text(), CONTENT_TYPE)

    def _health_page(self) -> Page:
        stuck = {name: round(silence) for name, silence in self.pulse.stuck().items()}
        is_healthy = self.is_ready.is_set() and not stuck
        answer = {"healthy": is_healthy, "ready": self.is_ready.is_set(), "stuck": stuck, "status": self.status_now()}
        return Page(f"{json.dumps(answer)}\n".encode(), _JSON, 200 if is_healthy else 503)

    def _taskforces_page(self) -> Page:
        now = trio.current_time()
        if self._seen is None or now - self._seen[0] > _OVERVIEW_AGE:
            # Workers' errors may quote their queues' tokens, and every user of this machine can read a page.
            self._seen = now, redact(dump(self._look())).encode()
        return Page(self._seen[1], _JSON)


async def run_outside(settings: Settings, inside: Inside, notifier: Notifier) -> NoReturn:
    """Keep systemd informed and, where a port is set, serve the pages."""
    async with trio.open_nursery() as nursery:
        if settings.metrics_port is not None:
            serve = partial(serve_pages, inside.pages, settings.metrics_port)
            nursery.start_soon(partial(keep_running, "status pages", serve, expected=(OSError,)))
        await keep_informed(
            notifier, inside.pulse, inside.status_now, inside.is_ready, watchdog_usec=settings.watchdog_usec
        )


def _status(ctx: Context) -> str:
    status = status_line(ctx.outbox.counts(), ctx.board.job_counts())
    if not ctx.caught_up.is_set():
        return f"reads the logs first; so far {status}"
    return status if ctx.outbox.reconciled.is_set() else f"learns from the WMS what is open; so far {status}"


def status_line(taskforces: Mapping[str, int], jobs: Mapping[str, int]) -> str:
    """What `systemctl status` shows of a TMS (pure)."""
    parts = [f"taskforces: {_listed(taskforces)}"]
    if jobs:
        parts.append(f"jobs: {_listed(jobs)}")
    return "; ".join(parts)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _refresh(ctx: Context) -> None:
    ctx.metrics.jobs.replace(ctx.board.job_counts())
    ctx.metrics.taskforces.replace(ctx.outbox.counts())
    ctx.metrics.failed_factories.set(ctx.board.failed_factories())


def _overview(ctx: Context) -> Overview:
    stages = [stage for stage in Stage if stage is not Stage.UNKNOWN]
    rows = {uuid: _row(ctx, stage, uuid) for stage in stages for uuid in ctx.outbox.in_stage(stage)}
    for uuid, reason in ctx.waiting.items():
        row = rows.get(uuid, Row(uuid, Stage.STARTING.value))
        rows[uuid] = blocked(row, f"its start is tried again: {reason}")
    return overview(rows.values())


def _row(ctx: Context, stage: Stage, uuid: str) -> Row:
    report = ctx.board.report(uuid)
    row = Row(uuid, stage.value) if report is None else row_of(stage.value, report)
    return blocked(row, "the WMS does not take its end") if stage is Stage.REFUSED else row
