"""Every variable of the pilot's contract, as the environment spells it."""

from pathlib import Path
from typing import Any

import pytest

from ewms.pilot.brokers.base import QueueAddress
from ewms.pilot.settings import PilotSettings, extension, read, without_effect
from ewms.secret import Secret
from ewms.settings import SettingsError

NEEDED = {"EWMS_PILOT_TASK_IMAGE": "img", "EWMS_PILOT_QUEUE_INCOMING": "in"}


def settings(**more: str) -> PilotSettings:
    return read(NEEDED | {f"EWMS_PILOT_{name}": text for name, text in more.items()})


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(environ)
    return list(caught.value.problems)


def test_the_defaults_of_the_contract() -> None:
    s = settings()
    assert (s.task_args, s.task_env_json, s.task_timeout) == ("", {}, None)
    assert (s.infile_ext, s.outfile_ext, s.prefetch, s.slots) == (".in", ".out", 1, 1)
    assert (s.timeout_incoming, s.first_message_timeout) == (1, 1)
    assert (s.stop_listening_on_task_error, s.okay_errors, s.quarantine_time) == (True, (), 0)
    assert (s.keep_all_task_files, s.dump_task_output) == (False, False)
    assert (s.htchirp, s.htchirp_dest, s.htchirp_ratelimit_interval) == (False, "job_attr", 60)
    assert (s.cl_log, s.cl_log_third_party, s.stop_grace) == ("info", "warning", None)
    assert (s.container_platform, s.apptainer_build_workdir) == ("docker", Path("/var/tmp"))
    assert s.apptainer_must_be_directory


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("TASK_TIMEOUT", "60", "task_timeout", 60),
        ("SUBPROC_TIMEOUT", "61", "task_timeout", 61),
        ("TASK_ENV_JSON", '{"A": "x=\\"", "B": 3}', "task_env_json", {"A": 'x="', "B": 3}),
        ("MAX_CONCURRENT_TASKS", "0", "slots", 1),
        ("MAX_CONCURRENT_TASKS", "4", "broker_prefetch", 4),
        ("PREFETCH", "9", "broker_prefetch", 9),
        ("TIMEOUT_QUEUE_INCOMING", "7", "first_message_timeout", 7),
        ("TIMEOUT_QUEUE_WAIT_FOR_FIRST_MESSAGE", "8", "first_message_timeout", 8),
        ("EXTERNAL_DIRECTORIES", "/a, /b,", "external", (Path("/a"), Path("/b"))),
        ("OKAY_ERRORS", "TimeoutError ValueError", "okay_errors", ("TimeoutError", "ValueError")),
        ("STOP_LISTENING_ON_TASK_ERROR", "oFF", "stop_listening_on_task_error", False),
        ("HTCHIRP_DEST", "JOB_EVENT_LOG", "htchirp_dest", "job_event_log"),
        ("CL_LOG", "DEBUG", "cl_log", "debug"),
        ("QUARANTINE_TIME", "600", "quarantine_time", 600),
    ],
)
def test_one_variable(name: str, text: str, field: str, value: Any) -> None:
    assert getattr(settings(**{name: text}), field) == value


def test_the_newer_name_of_the_task_timeout_wins() -> None:
    assert settings(TASK_TIMEOUT="1", SUBPROC_TIMEOUT="2").task_timeout == 1


def test_queue_lists_are_split_in_step() -> None:
    s = settings(
        QUEUE_INCOMING="a;b",
        QUEUE_INCOMING_AUTH_TOKEN="first-token;second-token",
        QUEUE_INCOMING_BROKER_TYPE="rabbitmq;nats",
        QUEUE_INCOMING_BROKER_ADDRESS="h1;h2",
    )
    assert s.incoming == (
        QueueAddress("a", "rabbitmq", "h1", Secret("first-token")),
        QueueAddress("b", "nats", "h2", Secret("second-token")),
    )
    assert s.outgoing == ()
    assert "token" not in repr(s).replace("auth_token", "")


def test_lists_left_at_their_defaults_serve_every_queue() -> None:
    s = settings(QUEUE_OUTGOING="a;b;c")
    assert [each.broker_address for each in s.outgoing] == ["localhost"] * 3


def test_all_bad_values_are_told_at_once_and_no_token() -> None:
    found = problems(
        {
            "EWMS_PILOT_QUEUE_INCOMING": "a;b",
            "EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN": "one-token-for-two",
            "EWMS_PILOT_QUEUE_OUTGOING": "x;;y",
            "EWMS_PILOT_PREFETCH": "0",
            "EWMS_PILOT_TIMEOUT_QUEUE_INCOMING": "0",
            "EWMS_PILOT_TASK_ARGS": "it's",
            "EWMS_PILOT_TASK_ENV_JSON": '{"A": [1], "B=": "x", "C": "\\u0000", "D": true}',
            "EWMS_PILOT_HTCHIRP": "maybe",
            "EWMS_PILOT_EXTERNAL_DIRECTORIES": "relative",
            "EWMS_PILOT_INFILE_EXT": "a/b",
            "EWMS_PILOT_QUARANTINE_TIME": "5",
            "EWMS_PILOT_STOP_LISTENING_ON_TASK_ERROR": "false",
            "_EWMS_PILOT_CONTAINER_PLATFORM": "podman",
        }
    )
    names = [line.split(":")[0] for line in found]
    assert sorted(set(names)) == sorted(
        {
            "EWMS_PILOT_TASK_IMAGE",
            "EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN",
            "EWMS_PILOT_QUEUE_OUTGOING",
            "EWMS_PILOT_PREFETCH",
            "EWMS_PILOT_TIMEOUT_QUEUE_INCOMING",
            "EWMS_PILOT_TASK_ARGS",
            "EWMS_PILOT_TASK_ENV_JSON",
            "EWMS_PILOT_HTCHIRP",
            "EWMS_PILOT_EXTERNAL_DIRECTORIES",
            "EWMS_PILOT_INFILE_EXT",
            "EWMS_PILOT_QUARANTINE_TIME",
            "_EWMS_PILOT_CONTAINER_PLATFORM",
        }
    )
    assert names.count("EWMS_PILOT_TASK_ENV_JSON") == 4
    assert "one-token" not in "".join(found)
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize("text", ['{"PASSWORD": "hunter2hunter2"', '["hunter2hunter2"]', "hunter2hunter2"])
def test_an_environment_that_is_no_json_object_is_not_shown(text: str) -> None:
    (line,) = problems(NEEDED | {"EWMS_PILOT_TASK_ENV_JSON": text})
    assert line.startswith("EWMS_PILOT_TASK_ENV_JSON: the value (not shown) is not allowed: use a JSON object")
    assert "hunter2" not in line


@pytest.mark.parametrize("name", ["EWMS_PILOT_TASK_IMAGE", "EWMS_PILOT_QUEUE_INCOMING"])
def test_what_is_required_may_not_be_empty(name: str) -> None:
    assert problems(NEEDED | {name: ""}) == [f"{name}: is required but empty"]


def test_what_is_probably_not_meant_is_a_warning() -> None:
    assert [line.split(":")[0] for line in settings(MAX_CONCURRENT_TASKS="-1").warnings] == [
        "EWMS_PILOT_MAX_CONCURRENT_TASKS",
        "EWMS_PILOT_QUEUE_OUTGOING",
    ]
    assert settings(QUEUE_OUTGOING="x").warnings == ()


@pytest.mark.parametrize(("text", "dotted"), [("json", ".json"), (".json", ".json"), (".tar.gz", ".tar.gz"), ("", "")])
def test_extension(text: str, dotted: str) -> None:
    assert extension(text) == dotted


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("PREFETCH", "65536", "use at most 65535"),
        ("MAX_CONCURRENT_TASKS", "100000", "use at most 65535"),
        ("QUEUE_INCOMING", "x" * 256, "a queue's name has at most 255 bytes"),
        ("QUEUE_INCOMING", "a\tb", "a queue's name has at most 255 bytes, and no control characters"),
        ("QUEUE_INCOMING_BROKER_TYPE", "kafka", "unknown broker type 'kafka'; known are: local, nats"),
        ("QUEUE_INCOMING_BROKER_ADDRESS", "http://host", "the broker address is not of the form [amqp[s]://]"),
        ("QUEUE_INCOMING_BROKER_ADDRESS", "host:99999", "the broker address is not of the form [amqp[s]://]"),
        ("INFILE_EXT", "a b", "use a file extension such as .json"),
        ("OUTFILE_EXT", "x" * 51, "use a file extension such as .json"),
        ("TASK_TIMEOUT", "1e999", "use a finite number"),
        ("TASK_TIMEOUT", "1h", "use a number"),
        ("TASK_MEMORY_LIMIT", "2GB", "use a whole number"),
    ],
)
def test_nonsense_is_refused_before_anything_is_connected(name: str, text: str, says: str) -> None:
    (line,) = problems(NEEDED | {f"EWMS_PILOT_{name}": text})
    assert line.startswith(f"EWMS_PILOT_{name}: ")
    assert says in line


@pytest.mark.parametrize("broker_type", ["rabbitmq", "nats", "pulsar", "local"])
def test_an_address_that_is_wrong_is_not_shown(broker_type: str) -> None:
    address = {
        "EWMS_PILOT_QUEUE_OUTGOING": "out",
        "EWMS_PILOT_QUEUE_OUTGOING_BROKER_TYPE": broker_type,
        "EWMS_PILOT_QUEUE_OUTGOING_BROKER_ADDRESS": "what://me:hunter2hunter2@host:port",
    }
    if broker_type == "local":
        read(NEEDED | address)  # any text is a path
        return
    (line,) = problems(NEEDED | address)
    assert line.startswith("EWMS_PILOT_QUEUE_OUTGOING_BROKER_ADDRESS: ")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"QUEUE_OUTGOING": "x;in"}, "QUEUE_OUTGOING"),
        ({"INIT_ARGS": "load"}, "INIT_IMAGE"),
        ({"MAX_RETURNS": "20"}, "MAX_RETURNS"),
    ],
)
def test_what_will_not_do_what_was_meant_is_a_warning(more: dict[str, str], name: str) -> None:
    (line,) = settings(**{"QUEUE_OUTGOING": "out"} | more).warnings
    assert line.startswith(f"EWMS_PILOT_{name}: ")


def test_a_misspelt_variable_is_named_with_the_one_that_may_be_meant() -> None:
    environ = NEEDED | {"EWMS_PILOT_TASKARGS": "x", "_EWMS_PILOT_FOO": "", "EWMS_TASK_INFILE": "", "SUBPROC": "1"}
    assert without_effect(environ) == [
        "EWMS_PILOT_TASKARGS: is no setting, and has no effect; is EWMS_PILOT_TASK_ARGS meant?",
        "_EWMS_PILOT_FOO: is no setting, and has no effect",
    ]
    assert without_effect({"EWMS_PILOT_SUBPROC_TIMEOUT": "1", "_EWMS_PILOT_CONTAINER_PLATFORM": "auto"}) == []
