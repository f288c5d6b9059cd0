"""Waits for one command, then becomes it: run as `python -ISE launch.py FD PARENT_PID`.

Owns what must happen in the child before the worker's program: the parent-death signal, output,
folder, clean signals, exec. Never forks, never imports more than it must (start-up is paid at every
restart), never outlives its parent. Invariant: the answer `exec` is written only when nothing but
the exec is left to fail, so a stream that ends without it means that no worker ran.

It is alone in a fresh session (its starter saw to that), so its pid is the worker's pid, session
and process group. The format of message and answer is in protocol.py; -I keeps that out of reach,
so the names are repeated here, and a test compares them.
"""

import ctypes
import os
import sys

PROTOCOL_VERSION = b"1"
CHUNK_BYTES = 1 << 16
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SIGKILL = 9
SIG_SETMASK = 2  # asm-generic/signal-defs.h
LAST_SIGNAL = 64
SIGSET_BYTES = 128  # glibc's sigset_t; musl's is the same size
LAST_STANDARD_FD = 2
EXIT_NOT_STARTED = 127  # what a shell says


class CannotLaunchError(Exception):
    """A stage failed: (stage, errno, path)."""


def fill_standard_descriptors() -> None:
    """Open /dev/null for those of 0 to 2 that the parent had closed, before something else does."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > LAST_STANDARD_FD:
            os.close(fd)
            return
        os.set_inheritable(fd, True)  # noqa: FBT003 -- it takes nothing else


def die_with_parent(libc: ctypes.CDLL, parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends; leave at once if it already has."""
    if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(SIGKILL), 0, 0, 0) != 0:
        raise CannotLaunchError("prctl", ctypes.get_errno(), b"")
    # Between the fork and the call above the parent may have died unnoticed.
    if os.getppid() != parent_pid:
        os._exit(EXIT_NOT_STARTED)


def receive(fd: int) -> bytes:
    """Return the whole message, or leave quietly when the parent hangs up first."""
    message = b""
    while not message.endswith(b"\0\0"):
        chunk = os.read(fd, CHUNK_BYTES)
        if not chunk:
            os._exit(0)
        message += chunk
    return message


def parse(message: bytes) -> "dict[bytes, list[bytes]]":
    """Return the values of each field, in order."""
    names = (b"version", b"cwd", b"output", b"arg", b"env")
    known = {name: [] for name in names}  # type: dict[bytes, list[bytes]]
    for field in message.split(b"\0"):
        name, _, value = field.partition(b"=")
        if name in known:
            known[name].append(value)
        elif field:
            raise CannotLaunchError("message", 0, name)
    if known[b"version"] != [PROTOCOL_VERSION]:
        raise CannotLaunchError("message", 0, b"version")
    return known


def redirect(path: bytes) -> None:
    """Send stdout and stderr to the end of a file, made when it is missing."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        output = os.open(path, flags, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
    except OSError as error:
        raise CannotLaunchError("output", error.errno, path) from error


def enter(folder: bytes) -> None:
    """Change to the worker's folder."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise CannotLaunchError("chdir", error.errno, folder) from error


def reset_signals(libc: ctypes.CDLL) -> None:
    """Give the worker default signals and an empty mask, whatever Python or the parent had."""
    for number in range(1, LAST_SIGNAL + 1):
        libc.signal(number, None)  # SIG_DFL; the kernel refuses where it must
    libc.sigprocmask(SIG_SETMASK, ctypes.create_string_buffer(SIGSET_BYTES), None)


def candidates(program: bytes, search: bytes) -> "list[bytes]":
    """Return the files a shell in this folder, with this PATH, would try."""
    if b"/" in program:
        return [program]
    # Paths are bytes here, and importing pathlib costs more than all the rest.
    join = os.path.join
    return [join(folder, program) for folder in search.split(b":")]


def become(argv: "list[bytes]", env: "dict[bytes, bytes]") -> None:
    """Exec the program, or raise what stood in the way of the likeliest candidate."""
    failure = CannotLaunchError("exec", 2, argv[0])  # ENOENT
    for path in candidates(argv[0], env.get(b"PATH", os.fsencode(os.defpath))):
        try:
            os.execve(path, argv, env)  # noqa: S606 -- no shell is the point
        except (FileNotFoundError, NotADirectoryError) as error:
            if b"/" in argv[0] or os.path.exists(path):  # noqa: PTH110 -- bytes
                raise CannotLaunchError("exec", error.errno, path) from error
        except PermissionError as error:
            failure = CannotLaunchError("exec", error.errno, path)
        except OSError as error:
            raise CannotLaunchError("exec", error.errno, path) from error
    raise failure


def launch(fd: int, parent_pid: int) -> None:
    """Do everything, in the order in which the parent's death or an error costs least."""
    libc = ctypes.CDLL(None, use_errno=True)
    die_with_parent(libc, parent_pid)
    fill_standard_descriptors()
    order = parse(receive(fd))
    env = dict(pair.partition(b"=")[::2] for pair in order[b"env"])
    enter(order[b"cwd"][0])
    for path in order[b"output"]:
        redirect(path)
    reset_signals(libc)
    os.write(fd, b"exec=\0")
    become(order[b"arg"], env)


def main() -> None:
    """Launch, or tell the parent what failed."""
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)  # noqa: FBT003 -- its end at exec is the good news
    try:
        launch(fd, int(sys.argv[2]))
    except CannotLaunchError as error:
        stage, number, path = error.args
        os.write(fd, b"stage=%s\0errno=%d\0path=%s\0\0" % (stage.encode(), number, path))
    os._exit(EXIT_NOT_STARTED)


if __name__ == "__main__":
    main()
