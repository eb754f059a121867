"""All kinds of faults: one table."""

import signal
from collections.abc import Iterable, Mapping
from typing import Final

from tests.chaos import acts_broker, acts_files, acts_jobs, acts_network, acts_wms
from tests.chaos.kinds import Heals, Kind, Needs

FLOW, PILOTS, TMS = Heals.FLOW, Heals.PILOTS, Heals.TMS
_SOON: Final = (3.0, 8.0)
_LONGER: Final = (5.0, 14.0)
_RABBIT: Final = Needs.RABBITMQ

_KINDS: Final = (
    # --- pilots and their workers ---
    Kind("pilot-kill", acts_jobs.signal_pilot(signal.SIGKILL), PILOTS),
    Kind("pilot-term", acts_jobs.signal_pilot(signal.SIGTERM), PILOTS),
    Kind("pilot-freeze", acts_jobs.signal_pilot(signal.SIGSTOP), FLOW, _SOON),
    Kind("pilot-launcher-kill", acts_jobs.kill_launcher, PILOTS),
    Kind("worker-hold", acts_jobs.hold, PILOTS, _SOON),
    Kind("worker-vacate", acts_jobs.vacate, PILOTS),
    Kind("worker-rm", acts_jobs.remove, PILOTS),
    # --- the TMS and its helpers ---
    Kind("tms-kill", acts_jobs.signal_tms(signal.SIGKILL, tms=True, helpers=False), TMS, ends_all=True),
    Kind("tms-helpers-kill", acts_jobs.signal_tms(signal.SIGKILL, tms=False, helpers=True), TMS, ends_all=True),
    Kind("tms-and-helpers-kill", acts_jobs.signal_tms(signal.SIGKILL, tms=True, helpers=True), TMS, ends_all=True),
    Kind("tms-term", acts_jobs.signal_tms(signal.SIGTERM, tms=True, helpers=False), TMS, ends_all=True),
    Kind("tms-freeze", acts_jobs.signal_tms(signal.SIGSTOP, tms=True, helpers=False), TMS, _SOON),
    Kind(
        "tms-helpers-freeze",
        acts_jobs.signal_tms(signal.SIGSTOP, tms=False, helpers=True),
        TMS,
        (3.0, 15.0),
        ends_all=True,
    ),
    Kind("tms-clock-step", acts_jobs.step_clock, TMS, _SOON, alone="clock"),
    # --- HTCondor ---
    Kind("schedd-restart", acts_jobs.restart_daemon("schedd"), PILOTS, needs=Needs.HTCONDOR, ends_all=True),
    Kind(
        "schedd-kill",
        acts_jobs.signal_daemons("condor_schedd", signal.SIGKILL),
        PILOTS,
        needs=Needs.HTCONDOR,
        ends_all=True,
    ),
    Kind("schedd-freeze", acts_jobs.signal_daemons("condor_schedd", signal.SIGSTOP), TMS, _LONGER, Needs.HTCONDOR),
    Kind(
        "schedd-freeze",
        acts_jobs.signal_daemons("-m\0ewms.testing.schedd", signal.SIGSTOP),
        TMS,
        _LONGER,
        Needs.EMBEDDED,
    ),
    Kind("startd-restart", acts_jobs.restart_daemon("startd"), PILOTS, needs=Needs.HTCONDOR, ends_all=True),
    Kind(
        "shadow-kill",
        acts_jobs.signal_daemons("condor_shadow", signal.SIGKILL, one=True),
        PILOTS,
        needs=Needs.HTCONDOR,
        ends_all=True,
    ),
    Kind(
        "starter-freeze",
        acts_jobs.signal_daemons("condor_starter", signal.SIGSTOP, one=True),
        FLOW,
        _LONGER,
        Needs.HTCONDOR,
    ),
    # --- the broker, and the network to it ---
    Kind("broker-restart", acts_broker.restart("stop"), FLOW, needs=_RABBIT, alone="broker"),
    Kind("broker-kill", acts_broker.restart("kill"), FLOW, (0.0, 5.0), _RABBIT, alone="broker"),
    Kind("broker-connections-closed", acts_broker.close_connections(None), FLOW, needs=_RABBIT, alone="broker"),
    Kind("broker-connection-closed", acts_broker.close_connections(1), FLOW, needs=_RABBIT, alone="broker"),
    Kind("broker-channels-closed", acts_broker.close_channels(one=False), FLOW, needs=_RABBIT, alone="broker"),
    Kind("broker-channel-closed", acts_broker.close_channels(one=True), FLOW, needs=_RABBIT, alone="broker"),
    Kind("broker-queue-full", acts_broker.full_queue, FLOW, _SOON, _RABBIT, alone="broker"),
    Kind("broker-net-stall", acts_network.to_broker("stall"), FLOW, _SOON, _RABBIT, alone="broker-net"),
    Kind("broker-net-delay", acts_network.to_broker("delay", 0.3), FLOW, _LONGER, _RABBIT, alone="broker-net"),
    Kind("broker-net-loss", acts_network.to_broker("loss", 0.2), FLOW, _LONGER, _RABBIT, alone="broker-net"),
    Kind("broker-net-half-open", acts_network.to_broker("sever"), FLOW, _SOON, _RABBIT, alone="broker-net"),
    Kind("broker-net-reset", acts_network.to_broker("reset"), FLOW, needs=_RABBIT, alone="broker-net"),
    Kind("broker-net-refused", acts_network.to_broker("refuse"), FLOW, _SOON, _RABBIT, alone="broker-net"),
    # --- the WMS, and the network to it ---
    Kind("wms-503", acts_wms.fails(status=503), TMS, _SOON, alone="wms"),
    Kind("wms-429", acts_wms.fails(status=429, retry_after=2), TMS, _SOON, alone="wms"),
    Kind("wms-401", acts_wms.fails(status=401), TMS, _SOON, alone="wms"),
    Kind("wms-slow", acts_wms.fails(delay=4), TMS, _LONGER, alone="wms"),
    Kind("wms-gone", acts_wms.gone, TMS, _SOON, alone="wms"),
    Kind("wms-answers-lost", acts_wms.loses_answers, TMS, _SOON, alone="wms"),
    Kind("wms-lies", acts_wms.lies, TMS, _SOON, alone="wms"),
    Kind("wms-tokens-void", acts_wms.revoke, TMS, alone="wms"),
    Kind("wms-net-stall", acts_network.to_wms("stall"), TMS, _SOON, alone="wms-net"),
    Kind("wms-net-delay", acts_network.to_wms("delay", 0.5), TMS, _LONGER, alone="wms-net"),
    Kind("wms-net-loss", acts_network.to_wms("loss", 0.3), TMS, _LONGER, alone="wms-net"),
    Kind("wms-net-half-open", acts_network.to_wms("sever"), TMS, _SOON, alone="wms-net"),
    Kind("wms-net-reset", acts_network.to_wms("reset"), TMS, alone="wms-net"),
    Kind("wms-net-refused", acts_network.to_wms("refuse"), TMS, _SOON, alone="wms-net"),
    # --- files ---
    Kind("disk-full", acts_files.full_disk, TMS, _SOON, Needs.MOUNTS, alone="disk", ends_all=True),
    Kind("disk-read-only", acts_files.read_only, TMS, _SOON, Needs.MOUNTS, alone="disk", ends_all=True),
    Kind("log-torn", acts_files.torn_log, TMS, alone="disk"),
    Kind("log-truncated", acts_files.truncated_log, TMS, alone="disk"),
    Kind("log-replaced", acts_files.replaced_log, TMS, alone="disk"),
    Kind("log-stuck", acts_files.stuck_log, TMS, _SOON, alone="disk"),
    # --- orders in the middle of it ---
    Kind("order-start", acts_wms.start, TMS, alone="wms"),
    Kind("order-stop", acts_wms.stop, TMS, alone="wms"),
    Kind("order-withdrawn", acts_wms.withdraw, TMS, alone="wms"),
)


def kinds(having: Needs, only: Iterable[str] = (), *, soak: bool = False) -> Mapping[str, Kind]:
    """The kinds that are possible where there is what `having` says, by name; `only` some of them.

    In a `soak` only those that leave the TMS alive, and pilots that are spared.

    Raises:
        ValueError: one that is asked for is not possible.
    """
    possible = {kind.name: kind for kind in _KINDS if not kind.needs & ~having and not (soak and kind.ends_all)}
    wanted = list(only)
    if missing := [name for name in wanted if name not in possible]:
        raise ValueError(f"not possible here: {', '.join(missing)}; possible are: {', '.join(sorted(possible))}")
    return {name: possible[name] for name in wanted or possible}
