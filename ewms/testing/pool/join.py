"""Run a program inside a pool's namespaces; a stand-alone script that needs the standard library only.

    python -I -S join.py INIT_PID UID GID CWD PROGRAM [ARGUMENT…]

It stays as the program's parent: signals that it gets go on to the program, its exit status is the program's, and when
it is killed, the program is killed too. (`nsenter` does the first of these not at all.)
"""

import ctypes
import os
import signal
import sys
from typing import NoReturn

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1
_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(init_pid: int) -> None:
    # All are opened before the first is entered: afterwards this /proc is another one.
    namespaces = [
        (os.open(f"/proc/{init_pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag)
        for name, flag in (("pid", _CLONE_NEWPID), ("uts", _CLONE_NEWUTS), ("mnt", _CLONE_NEWNS))
    ]
    for fd, flag in namespaces:
        if _libc.setns(fd, flag):
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), f"setns({flag:#x})")


def _become(parent: int, uid: int, gid: int, cwd: str, argv: list[str]) -> NoReturn:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        # After the change of user, which clears it.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.chdir(cwd)
        # The parent may have died before the line above; its other end of the pipe is then closed.
        os.write(parent, b".")
        os.close(parent)
        os.execvp(argv[0], argv)  # noqa: S606  no shell is what we want
    except OSError as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    os._exit(127)


def _main() -> NoReturn:
    init_pid, uid, gid, cwd, *argv = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    _enter(int(init_pid))
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        _become(write_end, int(uid), int(gid), cwd, argv)
    os.close(write_end)
    for number in _FORWARDED:
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        # Die the same death, so that whoever waits for us sees it.
        if os.WTERMSIG(status) in _FORWARDED:
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    _main()
