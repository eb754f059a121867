"""Look, now and then, at where pilots fail, and name the sites and hosts that differ from the rest."""

import time
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

import structlog
import trio

from ewms.tms.context import Context
from ewms.tms.liveness import beat_here
from ewms.tms.metrics import Metrics
from ewms.tms.sites import Count, SiteTally
from ewms.tms.suspects import Rules, Suspect, all_suspects

log = structlog.stdlib.get_logger(__name__)

INTERVAL: Final = 600.0
LOOK_BACK: Final = 24 * 3600
_SITES_SHOWN: Final = 100
"""In the metrics: the busiest ones."""


async def run_reviews(ctx: Context) -> NoReturn:
    """Review for ever; a suspect is named when it becomes one, and once more when it is none any more."""
    known: frozenset[str] = frozenset()
    while True:
        suspects = review(ctx.sites, time.time())
        known = _tell(suspects, known)
        show(ctx.metrics, ctx.sites.sites(int(time.time()) - LOOK_BACK), suspects)
        beat_here()
        await trio.sleep(INTERVAL)


def review(sites: SiteTally, now: float) -> list[Suspect]:
    """The suspicious sites and hosts of the last day (`now` in epoch s)."""
    since = int(now) - LOOK_BACK
    hosts = sites.hosts(since)
    return all_suspects(sites.sites(since), hosts, {host: sites.site_of(host) for host in hosts}, Rules())


def show(metrics: Metrics, sites: Mapping[str, Count], suspects: Iterable[Suspect]) -> None:
    """Put the numbers into the metrics."""
    busiest = sorted(sites, key=lambda name: (-sites[name].runs, name))[:_SITES_SHOWN]
    metrics.site_runs.replace({name: sites[name].runs for name in busiest})
    metrics.site_failures.replace({name: sites[name].failures for name in busiest})
    metrics.suspicious.replace({_name(each): each.count.failures / each.count.runs for each in suspects})


def _tell(suspects: Iterable[Suspect], known: frozenset[str]) -> frozenset[str]:
    named = {_name(each): each for each in suspects}
    for name, suspect in named.items():
        if name not in known:
            log.warning("pilots fail there much more often than elsewhere", place=name, numbers=str(suspect))
    for name in sorted(known - named.keys()):
        log.info("pilots do not fail there more often than elsewhere any more", place=name)
    return frozenset(named)


def _name(suspect: Suspect) -> str:
    return f"{suspect.kind} {suspect.name}"
