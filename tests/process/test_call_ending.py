import errno
import math
import operator
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from supervisor.process import (
    ChildFailed,
    ChildSignaled,
    ChildTimedOut,
    ChildUnkillable,
    Options,
    SpawnFailed,
    isolated_process,
    ladder,
)

pytestmark = pytest.mark.usefixtures("unleaked")


def failure(
    function: Callable[..., Any], *args: Any, options: Options, timeout: float = 60
) -> ChildFailed:
    """Return how a call fails."""
    with isolated_process(function, *args, timeout=timeout, options=options) as child:
        with pytest.raises(ChildFailed) as caught:
            child.result()
        assert caught.value.pid == child.pid
        assert not child.running
        return caught.value


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


def test_a_child_that_answered_may_finish(victims: ModuleType, tmp_path: Path) -> None:
    """Once its answer is here, a child is given its grace to end by itself, atexit included."""
    with isolated_process(victims.leaves_a_note, tmp_path / "note", timeout=60) as child:
        child.result()
    assert (tmp_path / "note").exists()


def test_ctrl_c_in_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that strikes while the block is left goes on, after the child was ended."""
    drive = ladder.drive
    strikes = [KeyboardInterrupt(), KeyboardInterrupt()]

    def struck(steps: Any, main: Any) -> None:
        if strikes:
            raise strikes.pop()
        drive(steps, main)

    monkeypatch.setattr(ladder, "drive", struck)
    block = isolated_process(time.sleep, 1000, options=Options(start="fork"))
    child = block.__enter__()
    with pytest.raises(KeyboardInterrupt):
        block.__exit__(None, None, None)
    assert not strikes
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


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


def test_a_signal_at_the_first_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that strikes a forked child before it is set up never runs the parent's handler."""

    def struck() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(os, "setsid", struck)
    before = signal.signal(signal.SIGUSR1, lambda *_: os._exit(9))
    try:
        error = failure(time.sleep, 1000, options=Options(start="fork"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert isinstance(error, ChildSignaled)
    assert error.signal == signal.SIGUSR1


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
        patch.setattr("supervisor.process.tree.Sweep.kill", lambda _: ())
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


def test_a_child_killed_as_soon_as_it_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is killed before it has made a group of its own dies of it all the same."""
    monkeypatch.setattr(os, "setsid", signal.pause)
    with isolated_process(time.sleep, 1000, options=Options(start="fork", grace_s=0)) as child:
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
