"""Where pilots fail, what is suspicious about it, and what is excluded."""

import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.tms.eventlog.format import frames
from ewms.tms.metrics import Metrics
from ewms.tms.review import review, show
from ewms.tms.sites import UNKNOWN_SITE, Count, End, Sites, SiteTally, end_of
from ewms.tms.suspects import Exclusion, Rules, Suspect, all_suspects, avoided, decide, suspicious

START = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
DAY = START.date()

EXITED = "005 Job terminated.\n\t(1) Normal termination (return value {})"
KILLED = "005 Job terminated.\n\t(0) Abnormal termination (signal 9)\n\t(0) No core file"
REMOVED = "009 Job was aborted.\n\tvia condor_rm"


class Log:
    """Writes events as HTCondor does."""

    def __init__(self) -> None:
        self.text = ""
        self.now = START

    def write(self, proc: int, text: str, after: float = 0) -> None:
        self.now += timedelta(seconds=after)
        number, _, rest = text.partition(" ")
        self.text += f"{number} (007.{proc:03d}.000) {self.now:%Y-%m-%d %H:%M:%S}Z {rest}\n...\n"

    def execute(self, proc: int, host: str = "node1.example.org") -> None:
        self.write(proc, f"001 Job executing on host: <1.2.3.4:5>\n\tSlotName: slot1_1@glidein_1_2@{host}\n\tCpus = 1")

    def chirp(self, proc: int, name: str, value: str) -> None:
        self.write(proc, f'008 HTChirpEWMSPilot{name}: "{value}"')

    def run(self, proc: int, end: str, *, lasts: float = 3600, site: str = "MWT2", host: str = "n1") -> None:
        self.execute(proc, host)
        self.chirp(proc, "Site", site)
        self.chirp(proc, "Host", host)
        self.chirp(proc, "TasksTotal", "5")
        self.write(proc, end, after=lasts)

    def tally(self, keep: int = 24 * 3600) -> Sites:
        sites = Sites(keep)
        sites.tally("log").take(frames(self.text.encode()), DAY)
        return sites


def test_runs_by_site_and_host() -> None:
    log = Log()
    log.run(0, EXITED.format(0))
    log.run(1, EXITED.format(1), lasts=30, host="n2")
    log.run(2, EXITED.format(1), lasts=3000, site="FNAL", host="f1")
    tally = log.tally()
    assert tally.sites() == {"MWT2": Count(2, 1, 1, 3630), "FNAL": Count(1, 1, 0, 3000)}
    assert tally.hosts() == {"n1": Count(1, 0, 0, 3600), "n2": Count(1, 1, 1, 30), "f1": Count(1, 1, 0, 3000)}
    assert tally.site_of(["f1"]) == {"f1": "FNAL"}


def test_a_pilot_that_dies_before_it_chirps_counts_for_its_slots_host() -> None:
    log = Log()
    log.execute(0, "bad.example.org")
    log.write(0, KILLED, after=2)
    assert log.tally().sites() == {UNKNOWN_SITE: Count(1, 1, 1, 2)}
    log.run(1, EXITED.format(0), host="bad.example.org", lasts=10)
    tally = log.tally()
    assert tally.hosts() == {"bad.example.org": Count(2, 1, 1, 12)}
    assert tally.sites() == {"MWT2": Count(2, 1, 1, 12)}  # somebody on that host said where it is


@pytest.mark.parametrize(
    ("slot", "host"),
    [("slot1_1@n1", "n1"), ("slot1_1@glidein_1_2@n1", "n1"), ("slot1@n1@@", "n1"), ("@n1", "n1"), ("slot1", None)],
)
def test_the_host_behind_a_slot(slot: str, host: str | None) -> None:
    log = Log()
    log.write(0, f"001 Job executing on host: <1.2.3.4:5>\n\tSlotName: {slot}\n\tCpus = 1")
    log.write(0, KILLED, after=2)
    assert list(log.tally().hosts()) == ([host] if host else [])


def test_an_error_says_nothing_of_the_site() -> None:
    log = Log()
    for proc in (0, 1):
        log.execute(proc, "n1")
    log.chirp(0, "Site", "first")
    log.chirp(1, "Site", "second")
    log.chirp(0, "Error", "boom")
    assert log.tally().site_of(["n1"]) == {"n1": "second"}


def test_a_starter_error_before_any_execution_counts() -> None:
    log = Log()
    for _ in range(3):
        log.write(0, "021 Error from starter on slot1_3@node9.example.org:\n\tno such image\n\tCode 45 Subcode -1000")
        log.write(0, "004 Job was evicted. Code 45 Subcode -1000\n\t(0) CPU times", after=1)
    assert log.tally().hosts() == {"node9.example.org": Count(3, 3, 3, 3)}


def test_a_run_that_was_cut_short_failed_if_its_pilot_had_told_an_error() -> None:
    log = Log()
    log.run(0, REMOVED)
    log.execute(1, "n1")
    log.chirp(1, "Error", "task failed (exit code 1): boom")
    log.write(1, REMOVED, after=500)
    log.execute(2, "n1")
    log.chirp(2, "ErrorTraceback", "only this")
    log.write(2, REMOVED)
    assert log.tally().hosts()["n1"] == Count(3, 1, 0, 4100)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (EXITED.format(0), End.WELL),
        (EXITED.format(1), End.FAILED),
        (EXITED.format(127), End.FAILED),
        (EXITED.format(255), End.FAILED),
        (KILLED, End.FAILED),
        ("004 Job was evicted. Code 1022 Subcode 0\n\t(0) CPU times", End.CUT_SHORT),
        ("004 Job was evicted.\n\t(0) CPU times", End.CUT_SHORT),
        ("004 Job was evicted. Code 45 Subcode 1", End.FAILED),
        (
            "004 Job was evicted.\n\t(0) Job terminated and was requeued\n\t(1) Normal termination (return value 1)",
            End.FAILED,
        ),
        ("007 Shadow exception!\n\tfile transfer failed", End.FAILED),
        ("009 Job was aborted.", End.CUT_SHORT),
        ("012 Job was held.\n\tby user\n\tCode 1 Subcode 0", End.CUT_SHORT),
        ("012 Job was held.\n\ttoo long\n\tCode 47 Subcode 0", End.CUT_SHORT),
        ("012 Job was held.\n\tno such file\n\tCode 13 Subcode 2", End.FAILED),
        ("024 Job reconnection failed", End.CUT_SHORT),
    ],
)
def test_how_a_run_ended(text: str, end: End) -> None:
    log = Log()
    log.write(0, text)
    ((event, number, _cluster, _proc),) = frames(log.text.encode()).events
    assert end_of(number, event) is end


def test_hours_that_are_over_are_forgotten() -> None:
    log = Log()
    log.run(0, EXITED.format(1), host="old")
    log.run(1, EXITED.format(0), lasts=30 * 3600, host="new")
    tally = log.tally()
    assert set(tally.hosts()) == {"new"}
    assert tally.site_of(["old"]) == {"old": UNKNOWN_SITE}


def test_since_when() -> None:
    log = Log()
    log.run(0, EXITED.format(1), host="early")
    log.run(1, EXITED.format(0), lasts=5 * 3600, host="late")
    noon = int(datetime(2026, 11, 21, 13, tzinfo=UTC).timestamp())
    assert set(log.tally().hosts(noon)) == {"late"}


def test_what_is_not_ours_is_passed_over() -> None:
    log = Log()
    log.write(0, "008 T0 1795295428.542 hello Site: EWMSPilot")
    log.chirp(0, "Site", "of a job that never executed")
    log.write(-1, "036 Cluster removed")
    log.write(0, EXITED.format(1))
    assert log.tally().sites() == {}


@given(st.lists(st.integers(0, 400), max_size=6))
def test_any_cut_of_a_log_and_a_restart_at_each_give_the_same_counts(cuts: list[int]) -> None:
    log = Log()
    for proc in range(6):
        log.run(proc, EXITED.format(proc % 2), lasts=100)
    text = log.text.encode()
    ends = [index + 5 for index in range(len(text)) if text.startswith(b"\n...\n", index)]
    places = sorted({0, len(text), *(ends[cut % len(ends)] for cut in cuts)})
    tally = SiteTally()
    for start, end in pairwise(places):
        tally.take(frames(text[start:end]), date(2026, 11, 21))
        tally = SiteTally.load(json.loads(json.dumps(tally.dump())))
    sites = Sites()
    sites.restore("log", tally)
    assert sites.sites() == log.tally().sites()
    assert sites.hosts() == log.tally().hosts()


def test_logs_count_together_until_they_are_dropped_or_begun_anew() -> None:
    first, second = Log(), Log()
    first.run(0, EXITED.format(0), host="n1", site="OLD")
    second.run(0, EXITED.format(1), host="n1", site="NEW")
    second.execute(1, "n1")
    second.write(1, KILLED, after=10)
    sites = Sites()
    for name, log in (("2026-11-20.tms.jel", first), ("2026-11-21.tms.jel", second)):
        sites.tally(name).take(frames(log.text.encode()), DAY)
    assert sites.hosts() == {"n1": Count(3, 2, 1, 7210)}
    assert sites.site_of(["n1"]) == {"n1": "NEW"}
    assert set(sites.sites()) == {"OLD", "NEW"}
    sites.drop("2026-11-20.tms.jel")
    assert set(sites.sites()) == {"NEW"}
    sites.restart("2026-11-21.tms.jel")
    assert sites.sites() == {}


# --- suspicion ---

GOOD = Count(200, 4, 0, 700_000)
BLACK_HOLE = Count(500, 500, 499, 5_000)


def names(suspects: list[Suspect]) -> list[str]:
    return [suspect.name for suspect in suspects]


def test_a_black_hole_is_named_with_its_numbers() -> None:
    (suspect,) = suspicious("site", {"A": GOOD, "B": GOOD, "HOLE": BLACK_HOLE}, Rules())
    assert str(suspect) == "site HOLE: 500 of 500 runs failed, 499 of them within 120 s; elsewhere 2% fail"


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"ONLY": BLACK_HOLE},
        {"A": GOOD, "FEW": Count(9, 9, 9, 9)},
        {
            "A": Count(100, 90, 90, 1000),
            "B": Count(100, 95, 95, 900),
            "C": Count(100, 100, 99, 800),
        },  # the task's fault
        {"A": GOOD, "B": Count(20, 4, 0, 60_000)},
        {"A": GOOD, UNKNOWN_SITE: BLACK_HOLE},
        {"A": Count(5, 0, 0, 90_000), "HOLE": BLACK_HOLE},  # too little to compare with
    ],
)
def test_what_is_not_suspicious(counts: dict[str, Count]) -> None:
    assert suspicious("site", counts, Rules()) == []


def test_several_bad_ones_do_not_hide_each_other() -> None:
    counts = {"A": GOOD, "H1": BLACK_HOLE, "H2": Count(300, 290, 290, 4000), "H3": Count(100, 60, 0, 200_000)}
    assert names(suspicious("site", counts, Rules())) == ["H1", "H2", "H3"]


def test_a_bad_site_stands_for_its_hosts() -> None:
    hosts = {"h1": Count(250, 250, 250, 2500), "h2": Count(250, 250, 250, 2500), "a1": GOOD, "a2": BLACK_HOLE}
    sites = {"A": Count(2000, 540, 500, 7_000_000), "HOLE": BLACK_HOLE}
    found = all_suspects(sites, hosts, {"h1": "HOLE", "h2": "HOLE", "a1": "A", "a2": "A"}, Rules())
    assert [(each.kind, each.name) for each in found] == [("site", "HOLE"), ("host", "a2")]


# --- exclusion ---


def suspect(name: str) -> Suspect:
    return Suspect("site", name, BLACK_HOLE, 0.02)


POOL = {"A": GOOD, "B": GOOD, "HOLE": BLACK_HOLE, "BIG": Count(500, 450, 0, 900_000)}


def test_an_exclusion_has_an_expiry() -> None:
    first = decide([], [suspect("HOLE")], {"site": POOL}, 1000, Rules(exclude_for=100))
    assert [(each.name, each.until) for each in first.added] == [("HOLE", 1100)]
    again = decide(first.excluded, [suspect("HOLE")], {"site": POOL}, 1099, Rules(exclude_for=100))
    assert (again.added, again.lapsed, again.excluded) == ((), (), first.excluded)
    over = decide(again.excluded, [], {"site": POOL}, 1100, Rules(exclude_for=100))
    assert (over.excluded, over.lapsed) == ((), first.excluded)


def test_the_floor_keeps_most_of_the_pool_open() -> None:
    decision = decide([], [suspect("BIG"), suspect("HOLE")], {"site": POOL}, 0, Rules())
    assert [each.name for each in decision.excluded] == ["HOLE"]
    assert [each.name for each in decision.refused] == ["BIG"]


def test_what_is_excluded_already_counts_for_the_floor() -> None:
    current = [Exclusion("site", "A", 1e9, "")]
    decision = decide(current, [suspect("B")], {"site": POOL}, 0, Rules(max_excluded=0.5))
    assert [each.name for each in decision.refused] == ["B"]


counts = st.builds(Count, st.integers(1, 1000), st.just(0), st.just(0), st.integers(0, 10**6))


@given(st.dictionaries(st.sampled_from("ABCDEFGH"), counts, min_size=1), st.floats(0, 1))
def test_never_more_than_the_floor_allows(pool: dict[str, Count], share: float) -> None:
    suspects = [suspect(name) for name in pool]
    decision = decide([], suspects, {"site": pool}, 0, Rules(max_excluded=share))
    total = sum(count.busy + count.runs for count in pool.values())
    excluded = sum(pool[each.name].busy + pool[each.name].runs for each in decision.excluded)
    assert excluded <= share * total
    assert len(decision.excluded) + len(decision.refused) == len(pool)


def test_an_excluded_place_keeps_its_size_for_the_floor() -> None:
    """Nobody goes there any more, so that it looks small: its own exclusion must not make room for the next one."""
    pool = {"A": Count(10, 0, 0, 800_000), "B": Count(10, 9, 0, 100_000), "C": Count(10, 9, 0, 150_000)}
    first = decide([], [suspect("C")], {"site": pool}, 0, Rules())
    assert [each.name for each in first.excluded] == ["C"]
    later = decide(first.excluded, [suspect("B")], {"site": {**pool, "C": Count(0, 0, 0, 0)}}, 10, Rules())
    assert [each.name for each in later.refused] == ["B"]


def test_what_a_new_worker_avoids() -> None:
    exclusions = [Exclusion("site", "X", 0, ""), Exclusion("host", "n1.x.org", 0, "")]
    assert avoided(exclusions) == [("GLIDEIN_Site", "X"), ("OSG_SITE_NAME", "X"), ("Machine", "n1.x.org")]


def pool_with_a_black_hole() -> Log:
    log = Log()
    for proc in range(40):
        log.run(proc, EXITED.format(0), lasts=600, site="GOOD", host="good1")
    for proc in range(40, 60):
        log.run(proc, EXITED.format(1), lasts=5, site="HOLE", host="hole1")
    return log


async def test_a_review_names_and_shows_the_suspects() -> None:
    log = pool_with_a_black_hole()
    sites, now = log.tally(), log.now.timestamp()
    suspects = review(sites, now)
    assert [str(each) for each in suspects] == [
        "site HOLE: 20 of 20 runs failed, 20 of them within 120 s; elsewhere 0% fail"
    ]
    assert review(sites, now + 3 * 86400) == []
    metrics = Metrics()
    show(metrics, sites.sites(), suspects)
    text = metrics.text().decode()
    for line in (
        'ewms_tms_site_runs{site="GOOD"} 40.0',
        'ewms_tms_site_failures{site="HOLE"} 20.0',
        'ewms_tms_suspicious{place="site HOLE"} 1.0',
    ):
        assert line in text
