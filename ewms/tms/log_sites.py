"""`ewms log --sites`: where pilots fail, from any number of day logs."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from ewms.tms.sites import HOUR, QUICK, Count, Sites, SiteTally
from ewms.tms.suspects import Rules, Suspect, all_suspects

EVER: Final = 100 * 366 * 24 * HOUR
"""For a tally that forgets nothing: old logs are read to know what was."""
_HOSTS_SHOWN: Final = 20

SITES_HEAD: Final = ("site", "runs", "failed", f"within {QUICK} s", "busy hours")
HOSTS_HEAD: Final = ("host", "site", "runs", "failed", f"within {QUICK} s", "busy hours")


@attrs.frozen
class SitesReport:
    """What a tally of whole logs says."""

    sites: Mapping[str, Count]
    hosts: Mapping[str, Count]
    site_of: Mapping[str, str]
    suspects: tuple[Suspect, ...]

    def summary(self) -> dict[str, Any]:
        """The object that `--sites --json` prints."""
        return {
            "sites": {name: _numbers(self.sites[name]) for name in _worst_first(self.sites)},
            "hosts": {
                name: {"site": self.site_of[name], **_numbers(self.hosts[name])} for name in _worst_first(self.hosts)
            },
            "suspicious": [{"kind": each.kind, "name": each.name, "numbers": str(each)} for each in self.suspects],
        }

    def site_rows(self) -> list[tuple[str, ...]]:
        """All sites, the worst first."""
        return [(name, *_cells(self.sites[name])) for name in _worst_first(self.sites)]

    def host_rows(self) -> list[tuple[str, ...]]:
        """The hosts with the most failures."""
        failing = [name for name in _worst_first(self.hosts) if self.hosts[name].failures]
        return [(name, self.site_of[name], *_cells(self.hosts[name])) for name in failing[:_HOSTS_SHOWN]]

    def verdicts(self) -> list[str]:
        """The suspicious ones, in words."""
        return [f"suspicious: {each}" for each in self.suspects] or ["no site or host differs much from the others"]


def report_of(tally: SiteTally) -> SitesReport:
    """What it says of all that it was fed."""
    counted = Sites()
    counted.restore("", tally)
    sites, hosts = counted.sites(), counted.hosts()
    site_of = counted.site_of(hosts)
    return SitesReport(sites, hosts, site_of, tuple(all_suspects(sites, hosts, site_of, Rules())))


def _worst_first(counts: Mapping[str, Count]) -> Iterable[str]:
    return sorted(counts, key=lambda name: (-counts[name].failures, -counts[name].runs, name))


def _numbers(count: Count) -> dict[str, int]:
    return {"runs": count.runs, "failures": count.failures, "quick_deaths": count.quick, "busy_s": count.busy}


def _cells(count: Count) -> tuple[str, ...]:
    share = count.failures / count.runs
    return str(count.runs), f"{count.failures} ({share:.0%})", str(count.quick), f"{count.busy / HOUR:.1f}"
