import asyncio
import ctypes
import errno
import importlib
import math
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from supervisor.process import (
    ChildExited,
    ChildFailed,
    ChildRaised,
    ChildSignaled,
    ChildTimedOut,
    ChildUnkillable,
    Options,
    SpawnFailed,
    isolated_process,
)

pytestmark = pytest.mark.usefixtures("unleaked")

# A module of the user's own, which a fresh interpreter can import.
VICTIMS = '''
import asyncio, os, signal, subprocess, sys, threading, time

class Odd(Exception):
    """Pickles, and does not unpickle."""
    def __init__(self, left, right):
        super().__init__(left + right)

class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")

class Bomb:
    """Pickles here and fails to unpickle elsewhere."""
    def __reduce__(self):
        return exec, ("raise ValueError('boom')",)

def fails():
    raise KeyError("name")

def odd():
    raise Odd("a", "b")

def unprintable():
    raise Unprintable

def carries():
    error = ValueError("with a lock")
    error.lock = threading.Lock()
    raise error

def returns_lambda():
    return lambda: None

def returns_bomb():
    return Bomb()

def deaf(fd):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(fd, b"ready")
    while True:
        signal.pause()

def saves(fd):
    def save(*_):
        os.write(fd, b"saved")
        os._exit(0)
    signal.signal(signal.SIGTERM, save)
    os.write(fd, b"ready")
    while True:
        signal.pause()

def says_and_exits(code):
    print("on stdout")
    print("on stderr", file=sys.stderr)
    sys.exit(code)

def forks_on():
    """Both come back from here."""
    os.fork()
    return "both"

def leaves_a_grandchild(fd):
    """The grandchild inherits every descriptor and outlives the function."""
    process = subprocess.Popen(["sleep", "1000"], close_fds=False)
    for name in os.listdir("/proc/self/fd"):
        try:
            os.set_inheritable(int(name), True)
        except OSError:
            pass
    if os.fork() == 0:
        signal.pause()
    os.write(fd, b"%d" % process.pid)
    return "done"

def dies_while_sending():
    class Trap:
        def __reduce__(self):
            os.kill(os.getpid(), signal.SIGKILL)
    return [b"x" * 1_000_000, Trap()]

def closes_everything():
    os.closerange(3, 4096)
    return 1

def nests():
    from supervisor.process import isolated_process
    with isolated_process(os._exit, 5, timeout=20) as child:
        return child.result()

def runs_a_loop():
    async def main():
        await asyncio.sleep(0)
        return "looped"
    return asyncio.run(main())

def dispositions():
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return fields["SigBlk"].strip(), os.getsid(0) == os.getpid(), os.read(0, 1)
'''


@pytest.fixture
def victims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module, importable here and in children that inherit sys.path."""
    (tmp_path / "victims.py").write_text(VICTIMS)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("victims", None)
    return importlib.import_module("victims")


@pytest.fixture(params=["spawn", "fork"])
def start(request: pytest.FixtureRequest) -> Any:
    """Return each way of starting."""
    return request.param


def failure(
    function: Callable[..., Any], *args: Any, options: Options, timeout: float = 60
) -> ChildFailed:
    """Return how a call fails."""
    with isolated_process(function, *args, timeout=timeout, options=options) as child:
        with pytest.raises(ChildFailed) as caught:
            child.result()
        assert caught.value.pid == child.pid
        return caught.value


def test_a_value(start: Any) -> None:
    """The value comes back, as often as it is asked for, also after the block."""
    with isolated_process(operator.add, 1, 2, timeout=60, options=Options(start=start)) as child:
        assert child.pid != os.getpid()
        assert child.result() == 3
        assert child.result() == 3
    assert child.result() == 3
    assert not child.running


def test_keyword_arguments() -> None:
    """Keywords that are not isolated_process's own go to the function."""
    with isolated_process(sorted, [1, 3, 2], timeout=60, reverse=True) as child:
        assert child.result() == [3, 2, 1]


def test_a_large_value(start: Any) -> None:
    """200 MB come back whole: nothing fills up, whoever reads when."""
    size = 200 << 20
    with isolated_process(bytes, size, timeout=100, options=Options(start=start)) as child:
        assert len(child.result()) == size


def test_a_large_argument() -> None:
    """A large argument is no pipe to fill either."""
    with isolated_process(len, b"x" * (50 << 20), timeout=100) as child:
        assert child.result() == 50 << 20


def test_an_exception(victims: ModuleType, start: Any) -> None:
    """What the function raised arrives with type, message, remote traceback and as the cause."""
    error = failure(victims.fails, options=Options(start=start))
    assert isinstance(error, ChildRaised)
    assert (error.type_name, error.message) == ("KeyError", "'name'")
    assert isinstance(error.__cause__, KeyError)
    assert 'raise KeyError("name")' in error.traceback
    assert "workers/call.py" not in error.traceback
    assert "fails in child" in str(error)
    assert "raised KeyError: 'name'" in str(error)


@pytest.mark.parametrize(
    ("name", "type_name", "message"),
    [
        ("odd", "victims.Odd", "ab"),
        ("unprintable", "victims.Unprintable", "(its message could not be made)"),
        ("carries", "ValueError", "with a lock"),
    ],
)
def test_an_exception_that_cannot_travel(
    victims: ModuleType, start: Any, name: str, type_name: str, message: str
) -> None:
    """An exception that breaks pickling or printing still arrives as text."""
    error = failure(getattr(victims, name), options=Options(start=start))
    assert isinstance(error, ChildRaised)
    assert (error.type_name, error.message) == (type_name, message)
    assert name in error.traceback


def test_a_value_that_cannot_be_sent(victims: ModuleType, start: Any) -> None:
    """A return value that does not pickle is a failure that says so."""
    error = failure(victims.returns_lambda, options=Options(start=start))
    assert isinstance(error, ChildRaised)
    assert "(the return value, a function, cannot be sent)" in error.message


def test_a_value_that_cannot_be_rebuilt(victims: ModuleType, start: Any) -> None:
    """A return value that does not unpickle here is a failure with the reason as its cause."""
    error = failure(victims.returns_bomb, options=Options(start=start))
    assert isinstance(error, ChildRaised)
    assert "its value cannot be rebuilt here" in error.message
    assert isinstance(error.__cause__, ValueError)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_an_exit_without_a_result(start: Any, code: int) -> None:
    """os._exit is a failure with its code, 0 included: exit 0 is not done."""
    error = failure(os._exit, code, options=Options(start=start))
    assert isinstance(error, ChildExited)
    assert error.code == code
    assert f"ended with exit code {code} and without a result" in str(error)


@pytest.mark.parametrize(("argument", "code"), [(None, 0), (7, 7), ("a reason", 1), (256, 0)])
def test_sys_exit(
    victims: ModuleType, start: Any, tmp_path: Path, argument: Any, code: int
) -> None:
    """sys.exit means what it means anywhere, and the end of the output is part of the failure."""
    options = Options(start=start, output=tmp_path / "output")
    (tmp_path / "output").write_text("of an earlier one\n")
    error = failure(victims.says_and_exits, argument, options=options)
    assert isinstance(error, ChildExited)
    assert error.code == code
    assert "on stderr\n" in error.output_tail
    assert "on stdout\n" in str(error)
    assert ("a reason" in error.output_tail) == (argument == "a reason")
    assert "earlier" not in error.output_tail


def test_a_segmentation_fault(start: Any, tmp_path: Path) -> None:
    """A crash is a failure with the signal, and the Python line it happened on in the output."""
    options = Options(start=start, output=tmp_path / "output")
    error = failure(ctypes.string_at, 0, options=options)
    assert isinstance(error, ChildSignaled)
    assert error.signal == signal.SIGSEGV
    assert "was killed by SIGSEGV" in str(error)
    assert "string_at" in error.output_tail


def test_a_hang(start: Any) -> None:
    """A call that does not come back is ended at its timeout."""
    error = failure(time.sleep, 1000, options=Options(start=start), timeout=0.3)
    assert isinstance(error, ChildTimedOut)
    assert error.timeout_s == 0.3
    assert "had not finished after 0.3 s" in str(error)


def test_a_deaf_child(victims: ModuleType, pipe: Any) -> None:
    """A child that ignores SIGTERM is killed after the grace, and gone after the block."""
    options = Options(start="fork", grace_s=0.05)
    with isolated_process(victims.deaf, pipe.write_fd, options=options) as child:
        assert pipe.read() == "ready"
        assert child.running
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_leaving_early_gives_time_to_save(victims: ModuleType, pipe: Any) -> None:
    """An exception in the block ends the child with SIGTERM first, and goes on."""
    options = Options(start="fork")

    def leave_early() -> None:
        with isolated_process(victims.saves, pipe.write_fd, options=options):
            assert pipe.read() == "ready"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave_early()
    assert pipe.read() == "saved"


def test_nobody_asked_for_the_result() -> None:
    """After a block in which nobody asked there is no result, and that is said."""
    with isolated_process(operator.add, 1, 2) as child:
        pass
    with pytest.raises(RuntimeError, match="block was left before"):
        child.result()


def test_before_the_block() -> None:
    """Outside its block there is no child to ask about."""
    child = isolated_process(operator.add, 1, 2)
    for use in (lambda: child.pid, lambda: child.running, child.result):
        with pytest.raises(RuntimeError, match="there is no child yet"):
            use()


def test_a_block_is_entered_once() -> None:
    """The same context manager cannot start a second child."""
    child = isolated_process(operator.add, 1, 2, options=Options(start="fork"))
    with child, pytest.raises(RuntimeError, match="entered before"):
        child.__enter__()


def test_finished_before_anybody_looked(start: Any) -> None:
    """A timeout that has passed when the result is asked for does not undo a result."""
    with isolated_process(operator.add, 1, 2, timeout=0, options=Options(start=start)) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.result() == 3


def test_a_fork_that_comes_back_twice(victims: ModuleType, start: Any) -> None:
    """A function that forked returns once: the copy's result is not a second answer."""
    with isolated_process(victims.forks_on, timeout=60, options=Options(start=start)) as child:
        assert child.result() == "both"


def test_a_grandchild_that_keeps_descriptors(
    victims: ModuleType, pipe: Any, gone: Callable[[int], bool]
) -> None:
    """Grandchildren that hold every descriptor delay neither the result nor the end."""
    options = Options(start="fork")
    with isolated_process(victims.leaves_a_grandchild, pipe.write_fd, options=options) as child:
        assert child.result() == "done"
    assert gone(int(pipe.read()))
    pipe.hang_up()
    assert pipe.read() == ""


def test_a_death_half_way_through_the_result(victims: ModuleType, start: Any) -> None:
    """Half a result is a failure by signal, neither a hang nor a broken value."""
    error = failure(victims.dies_while_sending, options=Options(start=start))
    assert isinstance(error, ChildSignaled)
    assert error.signal == signal.SIGKILL


def test_a_child_that_closed_its_channel(victims: ModuleType, start: Any, tmp_path: Path) -> None:
    """A function that closes every descriptor loses its result, and the failure shows why."""
    options = Options(start=start, output=tmp_path / "output")
    error = failure(victims.closes_everything, options=options)
    assert isinstance(error, ChildExited)
    assert error.code == 1


def test_nested(victims: ModuleType, start: Any) -> None:
    """A child uses a child; the inner failure arrives as the cause of the outer."""
    error = failure(victims.nests, options=Options(start=start))
    assert isinstance(error.__cause__, ChildExited)
    assert error.__cause__.code == 5


def test_from_a_thread(start: Any) -> None:
    """Many threads may each have a child."""
    results: list[int] = []

    def call(number: int) -> None:
        options = Options(start=start)
        with isolated_process(operator.mul, number, 2, timeout=60, options=options) as child:
            results.append(child.result())

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_inside_a_running_event_loop(victims: ModuleType, start: Any) -> None:
    """Called under asyncio, as in a notebook, the child may run a loop of its own."""

    async def main() -> str:
        options = Options(start=start)
        with isolated_process(victims.runs_a_loop, timeout=60, options=options) as child:
            return child.result()

    assert asyncio.run(main()) == "looped"


def test_the_child_begins_clean(victims: ModuleType, start: Any) -> None:
    """Blocked signals are not passed on, the session is the child's own, stdin is empty."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        options = Options(start=start)
        with isolated_process(victims.dispositions, timeout=60, options=options) as child:
            assert child.result() == ("0" * 16, True, b"")
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])


def test_handlers_of_the_parent_do_not_run_in_the_child() -> None:
    """A forked child dies of SIGTERM, whatever its parent does on it."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        options = Options(start="fork", grace_s=1000)
        error = failure(lambda: os.kill(os.getpid(), signal.SIGTERM), options=options)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(error, ChildSignaled)
    assert error.signal == signal.SIGTERM


def test_output_that_cannot_be_opened(tmp_path: Path, start: Any) -> None:
    """Both ways of starting blame an output file that cannot be opened."""
    options = Options(start=start, output=tmp_path / "missing" / "output")
    with (
        pytest.raises(SpawnFailed, match="the folder of its output file"),
        isolated_process(operator.add, 1, 2, options=options),
    ):
        raise AssertionError("not reached")


def test_output_that_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that nobody reads (a FIFO) is a failed start after a while, not a hang."""
    os.mkfifo(tmp_path / "output")
    monkeypatch.setattr("supervisor.process.launcher.LAUNCH_LIMIT_S", 0.2)
    options = Options(start="spawn", output=tmp_path / "output")
    with pytest.raises(SpawnFailed, match="Connection timed out"):
        isolated_process(operator.add, 1, 2, options=options).__enter__()


def test_a_fork_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork that fails (no memory, too many processes) is a failed start with the reason."""

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(SpawnFailed, match=r"cannot be forked \(Resource temporarily unavailable"):
        isolated_process(lambda: 1).__enter__()


def test_an_unkillable_child(
    victims: ModuleType, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that SIGKILL does not reach ends the wait with an error instead of a hang."""
    options = Options(start="fork", grace_s=0)
    block = isolated_process(victims.deaf, pipe.write_fd, options=options)
    child = block.__enter__()
    assert pipe.read() == "ready"
    with monkeypatch.context() as patch:
        patch.setattr("supervisor.process.call.KILL_LIMIT_S", 0.05)
        patch.setattr("supervisor.process.tree.ProcessGroup.signal", lambda *_: None)
        with pytest.raises(ChildUnkillable):
            block.__exit__(None, None, None)
    os.kill(child.pid, signal.SIGKILL)  # not reaped, so the pid is still the child's
    os.waitpid(child.pid, 0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: isolated_process(3), TypeError, "3 is no function"),
        (lambda: isolated_process(print, timeout=-1), ValueError, "timeout is a number"),
        (lambda: isolated_process(print, timeout=math.nan), ValueError, "timeout is a number"),
        (lambda: Options(start="thread"), ValueError, "'auto', 'spawn' or 'fork'"),
        (lambda: Options(grace_s=-1), ValueError, "grace_s"),
    ],
)
def test_calls_nobody_can_mean(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    """What cannot be started is refused before the block, in words."""
    with pytest.raises(error, match=message):
        make()
