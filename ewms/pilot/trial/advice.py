"""What to do about a task that failed, and what is different in production; pure."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from ewms.pilot.arguments import PLACEHOLDERS
from ewms.pilot.settings import PilotSettings

_KNOWN_PLACEHOLDERS: Final = {text for texts in PLACEHOLDERS.values() for text in texts}
_CODES_ABOUT_WORDS: Final = (2, 64, 126)
"""Exit codes with which programs often refuse their arguments."""
_BROKER_LIMIT_S: Final = 1800
"""RabbitMQ's default for how long an event may stay without a verdict."""


@attrs.frozen(kw_only=True)
class Case:
    """A task that did not do what its author wanted."""

    error: str
    stderr: str
    code: int | None
    """None: it was killed, or never started."""
    words: Sequence[str]
    """The arguments that the image's entrypoint got."""
    has_output: bool
    platform: str
    other_files: Sequence[str] = ()

    @property
    def text(self) -> str:
        """All that was said about it."""
        return f"{self.error}\n{self.stderr}"


def _says(pattern: str) -> Callable[[Case], bool]:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda case: found.search(case.text) is not None


def _ended_with(*codes: int) -> Callable[[Case], bool]:
    return lambda case: case.code in codes


def _missing_program(case: Case) -> bool:
    not_found = r"exec[ :].*(not found|no such file)|executable file not found|no runscript|cannot start .*no such file"
    return bool(case.error) and (case.code == 127 or re.search(not_found, case.text, re.IGNORECASE) is not None)


def _given(case: Case) -> str:
    given = shlex.join(case.words) or "nothing"
    if case.platform == "process":
        return f"The process platform runs the arguments themselves as the command; they were: {given}"
    return f"The image's entrypoint is run with the arguments of --args; it got: {given}"


@attrs.frozen
class Rule:
    """One thing that goes wrong, and what to do."""

    fits: Callable[[Case], bool]
    text: str


_RULES: Final[Sequence[Rule]] = (
    Rule(
        _says(r"no container runtime was found|`(apptainer|bwrap|docker)` was not found"),
        "Install Apptainer or Docker, or see with --platform process whether the arguments are right: that runs them "
        "as a command of this machine, without the image.",
    ),
    Rule(
        _says(r"arguments as a command, but there are none"),
        "Say with --args what to run.",
    ),
    Rule(
        _says(r"Docker daemon cannot be used"),
        "Docker needs its daemon running, and a user who may use it (mostly the group `docker`); --platform apptainer "
        "needs neither.",
    ),
    Rule(
        _says(r"self-check: only \d+ bytes are free"),
        "A trial's files are made in the directory that TMPDIR names: set it to one with more room.",
    ),
    Rule(
        _says(r"the image .* cannot be (converted|pulled)"),
        "An image for Apptainer is a directory image, a .sif file, a URI such as docker://NAME:TAG, or a name on "
        "Docker Hub; for Docker it is the NAME:TAG of an image that is here or that `docker pull` finds.",
    ),
    Rule(
        _says(r"\[Timeout-Error\]"),
        "It was killed with all its processes when its time was over; above is what it had printed by then. If it "
        "needs longer: --timeout here, EWMS_PILOT_TASK_TIMEOUT in the workflow. If not, it hangs: does it wait for "
        "input, or for a network that is not there?",
    ),
    Rule(
        _missing_program,
        "A program was not found in the container: the image's entrypoint (Apptainer: runscript), its interpreter, or "
        "the program that the arguments name. Is it in the image, under that path, or in the image's PATH?",
    ),
    Rule(
        _says("<no stderr logs>"),
        "It wrote nothing to stderr, so that the error which the workflow shows is its exit code alone (stdout is not "
        "looked at). Let it end with a line on stderr that says what was wrong.",
    ),
    Rule(
        _ended_with(126),
        "A program was found but may not be executed: is it executable for everybody (chmod a+rx), and a program?",
    ),
    Rule(
        _ended_with(137),
        "Something killed it (SIGKILL), most often the system, because there was no memory left.",
    ),
    Rule(
        _ended_with(139),
        "It accessed memory that is not its own (SIGSEGV).",
    ),
    Rule(
        _ended_with(132),
        "It used an instruction that this CPU does not have (SIGILL): build the image for a more general CPU.",
    ),
    Rule(
        _says("exec format error"),
        "The program was built for another kind of CPU than this machine's.",
    ),
    Rule(
        _says("read-only file system"),
        "In production an image is read-only: write to $EWMS_TASK_OUTFILE, /tmp, $HOME or the data hub.",
    ),
    Rule(
        _says("permission denied"),
        "Tasks run as an ordinary user, never as the image's own: what it reads must be readable for everybody, and "
        "it may write to $EWMS_TASK_OUTFILE, /tmp, $HOME and the data hub.",
    ),
    Rule(
        _says("needs a .json infile"),
        "Events that are not text or bytes come in a .json file: use --infile-ext .json (EWMS_PILOT_INFILE_EXT).",
    ),
    Rule(
        _says("outfile is not valid JSON"),
        "With --outfile-ext .json the outfile is parsed and sent as a JSON value; with another extension as text.",
    ),
    Rule(
        _says("ModuleNotFoundError|ImportError"),
        "A Python package is not in the image, or not for the Python that runs: PYTHONPATH and the author's own "
        "~/.local are not there.",
    ),
)


def advice(case: Case) -> list[str]:
    """What the author can do, the likeliest first; nothing for a task that did all it should."""
    found = [rule.text for rule in _RULES if case.error and rule.fits(case)]
    if unknown := _unknown_placeholders(case.words):
        found.append(
            f"{', '.join(unknown)} is no placeholder, and was given as it stands. There are: "
            f"{', '.join(sorted(_KNOWN_PLACEHOLDERS))}."
        )
    if _has_no_outfile(case):
        found.append(_no_outfile(case))
    if case.words and (unknown or case.code in _CODES_ABOUT_WORDS or _missing_program(case) or _has_no_outfile(case)):
        found.append(_given(case))
    return found


def _has_no_outfile(case: Case) -> bool:
    return case.code == 0 and not case.error and not case.has_output


def _no_outfile(case: Case) -> str:
    text = (
        "It wrote no outfile, so no output event is sent. That is fine for a task without a result. Otherwise it has "
        "to write the file that $EWMS_TASK_OUTFILE, or {{OUTFILE}} in the arguments, names."
    )
    if case.other_files:
        text += f" These files stand where it should be, and nobody gets them: {', '.join(case.other_files)}."
    return text


def _unknown_placeholders(words: Sequence[str]) -> list[str]:
    # Joined: the shell's rules split `{{ INFILE }}` into three words.
    found = re.findall(r"\{\{[^{}]*\}\}", " ".join(words))
    return sorted({each for each in found if each not in _KNOWN_PLACEHOLDERS})


def differences(settings: PilotSettings, platform: str, longest_s: float) -> Iterator[str]:
    """What production does differently from the trial; `settings` are the author's own, without the trial's."""
    yield _platform_difference(platform)
    if platform != "process":
        yield (
            "The image has to be where the workers see it: for Apptainer a directory image (such as on CVMFS); images "
            "are not converted there unless _EWMS_PILOT_APPTAINER_IMAGE_DIRECTORY_MUST_BE_PRESENT is false."
        )
    yield (
        f"Each event was tried once. There a failed one is tried on up to {settings.max_failures} workers, and a "
        "pilot takes no further events after its first failure, unless EWMS_PILOT_STOP_LISTENING_ON_TASK_ERROR is "
        "false or EWMS_PILOT_OKAY_ERRORS names the error."
        if settings.stop_listening_on_task_error
        else f"Each event was tried once. There a failed one is tried on up to {settings.max_failures} workers."
    )
    yield (
        "An event can be processed twice, when a worker dies at the wrong moment: a task must not mind; both outputs "
        "have the same id in their headers."
    )
    if settings.task_timeout is None:
        yield "No time limit is set: a task that hangs keeps its worker to the end. Set EWMS_PILOT_TASK_TIMEOUT."
    if max(longest_s, settings.task_timeout or 0) > _BROKER_LIMIT_S / 2:
        yield (
            f"A broker may take an event back that is worked on for longer than {_BROKER_LIMIT_S // 60} min "
            "(RabbitMQ's consumer_timeout): ask its operator when tasks come near that."
        )
    yield (
        f"{settings.slots} task(s) run at a time on each worker (EWMS_PILOT_MAX_CONCURRENT_TASKS), with the CPUs, "
        "memory and disk that the workflow's worker_config asks for. Here nothing limited them but this machine."
    )
    if settings.external:
        places = ", ".join(map(str, settings.external))
        yield f"Every worker needs these directories of EWMS_PILOT_EXTERNAL_DIRECTORIES: {places}."
    yield (
        "The data hub belongs to one pilot: it is empty at the start, its init container fills it, all its tasks share "
        "it, and it goes with the worker."
    )
    yield "Files of tasks that succeed are removed at once; of failed ones the end of stderr is reported."


def _platform_difference(platform: str) -> str:
    if platform == "process":
        return (
            "NO CONTAINER was used here: the arguments ran as a command on this machine, with its files, and the image "
            "was not looked at. Try it with --platform apptainer or docker before production."
        )
    if platform == "docker":
        return (
            "Here Docker ran the image; workers mostly run Apptainer, where the image is read-only (only /tmp, $HOME, "
            "the task's own directory and the data hub can be written)."
        )
    return "Workers are other machines: another user, other CPUs, and nothing of this machine's files but the image."
