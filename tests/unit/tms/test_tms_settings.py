import pytest

from ewms.secret import Secret
from ewms.settings import SettingsError
from ewms.tms.settings import read

LOCAL = {"EWMS_ADDRESS": "http://wms", "JOB_EVENT_LOG_DIR": "/scratch/jobs", "TMS_NO_AUTH": "true"}


def test_every_problem_is_told_at_once_and_no_secret_is_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        read({"TMS_MAX_IDLE": "x", "LOG_LEVEL": "loud", "EWMS_CLIENT_SECRET": "SUPER-SECRET", "TMS_ERROR_WAIT": "-1"})
    names = [problem.partition(":")[0] for problem in caught.value.problems]
    assert sorted(names) == [
        "EWMS_ADDRESS",
        "EWMS_CLIENT_ID",
        "EWMS_TOKEN_URL",
        "JOB_EVENT_LOG_DIR",
        "LOG_LEVEL",
        "TMS_ERROR_WAIT",
        "TMS_MAX_IDLE",
    ]
    assert "SUPER-SECRET" not in str(caught.value)


def test_todays_envfile_is_enough() -> None:
    found = read(
        {
            "EWMS_ADDRESS": "https://ewms.example.org",
            "EWMS_CLIENT_ID": "tms",
            "EWMS_CLIENT_SECRET": "SUPER-SECRET",
            "EWMS_TOKEN_URL": "https://keycloak.example.org/auth/realms/X",
            "JOB_EVENT_LOG_DIR": "/scratch/jobs",
        }
    )
    assert found.client_secret == Secret("SUPER-SECRET")
    assert (found.outer_loop_wait, found.watcher_interval, found.error_wait) == (60, 180, 10)
    assert found.max_logging_interval == 300
    assert "SUPER-SECRET" not in repr(found)


def test_no_token_only_when_asked_for() -> None:
    assert read(LOCAL).no_auth
    with pytest.raises(SettingsError, match="EWMS_TOKEN_URL: is required"):
        read(LOCAL | {"TMS_NO_AUTH": "false"})


def test_site_names_have_spaces_and_commas() -> None:
    found = read(LOCAL | {"TMS_EXCLUDED_GLIDEIN_SITES": "San Diego, CA; SDSC-PRP ;\n", "TMS_EXCLUDED_OSG_SITES": ";"})
    assert found.excluded_glidein_sites == ("San Diego, CA", "SDSC-PRP")
    assert found.excluded_osg_sites == ()
    assert "Wichita State University" in read(LOCAL).excluded_osg_sites


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EWMS_ADDRESS", "ewms.example.org"),
        ("EWMS_ADDRESS", ""),
        ("EWMS_TOKEN_URL", "ftp://x"),
        ("JOB_EVENT_LOG_DIR", "relative/jobs"),
        ("JOB_EVENT_LOG_DIR", "/scratch/a b"),
        ("JOB_EVENT_LOG_DIR", "/scratch/a,b"),
        ("JOB_EVENT_LOG_DIR", "/scratch/$(HOME)"),
        ("JOB_EVENT_LOG_DIR", "/scratch/../etc"),
        ("TMS_BASE_REQUIREMENTS", "true\nqueue 1000"),
        ("TMS_BASE_REQUIREMENTS", "$(X)"),
        ("TMS_EXCLUDED_OSG_SITES", "a;b\\"),
        ("CVMFS_PILOT_PATH", "/cvmfs/$ENV(HOME)"),
        ("TMS_IMAGE_SOURCES", "docker"),
        ("TMS_MAX_IDLE", "0"),
        ("TMS_RELEASE_HOLD_CODES", "13 1"),
        ("TMS_RELEASE_HOLD_CODES", "x"),
        ("TMS_REQUEUE_EXIT_STATUSES", "-1"),
        ("TMS_MAX_REQUEUES", "-1"),
    ],
)
def test_an_operators_slip_is_found_at_the_start_not_at_each_order(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read(LOCAL | {name: value})


def test_own_forms() -> None:
    found = read(
        LOCAL
        | {
            "TMS_SCHEDD_HELPER": "python3 -m 'my helper' --socket /tmp/x",
            "TMS_IMAGE_SOURCES": "docker=docker://x/y:{tag}; sif=/images/{tag}.sif",
            "TMS_OUTER_LOOP_WAIT": "0.5",
            "LOG_LEVEL": "debug",
        }
    )
    assert found.schedd_helper == ("python3", "-m", "my helper", "--socket", "/tmp/x")
    assert dict(found.image_sources) == {"docker": "docker://x/y:{tag}", "sif": "/images/{tag}.sif"}
    assert found.outer_loop_wait == 0.5
    assert read(LOCAL | {"TMS_REQUEUE_EXIT_STATUSES": "none"}).requeue_exit_statuses == ()
    assert read(LOCAL | {"TMS_RELEASE_HOLD_CODES": "34, 13"}).release_hold_codes == (13, 34)
    assert found.log_level == "DEBUG"
