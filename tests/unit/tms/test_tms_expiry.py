import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.tms.condor.base import Value
from ewms.tms.entries import Entry
from ewms.tms.expiry import Expiries, Found, InUse, Kind, Verdict, in_use, judge, kind_of, sort_out

EXPIRIES = Expiries(log_short=100, log_long=700, log_archive=50, directory=500, directory_archive=400)
NOW = 1_800_000_000.0  # 2027-01-15
NOBODY = InUse(frozenset(), frozenset())


@pytest.mark.parametrize(
    ("name", "is_directory", "kind"),
    [
        ("2026-11-21.tms.jel", False, Kind.LOG),
        ("2026-11-21.tms.jel", True, None),
        ("2026-11-21.tms.jel.gz", False, Kind.LOG_ARCHIVE),
        ("2026-11-21.tms.jel.gz.damaged", False, Kind.LOG_ARCHIVE),
        ("2026-11-21.tms.jel.gz.gz", False, None),
        (".2026-11-21.tms.jel.gz.new", False, Kind.LEFTOVER),
        ("ewms-taskforce-TF-6b021623-ac05c9a0", True, Kind.DIRECTORY),
        ("ewms-taskforce-TF-6b021623-ac05c9a0", False, None),
        ("ewms-taskforce-TF-6b021623-ac05c9a0.tar.gz", False, Kind.DIRECTORY_ARCHIVE),
        ("ewms-taskforce-TF-6b021623-ac05c9a0.tar.gz.damaged", False, Kind.DIRECTORY_ARCHIVE),
        (".ewms-taskforce-TF-6b021623-ac05c9a0.tar.gz.new", False, Kind.LEFTOVER),
        (".ewms-taskforce-TF-6b021623-ac05c9a0.archived", True, Kind.LEFTOVER),
        ("ewms-taskforce-", True, None),
        ("notes.txt", False, None),
        ("tms.jel", False, None),
        (".tms", True, None),
        ("logs", True, None),
    ],
)
def test_what_a_name_stands_for(name: str, is_directory: bool, kind: Kind | None) -> None:
    assert kind_of(name, is_directory=is_directory) is kind


def log_of(age: float, name: str = "2026-11-21.tms.jel") -> Found:
    return Found(name, Kind.LOG, NOW - age)


DIRECTORY = "ewms-taskforce-TF-1"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (log_of(99), Verdict.KEEP),
        (log_of(100), Verdict.ASK),
        (log_of(699), Verdict.ASK),
        (log_of(700), Verdict.ACT),
        (log_of(10_000, "2027-01-15.tms.jel"), Verdict.KEEP),
        (log_of(10_000, "2027-01-16.tms.jel"), Verdict.KEEP),
        (log_of(10_000, "2027-01-14.tms.jel"), Verdict.ACT),
        (log_of(10_000, "2027-13-14.tms.jel"), Verdict.ACT),
        (log_of(-5), Verdict.KEEP),
        (Found("x", Kind.LOG_ARCHIVE, NOW - 49), Verdict.KEEP),
        (Found("x", Kind.LOG_ARCHIVE, NOW - 50), Verdict.ACT),
        (Found(DIRECTORY, Kind.DIRECTORY, NOW - 499), Verdict.KEEP),
        (Found(DIRECTORY, Kind.DIRECTORY, NOW - 500), Verdict.ACT),
        (Found("x", Kind.DIRECTORY_ARCHIVE, NOW - 399), Verdict.KEEP),
        (Found("x", Kind.DIRECTORY_ARCHIVE, NOW - 400), Verdict.ACT),
        (Found("x", Kind.LEFTOVER, NOW), Verdict.ACT),
    ],
)
def test_the_five_expiries(found: Found, verdict: Verdict) -> None:
    assert judge(found, NOBODY, EXPIRIES, NOW) is verdict


@pytest.mark.parametrize("age", [100, 700, 1e9])
def test_no_age_makes_a_log_or_directory_that_is_needed_expire(age: float) -> None:
    used = InUse(frozenset({"2026-11-21.tms.jel"}), frozenset({f"a.txt,/jobs/{DIRECTORY}/envfile.sh"}))
    assert judge(log_of(age), used, EXPIRIES, NOW) is Verdict.NEEDED
    assert judge(Found(DIRECTORY, Kind.DIRECTORY, NOW - age - 500), used, EXPIRIES, NOW) is Verdict.NEEDED


AD: dict[str, Value] = {
    "ClusterId": 7,
    "EWMSTaskforceUUID": None,
    "UserLog": None,
    "Iwd": "/somewhere",
    "TransferInput": None,
}


@pytest.mark.parametrize(
    ("more", "log", "directory"),
    [
        ({"UserLog": "/jobs/2026-11-21.tms.jel"}, True, False),
        ({"UserLog": "2026-11-21.tms.jel", "Iwd": "/jobs"}, True, False),
        ({"UserLog": "/other/2026-11-21.tms.jel"}, False, False),
        ({"EWMSTaskforceUUID": "TF-1"}, False, True),
        ({"Iwd": f"/jobs/{DIRECTORY}"}, False, True),
        ({"TransferInput": f"/a/b,/jobs/{DIRECTORY}/ewms_htcondor_envfile.sh"}, False, True),
        ({"Out": f"/jobs/{DIRECTORY}/cluster-7/0.out"}, False, True),
        ({}, False, False),
    ],
)
def test_what_a_living_cluster_needs(more: dict[str, Value], log: bool, directory: bool) -> None:
    used = in_use([AD | more], [], lambda path: path.startswith("/jobs/"))
    assert used.needs(log_of(0)) is log
    assert used.needs(Found(DIRECTORY, Kind.DIRECTORY, 0)) is directory
    assert not used.needs(Found("ewms-taskforce-TF-2", Kind.DIRECTORY, 0))


def test_a_start_that_is_not_settled_needs_its_log_and_directory() -> None:
    entry = Entry(taskforce_uuid="TF-1", log_path="/jobs/2026-11-21.tms.jel", n_workers=1, intended_at=0)
    used = in_use([], [entry], lambda _: True)
    assert used.needs(log_of(0))
    assert used.needs(Found(DIRECTORY, Kind.DIRECTORY, 0))


@given(
    st.lists(
        st.builds(Found, st.sampled_from([DIRECTORY, "2026-11-21.tms.jel"]), st.sampled_from(Kind), st.floats(0, 2e9))
    )
)
def test_every_file_has_exactly_one_verdict(found: list[Found]) -> None:
    sorted_out = sort_out(found, NOBODY, EXPIRIES, NOW)
    assert sorted(map(repr, found)) == sorted(repr(each) for files in sorted_out.values() for each in files)
