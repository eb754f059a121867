"""`ewms pilot try`: what it makes of the options, and what it says; and as a program, on the process platform."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ewms.pilot.settings import read
from ewms.pilot.trial.advice import Case, advice, differences
from ewms.pilot.trial.plan import OF_A_TRIAL, Plan, environ_of, missing_images, pairs, read_events
from ewms.pilot.trial.show import advice_lines, shown
from ewms.settings import SettingsError

DIRECTORY = Path("/trial")
INPUT = "an event\n"


def case(error: str = "", **more: Any) -> Case:
    values: dict[str, Any] = {
        "error": error,
        "stderr": "",
        "code": 1,
        "words": ("run",),
        "has_output": True,
        "platform": "apptainer",
    }
    return Case(**(values | more))


# --- the plan ---


def test_options_come_before_the_environment_and_the_rest_of_it_counts() -> None:
    environ = {
        "EWMS_PILOT_TASK_ARGS": "from the environment",
        "EWMS_PILOT_TASK_TIMEOUT": "7",
        "EWMS_PILOT_TASK_ENV_JSON": '{"A": "1", "B": 2}',
        "EWMS_PILOT_QUEUE_INCOMING_AUTH_TOKEN": "not-for-this",
        "EWMS_PILOT_HTCHIRP": "true",
        "EWMS_PILOT_MAX_CONCURRENT_TASKS": "3",
    }
    plan = Plan(image="img", args="given", env={"A": "x\ny"}, init_image="init")
    settings = read(environ_of(plan, environ, DIRECTORY) | dict(OF_A_TRIAL))
    assert (settings.task_image, settings.task_args, settings.init_image) == ("img", "given", "init")
    assert settings.task_env_json == {"A": "x\ny", "B": 2}
    assert (settings.task_timeout, settings.slots) == (7, 3)
    assert [queue.broker_type for queue in (*settings.incoming, *settings.outgoing)] == ["local", "local"]
    assert not settings.incoming[0].auth_token
    assert not settings.htchirp
    assert settings.container_platform == "auto"


def test_an_image_that_is_a_path_to_nothing_is_told_before_anything_runs(tmp_path: Path) -> None:
    plan = Plan(image=f"{tmp_path}/image", init_image=f"{tmp_path}/init")
    environ = environ_of(plan, {}, DIRECTORY)
    said = [
        f"--{option} {tmp_path}/{name}: No such file or directory"
        for option, name in (("image", "image"), ("init-image", "init"))
    ]
    assert missing_images(plan, environ) == said
    (tmp_path / "image").touch()
    assert missing_images(plan, environ) == said[1:]
    assert missing_images(plan, environ | {"_EWMS_PILOT_CONTAINER_PLATFORM": "process"}) == []
    assert missing_images(Plan(image="docker://me/it:1"), environ) == []


def test_a_task_that_fails_without_a_word_is_told_to_say_one() -> None:
    (text,) = advice(case("task failed (exit code 3): <no stderr logs>", code=3))
    assert "wrote nothing to stderr" in text
    assert not advice(case("task failed (exit code 3): no table", code=3))


def test_production_keeps_what_the_trial_changes() -> None:
    settings = read(environ_of(Plan(image="img"), {"EWMS_PILOT_MAX_FAILURES": "8"}, DIRECTORY))
    assert settings.max_failures == 8
    assert settings.stop_listening_on_task_error


def test_an_environment_that_is_no_json_is_said() -> None:
    with pytest.raises(SettingsError, match=r"EWMS_PILOT_TASK_ENV_JSON: .* use a JSON object"):
        environ_of(Plan(image="img", env={"A": "1"}), {"EWMS_PILOT_TASK_ENV_JSON": "[1]"}, DIRECTORY)


def test_pairs() -> None:
    assert pairs(["A=b=c", "B="]) == {"A": "b=c", "B": ""}
    with pytest.raises(SettingsError, match="--env A: is not allowed: use NAME=VALUE"):
        pairs(["A", "B=1"])


def test_files_become_events_by_what_they_are(tmp_path: Path) -> None:
    contents = {"a.json": b'{"x": 1}', "b.txt": b"text\r\n", "c.bin": b"\xff\x00", "d": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    events = read_events([tmp_path / name for name in contents])
    assert [event.data for event in events] == [{"x": 1}, "text\r\n", b"\xff\x00", ""]
    assert [event.event_id for event in events] == ["event-1", "event-2", "event-3", "event-4"]


def test_all_files_that_cannot_be_events_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(SettingsError) as told:
        read_events([tmp_path / "bad.json", tmp_path / "missing"])
    assert [problem.split(": ", 1)[1] for problem in told.value.problems] == [
        "is not valid JSON; give it another extension if it is meant as text",
        "No such file or directory",
    ]


# --- the advice ---


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (case("task failed: [Timeout-Error] timed out after 3s", code=None), "--timeout"),
        (case("task failed (exit code 127): exec: no-such: not found", code=127), "A program was not found"),
        (case("x", stderr="FATAL:   exec /.singularity.d/runscript failed: no such file", code=255), "A program was"),
        (case('x exec: "sh": executable file not found in $PATH: unknown', code=127), "A program was not found"),
        (case("ERROR: No runscript and no /bin/sh executable found in container", code=1), "A program was not found"),
        (case("task failed (exit code 126): Permission denied", code=126), "chmod a+rx"),
        (case("task failed (exit code 137): <no stderr logs>", code=137), "no memory left"),
        (case("OSError: [Errno 30] Read-only file system: '/x'"), "an image is read-only"),
        (case("task failed: ModuleNotFoundError: No module named 'numpy'"), "A Python package is not in the image"),
        (case("task failed: the task's outfile is not valid JSON: x"), "--outfile-ext"),
        (case("the event's data is an object, which needs a .json infile", code=None), "--infile-ext .json"),
        (case("the image x cannot be pulled (exit code 1): no", code=None), "docker://NAME:TAG"),
        (case("self-check: only 67063808 bytes are free in /tmp/x, 100000000 are wanted", code=None), "TMPDIR"),
        (case("x", words=("{{INPUT}}", "{{INFILE}}")), "{{INPUT}} is no placeholder"),
    ],
)
def test_what_goes_wrong_has_its_advice(what: Case, says: str) -> None:
    assert any(says in text for text in advice(what)), advice(what)


def test_a_crash_with_its_own_words_needs_no_advice() -> None:
    assert advice(case("task failed (exit code 1): ValueError: bad frame")) == []


def test_a_task_that_did_all_it_should_gets_no_advice() -> None:
    assert advice(case(code=0)) == []


def test_no_outfile_names_what_was_written_instead_and_what_the_task_was_told() -> None:
    told = " ".join(advice(case(code=0, has_output=False, other_files=("out.txt",), words=("sh", "-c", "x > out.txt"))))
    assert "no output event is sent" in told
    assert "nobody gets them: out.txt" in told
    assert "it got: sh -c 'x > out.txt'" in told


def test_differences_fit_the_settings() -> None:
    def told(platform: str, longest_s: float = 1, **environ: str) -> str:
        variables = {f"EWMS_PILOT_{name}": text for name, text in environ.items()}
        return "\n".join(differences(read(environ_of(Plan(image="i"), variables, DIRECTORY)), platform, longest_s))

    assert "NO CONTAINER" in told("process")
    assert "NO CONTAINER" not in told("docker")
    assert "No time limit is set" in told("apptainer")
    assert "No time limit is set" not in told("apptainer", TASK_TIMEOUT="60")
    assert "consumer_timeout" in told("apptainer", TASK_TIMEOUT="3600")
    assert "consumer_timeout" in told("apptainer", 1000)
    assert "up to 9 workers" in told("apptainer", MAX_FAILURES="9")
    assert "these directories" not in told("apptainer")
    assert "/data/a, /data/b" in told("apptainer", EXTERNAL_DIRECTORIES="/data/a,/data/b")


def test_outputs_are_shown_in_their_own_form() -> None:
    assert shown("text") == "text"
    assert shown({"ü": 1}) == '{\n  "ü": 1\n}'
    assert shown(b"\xff\x00") == "ff 00"
    assert len(shown("x" * 10_000)) < 2000


def test_a_placeholder_with_blanks_in_it_is_explained() -> None:
    told = " ".join(advice(case("task failed", words=("cat", "{{", "INFILE", "}}"))))
    assert "{{ INFILE }} is no placeholder" in told


@pytest.mark.parametrize("code", [None, 0])
def test_only_who_came_to_the_end_is_asked_for_an_outfile(code: int | None) -> None:
    told = " ".join(advice(case(code=code, has_output=False)))
    assert ("wrote no outfile" in told) == (code == 0)


def test_long_words_stay_whole() -> None:
    path = "/a-long/path" * 20
    assert [line.strip() for line in advice_lines(f"They were: {path}")] == ["→  They were:", path]


# --- the program ---


def tried(tmp_path: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "a.in").write_text(INPUT)
    argv = [sys.executable, "-m", "ewms", "pilot", "try", "--image", "none", "--platform", "process", *options]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), **environ}
    return subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=60, check=False)


def test_a_task_that_works(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"x": 1}')
    code = (
        "import json,os,sys; json.dump({'got': open(sys.argv[1]).read(), 'A': os.environ['A']}, open(sys.argv[2],'w'))"
    )
    options = ["--event", "a.in", "--event", "b.json", "--infile-ext", "json", "--outfile-ext", ".json"]
    args = f'{sys.executable} -c "{code}" {{{{INFILE}}}} {{{{OUTFILE}}}}'
    ended = tried(tmp_path, "--args", args, "--env", "A=two\nlines", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.dumps({"got": INPUT, "A": "two\nlines"}, indent=2).replace("\n", "\n    ") in ended.stdout
    assert re.search(r"  used    0\.\d\d s of CPU, \d+ MB of memory, 0\.0 MB of scratch\n", ended.stdout)
    assert ended.stdout.endswith("2 of 2 events succeeded, with 2 output event(s)\n")
    assert ended.stderr == ""
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_failures_are_explained_and_every_event_is_tried(tmp_path: Path) -> None:
    args = "sh -c 'echo out; echo \"no space for frame\" >&2; exit 3'"
    ended = tried(tmp_path, "--args", args, "--event", "a.in", "--event", "a.in", "--keep")
    assert ended.returncode == 1
    assert ended.stdout.count("error   task failed (exit code 3): no space for frame") == 2
    assert "  stdout\n    out\n" in ended.stdout
    assert "0 of 2 events succeeded, with 0 output event(s); 2 failed" in ended.stdout
    (kept,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert f"All files are in {kept}" in ended.stdout
    assert len(list(kept.glob("ewms-pilot-data/event-*/outputs/stderrfile"))) == 2
    assert "TASK(S) FAILED" in (kept / "pilot.log").read_text()


def test_a_timeout_shows_what_had_been_printed(tmp_path: Path) -> None:
    args = "sh -c 'echo step one; sleep 100'"
    ended = tried(tmp_path, "--args", args, "--event", "a.in", "--timeout", "3")  # to print it
    assert ended.returncode == 1
    assert re.search(r"was killed after \d+(\.\d)? s", ended.stdout)
    assert "[Timeout-Error] timed out after 3s" in ended.stdout
    assert "    step one\n" in ended.stdout


def test_an_init_container_that_fails(tmp_path: Path) -> None:
    options = ["--init-image", "none", "--init-args", "sh -c 'echo cannot load >&2; exit 4'"]
    ended = tried(tmp_path, "--args", "true", "--event", "a.in", *options)
    assert ended.returncode == 3
    assert "THE PILOT ENDED: init container: task failed (exit code 4): cannot load" in ended.stdout
    assert "In production" not in ended.stdout


def test_wrong_options_and_settings_are_told_together_before_anything_runs(tmp_path: Path) -> None:
    environ = {"EWMS_PILOT_PREFETCH": "x", "EWMS_PILOT_MAX_FAILURES": "0"}
    ended = tried(tmp_path, "--args", "'", "--event", "a.in", **environ)
    assert ended.returncode == 2
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == [
        "EWMS_PILOT_PREFETCH",
        "EWMS_PILOT_MAX_FAILURES",
        "EWMS_PILOT_TASK_ARGS",
    ]
    assert ended.stdout == ""


def test_wrong_events_and_wrong_settings_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    ended = tried(tmp_path, "--args", "true", "--event", "bad.json", "--event", "no-such", "--timeout", "-1")
    assert ended.returncode == 2
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == [
        "--event bad.json",
        "--event no-such",
        "EWMS_PILOT_TASK_TIMEOUT",
    ]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_program_that_is_missing_is_the_tasks_failure_and_all_events_are_tried(tmp_path: Path) -> None:
    ended = tried(tmp_path, "--args", "no-such-program {{INFILE}}", "--event", "a.in", "--event", "a.in")
    assert ended.returncode == 1
    assert ended.stdout.count("error   task failed (exit code 127): no-such-program: not found") == 2
    assert "A program was not found in the container" in ended.stdout
    assert "outfile" not in ended.stdout.partition("In production")[0]


def test_without_arguments_it_says_what_is_missing(tmp_path: Path) -> None:
    ended = tried(tmp_path, "--event", "a.in")
    assert "could not be started" in ended.stdout
    assert "  NOT STARTED\n" in ended.stdout
    assert "Say with --args what to run" in ended.stdout
    assert "outfile" not in ended.stdout.partition("In production")[0]


def test_a_setting_that_is_misspelt_is_noted(tmp_path: Path) -> None:
    ended = tried(tmp_path, "--args", "true", "--event", "a.in", EWMS_PILOT_TASK_TIME_OUT="3")
    assert ended.returncode == 0
    assert "please note: EWMS_PILOT_TASK_TIME_OUT: is no setting, and has no effect; is EWMS_PILOT_TASK_TIMEOUT" in (
        ended.stdout
    )


def test_an_outfile_that_is_a_link_is_said_to_be_one(tmp_path: Path) -> None:
    ended = tried(tmp_path, "--args", "ln -s /etc/passwd {{OUTFILE}}", "--event", "a.in")
    assert ended.returncode == 1
    assert "error   task failed: its outfile cannot be read: it is a link" in ended.stdout


def test_a_runtime_that_is_not_here_is_said(tmp_path: Path) -> None:
    ended = tried(tmp_path, "--args", "true", "--event", "a.in", "--platform", "docker", PATH="/nowhere")
    assert ended.returncode == 4
    assert "THE PILOT ENDED: `docker` was not found (PATH=/nowhere)" in ended.stdout
    assert "--platform process" in ended.stdout


def test_control_c_stops_it_at_once_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "a.in").write_text(INPUT)
    args = ["--args", "sleep 4322", "--event", "a.in"]
    argv = [sys.executable, "-m", "ewms", "pilot", "try", "--image", "none", "--platform", "process", *args]
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env) as trial:
        assert trial.stdout is not None
        for line in trial.stdout:
            if line.endswith("started\n"):
                break
        time.sleep(0.1)
        trial.send_signal(signal.SIGINT)
        rest = trial.stdout.read()
        assert trial.wait(60) == 9
    assert "STOPPED after" in rest
    assert "1 not tried to the end" in rest
    assert [path.name for path in tmp_path.iterdir()] == ["a.in"]
