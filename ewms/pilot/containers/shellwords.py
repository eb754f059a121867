"""What a shell in the container runs before the image's runscript, whichever runtime started it; pure.

The task's environment and arguments are read from standard input: they are on no command line and in no file, every
value arrives exactly, and a container can be begun before they are known.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

WAIT: Final = """\
echo >&3 || exit
exec 3>&-
"""
"""Says that nothing of the worker's is needed any more but standard input."""
TASKS: Final = """\
set --
. /dev/stdin
[ $# -gt 0 ] || exit
shift
exec < /dev/null
export LANG="${LANG-C}" PROMPT_COMMAND="${PROMPT_COMMAND-PS1=\\"$PS1\\"; unset PROMPT_COMMAND}"
"""
"""The task's environment and arguments; without them (the pilot went away) nothing of the task's is run."""
RUN: Final = """\
[ ! -x /.singularity.d/runscript ] || exec /.singularity.d/runscript "$@"
echo "No runscript found in the image, executing /bin/sh" >&2
exec /bin/sh "$@"
"""


def argv(script: str) -> tuple[str, ...]:
    """The image's shell with a script; `$@` is empty."""
    return ("/bin/sh", "-c", script, "sh")


def particulars(environment: Mapping[str, str], arguments: Sequence[str]) -> str:
    """A shell script that sets exactly these, and says so; after the image's own scripts, as Apptainer does."""
    # `command`: the image's shell may have read-only variables of its own (bash: UID), and goes on then.
    lines = [f"command export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join([*lines, f"set -- told {shlex.join(arguments)}\n"])
