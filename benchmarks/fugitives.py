"""A worker whose children flee, each in its own way: `fugitives.py FD KIND...`.

Starts one for each KIND, has each write `PID START_TICKS` to the pipe FD before it hides, then
writes `ready` and waits. Stdlib only, run as a script: what escapes a kill is what this is about.
Each fugitive is one that could happen to an honest job; none attacks its supervisor.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

PTRACE_TRACEME = 0
SLEEP = ["sleep", "1000"]
ENV_START, ENV_END = 47, 48  # proc_pid_stat(5), counted from the field behind the name
FIRST_FD = 3
DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

pipe = -1


def main() -> None:
    """Start everybody, say so, wait."""
    global pipe  # noqa: PLW0603 -- every fugitive needs it, to its last moment
    pipe = int(sys.argv[1])
    for kind in sys.argv[2:]:
        if os.fork() == 0:
            KINDS[kind]()
            os._exit(0)
    os.write(pipe, b"ready\n")
    forever()


def forever() -> NoReturn:
    """Do nothing until killed."""
    while True:
        signal.pause()


def tell() -> None:
    """Report this process. Short enough to arrive whole."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    os.write(pipe, b"%d %s\n" % (os.getpid(), fields[19].encode()))


def loader() -> None:
    """Stay where it was born, as a data loader does."""
    tell()
    forever()


def session() -> None:
    """Make a session of its own."""
    os.setsid()
    loader()


def daemon() -> None:
    """Become a daemon by the book, all descriptors closed."""
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        tell()
        os.closerange(0, 4096)
        forever()


def deaf() -> None:
    """Ignore what asks it to end, in a session of its own."""
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    session()


def stopped() -> None:
    """Stop itself."""
    os.setsid()
    tell()
    os.kill(os.getpid(), signal.SIGSTOP)
    forever()


def traced() -> None:
    """Trace a child, which is stopped in the debugger's hand."""
    os.setsid()
    tracee = os.fork()
    if tracee == 0:
        tell()
        ctypes.CDLL(None).ptrace(PTRACE_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        forever()
    os.waitpid(tracee, os.WUNTRACED)
    loader()


def scrubbed() -> None:
    """Overwrite its environment, as programs do that give themselves a title."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    start, end = int(fields[ENV_START]), int(fields[ENV_END])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 -- unbuffered
        memory.seek(start)
        memory.write(bytes(end - start))
    loader()


def bare() -> None:
    """Execute with an empty environment in a session of its own; its parent remains."""
    if os.fork() == 0:
        os.setsid()
        tell()
        os.execvpe(SLEEP[0], SLEEP, {})  # noqa: S606 -- no shell is the point
    forever()


def lost() -> None:
    """Keep nothing: no parent, no session, no environment, no descriptor."""
    os.setsid()
    if os.fork() == 0:
        tell()
        os.closerange(FIRST_FD, 4096)
        os.execvpe(SLEEP[0], SLEEP, {})  # noqa: S606 -- no shell is the point


def hare() -> None:
    """Live for a moment only: each generation gives birth to the next and ends."""
    os.setsid()
    tell()
    while os.fork() == 0:
        pass


def bomb() -> None:
    """Fork, in all generations, as often as the kernel allows."""
    tell()
    while True:
        try:
            os.fork()
        except OSError:
            os.sched_yield()


KINDS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        *(loader, session, daemon, deaf, stopped, traced),
        *(scrubbed, bare, lost, hare, bomb),
    )
}


if __name__ == "__main__":
    main()
