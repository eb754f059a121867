"""Look, now and then, at where pilots fail, and name the sites and hosts that differ from the rest.

New workers keep away from them for a time, if the operator allows it; workers that are in the queue already are left
as they are.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

import structlog

from ewms.liveness import rest
from ewms.tms.context import Context
from ewms.tms.exclusions import Exclusions, can_be_avoided
from ewms.tms.metrics import Metrics
from ewms.tms.sites import Count, Sites
from ewms.tms.suspects import Decision, Kind, Rules, Suspect, all_suspects, decide

log = structlog.stdlib.get_logger(__name__)

INTERVAL: Final = 600.0
LOOK_BACK: Final = 24 * 3600
_SITES_SHOWN: Final = 100
"""In the metrics: the busiest ones."""


async def run_reviews(ctx: Context) -> NoReturn:
    """Review for ever; a suspect is named when it becomes one, and once more when it is none any more."""
    known: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    while True:
        suspects = review(ctx.sites, time.time())
        known = _tell(suspects, known)
        show(ctx.metrics, ctx.sites.sites(int(time.time()) - LOOK_BACK), suspects)
        if ctx.settings.exclude_suspicious:
            decision = await exclude(ctx.exclusions, ctx.sites, suspects, time.time())
            refused = _tell_exclusions(decision, refused)
            ctx.metrics.excluded.replace({each.place: each.until for each in decision.excluded})
        await rest(INTERVAL)


def review(sites: Sites, now: float) -> list[Suspect]:
    """The suspicious sites and hosts of the last day (`now` in epoch s)."""
    since = int(now) - LOOK_BACK
    hosts = sites.hosts(since)
    return all_suspects(sites.sites(since), hosts, sites.site_of(hosts), Rules())


async def exclude(exclusions: Exclusions, sites: Sites, suspects: Iterable[Suspect], now: float) -> Decision:
    """Keep new workers away from the suspects, as far as the floor allows."""
    since = int(now) - LOOK_BACK
    pool: dict[Kind, Mapping[str, Count]] = {"site": sites.sites(since), "host": sites.hosts(since)}
    decision = decide(exclusions.known(), filter(can_be_avoided, suspects), pool, now, Rules())
    await exclusions.replace(decision.excluded)
    return decision


def show(metrics: Metrics, sites: Mapping[str, Count], suspects: Iterable[Suspect]) -> None:
    """Put the numbers into the metrics."""
    busiest = sorted(sites, key=lambda name: (-sites[name].runs, name))[:_SITES_SHOWN]
    metrics.site_runs.replace({name: sites[name].runs for name in busiest})
    metrics.site_failures.replace({name: sites[name].failures for name in busiest})
    metrics.suspicious.replace({each.place: each.count.failures / each.count.runs for each in suspects})


def _tell(suspects: Iterable[Suspect], known: frozenset[str]) -> frozenset[str]:
    named = {each.place: each for each in suspects}
    for name, suspect in named.items():
        if name not in known:
            log.warning("pilots fail there much more often than elsewhere", place=name, numbers=str(suspect))
    for name in sorted(known - named.keys()):
        log.info("pilots do not fail there more often than elsewhere any more", place=name)
    return frozenset(named)


def _tell_exclusions(decision: Decision, known_refused: frozenset[str]) -> frozenset[str]:
    for each in decision.added:
        log.warning("excluded for new workers", place=each.place, reason=each.reason, until=_utc(each.until))
    for each in decision.lapsed:
        log.info("not excluded any more", place=each.place)
    refused = {each.place: each for each in decision.refused}
    for place, suspect in refused.items():
        if place not in known_refused:
            log.warning(
                "not excluded: too much of the pool would be, an operator has to look",
                place=place,
                numbers=str(suspect),
            )
    return frozenset(refused)


def _utc(epoch: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
