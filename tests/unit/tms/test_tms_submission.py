import json
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ewms.secret import Secret
from ewms.tms.envfile import envfile_text, parse_pilot_variables
from ewms.tms.errors import OrderRefused
from ewms.tms.policy import memory_request
from ewms.tms.settings import Settings
from ewms.tms.submission import Submission, build
from ewms.tms.submit_language import priority_ramp, size_in_bytes
from ewms.wms.converter import read
from ewms.wms.models import StartOrder

DATA = Path(__file__).parents[2] / "data" / "tms"
JOB_DIR = Path("/scratch/jobs")
LOG = JOB_DIR / "2026-11-21.tms.jel"
UUID = "TF-6b021e20-4759eae9-2ac038aa-8dcf0b99"
TASKFORCE_DIR = JOB_DIR / f"ewms-taskforce-{UUID}"


def settings(**changes: Any) -> Settings:
    return attrs.evolve(Settings(wms_address="http://wms", no_auth=True, job_dir=JOB_DIR), **changes)


def order(**changes: Any) -> StartOrder:
    """Today's captured order with changes: `taskforce__worker_config__n_cores=3`."""
    raw = json.loads((DATA / "start-order.json").read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = raw
        for parent in parents:
            place = place[parent]
        place[last] = value
    return read(StartOrder, raw, "start order")


def submission(settings_: Settings | None = None, **changes: Any) -> Submission:
    return build(order(**changes), settings_ or settings(), LOG)


def description(**changes: Any) -> dict[str, Any]:
    return dict(submission(**changes).description)


def test_todays_order_becomes_this_description() -> None:
    assert description() == {
        "universe": "container",
        "container_image": "/cvmfs/icecube.opensciencegrid.org/containers/ewms/observation-management-service/"
        "ewms-pilot:1.2.0",
        "transfer_container": "false",
        "requirements": "(ifthenelse(!isUndefined(HAS_SINGULARITY), HAS_SINGULARITY, HasSingularity) && "
        "HAS_CVMFS_icecube_opensciencegrid_org && HasUserNamespaces =?= true) && "
        'GLIDEIN_Site =!= "AMNH" && GLIDEIN_Site =!= "Kansas State University" && GLIDEIN_Site =!= "NotreDame" && '
        'GLIDEIN_Site =!= "Rhodes-HPC" && GLIDEIN_Site =!= "SDSC-PRP" && GLIDEIN_Site =!= "SU-ITS" && '
        'GLIDEIN_Site =!= "San Diego Supercomputer Center" && OSG_SITE_NAME =!= "Wichita State University" && '
        "(NumVacatesByReason.SingularityTestFailed ?: 0) < 10 * (1 + (NumHoldsByReason.JobPolicy ?: 0)) && "
        "((NumJobCompletions ?: 0) == 0 || TARGET.Machine =!= MachineAttrMachine0"
        " || time() - (JobCurrentFinishTransferOutputDate ?: 0) > 1200) && "
        '(Arch == "X86_64")',
        "log": "/scratch/jobs/2026-11-21.tms.jel",
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT_OR_EVICT",
        "transfer_input_files": f"{TASKFORCE_DIR}/ewms_htcondor_envfile.sh",
        "transfer_output_files": '""',
        "request_cpus": 2,
        "request_memory": memory_request(1024),
        "request_disk": 512 * 1024,
        "priority": "99 - ( ($(ProcId) * 49) / 3 )",
        "max_idle": 200,
        "allowed_execute_duration": 600,
        **settings().policy.commands(),
        "output": f"{TASKFORCE_DIR}/cluster-$(ClusterId)/$(ProcId).out",
        "error": f"{TASKFORCE_DIR}/cluster-$(ClusterId)/$(ProcId).err",
        "+WantRemoteUpdates": "true",
        "+EWMSTaskforceUUID": f'"{UUID}"',
        "submit_event_user_notes": f"EWMSTaskforceUUID={UUID}",
    }
    assert submission().n_workers == 4


def without_policy(requirements: str) -> str:
    for term in settings().policy.requirements():
        requirements = requirements.replace(f" && {term}", "", 1)
    return requirements


def test_what_todays_tms_says_is_kept() -> None:
    today = json.loads((DATA / "submit-description.json").read_text())
    ours: dict[str, Any] = description()
    ours["requirements"] = without_policy(ours["requirements"])
    for key in ("universe", "container_image", "log", "transfer_input_files", "priority", "output", "error"):
        assert ours[key] == today[key]
    assert (
        ours["requirements"].replace("(ifthenelse", "ifthenelse").replace("true) &&", "true &&")
        == today["Requirements"]
    )


def test_todays_envfile_sets_the_same_variables() -> None:
    assert sourced(submission().envfile) == sourced((DATA / "todays_envfile.sh").read_text())


def sourced(text: str, shell: str = "sh") -> dict[str, str]:
    result = subprocess.run(
        [shell, "-c", ". /dev/stdin; env -0"], input=text.encode(), env={}, capture_output=True, check=True, timeout=60
    )
    pairs = [pair.decode().partition("=") for pair in result.stdout.split(b"\0") if pair]
    return {name: value for name, _, value in pairs if name not in ("PWD", "SHLVL", "_", "OLDPWD")}


values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


@given(st.lists(values, min_size=1, max_size=20))
def test_every_value_arrives_through_a_real_shell(texts: list[str]) -> None:
    variables = {f"EWMS_PILOT_V{number}": text for number, text in enumerate(texts)}
    expected = {name: text.replace("\n", " ") for name, text in variables.items()}
    assert sourced(envfile_text(variables)) == expected
    assert sourced(envfile_text(variables), "bash") == expected


def test_the_envfile_is_not_echoed_and_not_in_a_repr() -> None:
    built = submission()
    assert "set -x" not in built.envfile
    assert "TOKEN-FOR-TESTS" in built.envfile
    assert "TOKEN-FOR-TESTS" not in repr(built)
    assert "TOKEN-FOR-TESTS" not in str(built.description)


@pytest.mark.parametrize("name", ["1A", "A-B", "A B", "", "A;rm", "Ä", "A\nB"])
def test_a_variable_with_no_names_form_is_refused(name: str) -> None:
    with pytest.raises(OrderRefused, match="not a variable's name"):
        submission(taskforce__pilot_config__environment={name: "x"})


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_value_that_no_environment_can_hold_is_refused(value: str) -> None:
    with pytest.raises(OrderRefused, match="cannot be in an environment"):
        envfile_text({"A": value})


# --- the environment ---


def variables(settings_: Settings | None = None, **changes: Any) -> dict[str, str]:
    return sourced(submission(settings_, **changes).envfile)


def test_the_wms_wins_over_the_operator_and_the_operator_over_constants() -> None:
    mine = settings(pilot_environment="EWMS_PILOT_HTCHIRP=False EWMS_PILOT_TASK_TIMEOUT=1 _EWMS_PILOT_X=a=b")
    found = variables(mine)
    assert found["EWMS_PILOT_HTCHIRP"] == "False"
    assert found["EWMS_PILOT_TASK_TIMEOUT"] == "60"
    assert found["_EWMS_PILOT_X"] == "a=b"


def test_what_is_not_for_a_pilot_is_named_and_dropped() -> None:
    found = parse_pilot_variables("EWMS_PILOT_A=1 PATH=/x _EWMS_PILOT_B= EWMS_PILOT_C LD_PRELOAD=secret EWMS_PILOT_;=1")
    assert found.passed_on == {"EWMS_PILOT_A": "1", "_EWMS_PILOT_B": ""}
    assert found.dropped == ("PATH", "EWMS_PILOT_C", "LD_PRELOAD", "EWMS_PILOT_;")


def test_queues_are_joined_in_the_directives_order_and_in_step() -> None:
    raw = json.loads((DATA / "start-order.json").read_text())["mqprofiles"]
    raw[0]["auth_token"], raw[1]["auth_token"], raw[1]["broker_type"] = "TOKEN-ONE", "TOKEN-TWO", "nats"
    names = [raw[1]["mqid"], raw[0]["mqid"]]
    found = variables(mqprofiles=raw, task_directive__input_queues=names, task_directive__output_queues=[names[1]])
    assert found["EWMS_PILOT_QUEUE_INCOMING"] == ";".join(names)
    assert found["EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN"] == "TOKEN-TWO;TOKEN-ONE"
    assert found["EWMS_PILOT_QUEUE_INCOMING_BROKER_TYPE"] == "nats;rabbitmq"
    assert found["EWMS_PILOT_QUEUE_OUTGOING"] == names[1]  # the same queue both ways: a loop
    assert found["EWMS_PILOT_QUEUE_OUTGOING_AUTH_TOKEN"] == "TOKEN-ONE"


def test_a_list_and_a_number_in_the_environment() -> None:
    found = variables(taskforce__pilot_config__environment={"EWMS_PILOT_L": ["a", "b"], "EWMS_PILOT_N": 7})
    assert (found["EWMS_PILOT_L"], found["EWMS_PILOT_N"]) == ("a;b", "7")


def test_without_an_init_image_nothing_is_said_of_it() -> None:
    assert not [name for name in variables(task_directive__init_image="") if "INIT" in name]


def test_init_environment() -> None:
    assert variables(task_directive__init_env={"A": "1"})["EWMS_PILOT_INIT_ENV_JSON"] == '{"A": "1"}'


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"mqid": "other"}, "no MQ profile"),
        ({"broker_type": None}, "no broker type"),
        ({"broker_address": ""}, "no broker address"),
        ({"broker_address": "a;b"}, "has a ';'"),
    ],
)
def test_a_queue_that_cannot_be_reached_is_refused(profile: dict[str, Any], reason: str) -> None:
    raw = json.loads((DATA / "start-order.json").read_text())["mqprofiles"]
    raw[0] |= profile
    with pytest.raises(OrderRefused, match=reason):
        submission(mqprofiles=raw)


# --- what an order asks for ---


@pytest.mark.parametrize(
    ("size", "n_bytes"),
    [
        ("512M", 512 * 2**20),
        ("1 GB", 2**30),
        (1073741824, 2**30),
        ("1073741824", 2**30),
        ("1.5G", 3 * 2**29),
        ("0.5gb", 2**29),
        ("2T", 2**41),
        ("1000KB", 1000 * 2**10),
        ("1GiB", 2**30),
        ("10 bytes", 10),
    ],
)
def test_sizes(size: str | int, n_bytes: int) -> None:
    assert size_in_bytes("worker_disk", size) == n_bytes


@pytest.mark.parametrize(
    "size", ["junk", "", "GB", "-1G", 0, -5, "1 XB", "1,5G", "1e3", "nan", "1G\n+Evil=1", "9999999P", "１G"]
)
def test_bad_sizes_are_refused(size: str | int) -> None:
    with pytest.raises(OrderRefused, match="worker_memory"):
        submission(taskforce__worker_config__worker_memory=size)


def test_sizes_are_rounded_up_to_htcondors_units() -> None:
    found = description(taskforce__worker_config__worker_memory=2**20 + 1, taskforce__worker_config__worker_disk=1)
    assert (found["request_memory"], found["request_disk"]) == (memory_request(2), 1)


@pytest.mark.parametrize(
    ("priority", "workers", "text"),
    [
        (99, 4, "99 - ( ($(ProcId) * 49) / 3 )"),
        (100, 1, 100),
        (1, 9, 1),
        (0, 9, 0),
        (-5, 9, -5),
        (2, 2, "2 - ( ($(ProcId) * 1) / 1 )"),
    ],
)
def test_priority_ramp(priority: int, workers: int, text: str | int) -> None:
    assert priority_ramp(priority, workers) == text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"taskforce__n_workers": None}, "n_workers: is null"),
        ({"taskforce__n_workers": 0}, "n_workers: 0"),
        ({"taskforce__worker_config__n_cores": 0}, "n_cores"),
        ({"taskforce__worker_config__max_worker_runtime": 0}, "max_worker_runtime"),
        ({"taskforce__pilot_config__image_source": "elsewhere"}, "image_source: 'elsewhere' is not known"),
        ({"taskforce__pilot_config__tag": "../../evil:1"}, "not an image tag"),
        ({"taskforce__taskforce_uuid": "../../etc"}, "taskforce_uuid"),
        ({"taskforce__taskforce_uuid": 'TF" || true'}, "taskforce_uuid"),
        ({"taskforce__pilot_config__input_files": ["/data/x", "/scratch/jobs"]}, "own job directory"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(OrderRefused, match=reason):
        submission(**changes)


OUTSIDE = ["taskforce__worker_config__condor_requirements", "taskforce__pilot_config__tag"]
INJECTIONS = [
    "true\n+Evil = 1",
    "true\\",
    "true\\ ",
    "$(Evil)",
    "$ENV(HOME)",
    "$$(Arch)",
    "$RANDOM_CHOICE(a,b)",
    "a\rb",
    "a\u2028b",
    "a\0b",
]


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("field", OUTSIDE)
def test_submit_language_from_outside_is_refused(field: str, text: str) -> None:
    changes: dict[str, Any] = {field: text}
    with pytest.raises(OrderRefused):
        submission(**changes)


@pytest.mark.parametrize("text", INJECTIONS)
def test_submit_language_in_an_input_file_is_refused(text: str) -> None:
    with pytest.raises(OrderRefused):
        submission(taskforce__pilot_config__input_files=[f"/data/{text}"])


def test_input_files_come_before_the_envfile() -> None:
    found = description(taskforce__pilot_config__input_files=["/data/a b", "osdf:///ospool/x"])
    assert found["transfer_input_files"] == f"/data/a b,osdf:///ospool/x,{TASKFORCE_DIR}/ewms_htcondor_envfile.sh"


def test_no_files_come_back_unless_asked_for() -> None:
    found = description(taskforce__worker_config__do_transfer_worker_stdouterr=False)
    assert "output" not in found
    assert "error" not in found


def test_requirements_are_the_operators_and_the_taskforces() -> None:
    mine = settings(base_requirements="HasSingularity", excluded_glidein_sites=('A "B"',), excluded_osg_sites=())
    built = submission(mine, taskforce__worker_config__condor_requirements="  a || b ")
    found = str(built.description["requirements"])
    assert without_policy(found) == r'(HasSingularity) && GLIDEIN_Site =!= "A \"B\"" && (a || b)'
    first, second, *_ = built.expressions.items()
    assert first == ("condor_requirements", "a || b")
    assert second == ("requirements", built.description["requirements"])


def test_the_priority_of_the_first_proc_and_of_the_last_are_to_be_evaluated() -> None:
    assert submission().numbers == (("priority", "99 - ( (0 * 49) / 3 )"), ("priority", "99 - ( (3 * 49) / 3 )"))
    assert submission(taskforce__n_workers=1).numbers == (("priority", "99"),)


def test_image_sources_of_the_operator() -> None:
    mine = settings(image_sources=(("docker", "docker://ghcr.io/x/pilot:{tag}"),))
    built = submission(mine, taskforce__pilot_config__image_source="docker")
    assert built.description["container_image"] == "docker://ghcr.io/x/pilot:1.2.0"


def test_vacate_time_only_when_set() -> None:
    assert "job_max_vacate_time" not in description()
    assert submission(settings(job_max_vacate_time=30)).description["job_max_vacate_time"] == 30


def test_a_token_is_masked_where_the_order_is_printed() -> None:
    assert "TOKEN-FOR-TESTS" not in repr(order())
    assert order().mqprofiles[0].auth_token == Secret("TOKEN-FOR-TESTS")
