"""Where pilots only fail, no new worker goes, if the operator allows it; also after a restart."""

import time
from datetime import UTC, datetime

import attrs
import structlog.testing
from tms_bench import Bench, until

from ewms.tms.context import Context
from ewms.tms.eventlog.format import frames
from ewms.tms.exclusions import load
from ewms.wms.models import Phase

EXECUTING = "001 ({id}) {at} Job executing on host: <1.2.3.4:5>\n\tSlotName: slot1@node1.{site}.org\n...\n"
SITE = '008 ({id}) {at} HTChirpEWMSPilotSite: "{site}"\n...\n'
ENDED = "005 ({id}) {at} Job terminated.\n\t(1) Normal termination (return value {status})\n...\n"
AVOIDS = 'GLIDEIN_Site =!= "HOLE" && OSG_SITE_NAME =!= "HOLE"'


def runs(ctx: Context, site: str, count: int, status: int, lasts: float) -> None:
    for proc in range(count):
        begun = time.time() - 3600
        for text, at in ((EXECUTING, begun), (SITE, begun), (ENDED, begun + lasts)):
            stamp = datetime.fromtimestamp(at, UTC)
            event = text.format(id=f"007.{proc:03d}.000", at=f"{stamp:%Y-%m-%d %H:%M:%S}Z", site=site, status=status)
            ctx.sites.tally("log").take(frames(event.encode()), stamp.date())


async def requirements_of_a_new_order(bench: Bench) -> str:
    uuid = bench.order()
    await until(lambda: bench.taskforce(uuid).phase == Phase.CONDOR_SUBMIT)
    return str(bench.taskforce(uuid).submit_dict["requirements"])


def with_a_black_hole(ctx: Context) -> None:
    runs(ctx, "GOOD", 40, 0, 1800)
    runs(ctx, "HOLE", 20, 1, 5)


async def reviewed(bench: Bench, shown: str) -> tuple[str, str, list[str]]:
    """What a new order requires once the metrics show what a review found; the metrics; the warnings."""
    with structlog.testing.capture_logs() as logs:
        async with bench.tms(with_a_black_hole) as ctx:
            await until(lambda: shown in ctx.metrics.text().decode())
            requirements = await requirements_of_a_new_order(bench)
            metrics = ctx.metrics.text().decode()
    return requirements, metrics, [each["event"] for each in logs if each["log_level"] == "warning"]


async def test_by_default_suspects_are_only_named(bench: Bench) -> None:
    requirements, metrics, warnings = await reviewed(bench, 'ewms_tms_suspicious{place="site HOLE"} 1.0')
    assert "HOLE" not in requirements
    assert "ewms_tms_excluded{" not in metrics
    assert warnings == ["pilots fail there much more often than elsewhere"]


async def test_where_it_is_allowed_new_workers_avoid_them_also_after_a_restart(bench: Bench) -> None:
    bench = attrs.evolve(bench, settings=attrs.evolve(bench.settings, exclude_suspicious=True))
    requirements, _, warnings = await reviewed(bench, 'ewms_tms_excluded{place="site HOLE"}')
    assert AVOIDS in requirements
    assert "excluded for new workers" in warnings
    async with bench.tms() as ctx:
        assert AVOIDS in await requirements_of_a_new_order(bench)
        assert load(ctx.settings).known() == ctx.exclusions.known()
        assert 23 * 3600 < ctx.exclusions.known()[0].until - time.time() <= 24 * 3600
