"""Waits for one command, then becomes it: run as `python -ISE launch.py FD PARENT_PID`.

Owns what must happen in the child before the worker's program: the parent-death signal, cgroup,
limits, output, folder, clean signals, exec. Never forks, never imports more than it must (start-up
is paid at every restart), never outlives its parent but to end the tree that it was told to guard
(guard.py). Invariant: the answer `exec` is written only when nothing but the exec is left to fail,
so a stream that ends without it means that no worker ran.

It is alone in a fresh session (its starter saw to that), so its pid is the worker's pid, session
and process group. The format of message and answer is in protocol.py; -I keeps that out of reach,
so the names are repeated here, and a test compares them.
"""

import ctypes
import os
import select
import sys

TYPE_CHECKING = False  # typing itself costs more than all the rest
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Callable, Dict, List, Optional, Tuple

    Order = Dict[bytes, List[bytes]]
    Become = Callable[[List[bytes], Dict[bytes, bytes]], None]

PROTOCOL_VERSION = b"1"
CHUNK_BYTES = 1 << 16
END = b"\0\0"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_PTRACER = 0x59616D61  # the same: "Yama"
SIGHUP, SIGINT, SIGTERM, SIGKILL = 1, 2, 15, 9
SIG_IGN = 1  # asm-generic/signal-defs.h
SIG_SETMASK = 2
LAST_SIGNAL = 64
SIGSET_BYTES = 128  # glibc's sigset_t; musl's is the same size
LAST_STANDARD_FD = 2
HUNG_UP_MS = 5000  # a dying parent closes its files some time before it is seen to be dead
EXIT_NOT_STARTED = 127  # what a shell says

FIELDS = b"version guard main cgroup oom_score_adj cpu limit tracer cwd output arg env".split()


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


def close_ears(libc: ctypes.CDLL) -> None:
    """Ignore the polite signals: what is sent to a waiting launcher is not for the worker."""
    for number in (SIGHUP, SIGINT, SIGTERM):
        libc.signal(number, ctypes.c_void_p(SIG_IGN))


def hold_parent(parent_pid: int) -> "Optional[int]":
    """Return a descriptor that tells the parent's end; None when it has ended already."""
    try:
        pidfd = os.pidfd_open(parent_pid)
    except ProcessLookupError:
        return None
    if os.getppid() == parent_pid:
        return pidfd
    os.close(pidfd)
    return None


def ready(limit_ms: "Optional[int]", *fds: int) -> "List[int]":
    """Return which of these have something to tell; wait for that as long as this."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(limit_ms)]


def receive(fd: int, rest: bytes, parent: "Optional[int]") -> "Tuple[bytes, bytes]":
    """Return the next message and what came after it; no message when the parent is gone.

    The end of the socket would tell, too, but not while somebody holds a copy of its other end.
    """
    while END not in rest:
        heard = ready(0, fd) if parent is None else ready(None, fd, parent)
        chunk = os.read(fd, CHUNK_BYTES) if fd in heard else b""
        if not chunk:
            return b"", b""
        rest += chunk
    message, _, rest = rest.partition(END)
    return message + END, rest


def parse(message: bytes) -> "Order":
    """Return the values of each field, in order."""
    known = {name: [] for name in FIELDS}  # type: Order
    for field in message.split(b"\0"):
        name, _, value = field.partition(b"=")
        if name in known:
            known[name].append(value)
        elif field:
            raise CannotLaunchError("message", 0, name)
    if known[b"version"] != [PROTOCOL_VERSION]:
        raise CannotLaunchError("message", 0, b"version")
    return known


def await_command(fd: int, parent_pid: int) -> "Order":
    """Return the command. Until it comes, guard the tree that the parent may name.

    Without the parent-death signal, which would come before its last order could be read.
    """
    parent = hold_parent(parent_pid)
    guard = None  # type: Optional[ModuleType]
    guarded = {}  # type: Order
    rest = b""
    while True:
        message, rest = receive(fd, rest, parent)
        if not message:
            if guard is not None and (parent is None or ready(HUNG_UP_MS, parent)):
                guard.end(guarded)
            os._exit(0)
        order = parse(message)
        if not order[b"guard"]:
            return order
        guard, guarded = guard or load_guard(), order


def load_guard() -> "ModuleType":
    """Load guard.py, which only a launcher with time to spare needs, while it is surely there."""
    # By its file: isolated (-I), this folder is not among those that modules come from.
    from importlib.machinery import SourceFileLoader  # noqa: PLC0415 -- see above

    file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.py")  # noqa: PTH100, PTH118, PTH120 -- pathlib is slow
    guard = type(sys)("guard")
    SourceFileLoader("guard", file).exec_module(guard)
    return guard


def enter_cgroups(entries: "List[bytes]") -> None:
    """Move to the attempt's own cgroups; a launcher started ahead may be there, which saves ms."""
    for entry in entries:
        try:
            with open(entry, "r+b", buffering=0) as file:  # noqa: PTH123 -- pathlib is slow
                if b"%d" % os.getpid() not in file.readall().split():
                    file.write(b"0")
        except OSError as error:
            raise CannotLaunchError("cgroup", error.errno, entry) from error


def offer_to_oom_killer(scores: "List[bytes]") -> None:
    """Make it a likelier victim. To become a less likely one takes a right it may lack: no harm."""
    for score in scores:
        try:
            write(b"/proc/self/oom_score_adj", score)
        except PermissionError:
            return
        except OSError as error:
            raise CannotLaunchError("limit", error.errno, b"oom_score_adj=" + score) from error


def write(path: bytes, content: bytes) -> None:
    """Write to a file of the kernel, in one call."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def stay_on(cpus: "List[bytes]") -> None:
    """Run on these processors only."""
    if cpus:
        try:
            os.sched_setaffinity(0, map(int, cpus))
        except OSError as error:
            raise CannotLaunchError("limit", error.errno, b"cpus=" + b",".join(cpus)) from error


def limit(limits: "List[bytes]") -> None:
    """Set limits that everything the worker starts inherits."""
    if not limits:
        return
    import resource  # noqa: PLC0415 -- for those who have limits

    kinds = {b"nofile": resource.RLIMIT_NOFILE, b"core": resource.RLIMIT_CORE}
    for one in limits:
        name, _, value = one.partition(b"=")
        hard = resource.getrlimit(kinds[name])[1]
        wanted = hard if value == b"hard" else int(value)
        try:
            resource.setrlimit(kinds[name], (wanted, wanted))
        except ValueError as error:  # what Python makes of EPERM: only root may go beyond `hard`
            told = b"%s is more than the hard limit, %d" % (one, hard)
            raise CannotLaunchError("limit", 1, told) from error
        except OSError as error:
            raise CannotLaunchError("limit", error.errno, one) from error


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
        libc.signal(number, ctypes.c_void_p(SIG_IGN))  # forgets one that is pending
        libc.signal(number, None)  # SIG_DFL; the kernel refuses where it must
    libc.sigprocmask(SIG_SETMASK, ctypes.create_string_buffer(SIGSET_BYTES), None)


def candidates(program: bytes, search: bytes) -> "List[bytes]":
    """Return the files a shell in this folder, with this PATH, would try."""
    if b"/" in program:
        return [program]
    # Paths are bytes here, and importing pathlib costs more than all the rest.
    join = os.path.join
    return [join(folder, program) for folder in search.split(b":")]


def become(argv: "List[bytes]", env: "Dict[bytes, bytes]") -> None:
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


def launch(fd: int, parent_pid: int, become: "Become") -> None:
    """Do everything, in the order in which the parent's death or an error costs least."""
    libc = ctypes.CDLL(None, use_errno=True)
    close_ears(libc)
    fill_standard_descriptors()
    order = await_command(fd, parent_pid)
    die_with_parent(libc, parent_pid)
    env = dict(pair.partition(b"=")[::2] for pair in order[b"env"])
    enter_cgroups(order[b"cgroup"])
    offer_to_oom_killer(order[b"oom_score_adj"])
    stay_on(order[b"cpu"])
    for pid in order[b"tracer"]:  # fails where Yama is not built in, and is not needed there
        libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(int(pid)), 0, 0, 0)
    enter(order[b"cwd"][0])
    for path in order[b"output"]:
        redirect(path)
    limit(order[b"limit"])  # last: few open files are enough for the worker, not for all of this
    reset_signals(libc)
    os.write(fd, b"exec=\0")
    become(order[b"arg"], env)


def main(fd: int, parent_pid: int, become: "Become" = become) -> None:
    """Launch, or tell the parent what failed; zygote.py has another way to become the command."""
    os.set_inheritable(fd, False)  # noqa: FBT003 -- its end at exec is the good news
    try:
        launch(fd, parent_pid, become)
    except CannotLaunchError as error:
        stage, number, path = error.args
        os.write(fd, b"stage=%s\0errno=%d\0path=%s\0\0" % (stage.encode(), number, path))
    os._exit(EXIT_NOT_STARTED)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
