"""A command in namespaces of its own (root): it alone sees what it mounts, and nothing that it starts outlives it.

    python apart.py PROGRAM [ARGUMENT…]

is what runs first in there: it reaps what others leave behind, and ends with the program's status. When it, or what
started it, is killed, the kernel kills all the rest.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

_UNSHARE: Final = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
_INSIDE: Final = "EWMS_TEST_APART"


def command(argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` apart."""
    return [*_UNSHARE, "--", sys.executable, __file__, *argv]


def is_apart() -> bool:
    """Whether this process was started so: all processes that it sees are its own run's."""
    return _INSIDE in os.environ


def go_apart(module: str) -> None:
    """Start this command, which is `python -m MODULE`, once more and apart, in this process's place.

    Comes back where it is apart already, and for others than root, who have no namespaces.
    """
    if os.geteuid() == 0 and not is_apart():
        line = command([sys.executable, "-m", module, *sys.argv[1:]])
        os.execvpe(line[0], line, {**os.environ, _INSIDE: "1"})


def _main() -> int:
    program = subprocess.Popen(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal reaches the program itself
    signal.signal(signal.SIGTERM, lambda number, _frame: program.send_signal(number))
    while True:
        pid, status = os.wait()
        if pid == program.pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_main())
