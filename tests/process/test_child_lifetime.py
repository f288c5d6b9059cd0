import asyncio
import functools
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.host.processes import ProcessId
from supervisor.process import (
    ChildUnkillable,
    Command,
    ExitStatus,
    Launcher,
    birth,
    isolated_child,
    ladder,
)
from supervisor.process.birth import bear, drop
from supervisor.process.ladder import Worker

pytestmark = pytest.mark.usefixtures("unleaked")


def children() -> set[str]:
    """Return the pids of the children of this process, zombies included."""
    found: set[str] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(path.read_text().split())
    return found


SLEEP = ("sleep", "1000")
DEAF = ("sh", "-c", "trap '' TERM INT HUP; echo ready >/dev/fd/$0; while :; do sleep 1000; done")


def test_exit_status_of_a_normal_end() -> None:
    """A child's exit code is reported, and its end is told in words."""

    async def main() -> ExitStatus:
        async with isolated_child(Command(argv=["sh", "-c", "exit 3"])) as child:
            return await child.wait()

    status = asyncio.run(main())
    assert status == ExitStatus(3, None)
    assert str(status) == "exit code 3"
    assert not status.ok


def test_exit_status_of_a_signal() -> None:
    """A child that a signal killed is told apart from one that exited."""

    async def main() -> ExitStatus:
        async with isolated_child(Command(argv=["sh", "-c", "kill -SEGV $$"])) as child:
            return await child.wait()

    status = asyncio.run(main())
    assert (status.code, status.signal) == (None, signal.SIGSEGV)
    assert str(status).startswith("killed by SIGSEGV")


def test_many_tasks_wait_and_one_gives_up() -> None:
    """Every waiter gets the status, also after another one was cancelled."""

    async def main() -> list[ExitStatus]:
        async with isolated_child(Command(argv=SLEEP)) as child:
            waiters = [asyncio.create_task(child.wait()) for _ in range(5)]
            await asyncio.sleep(0)
            waiters[0].cancel()
            child.signal(signal.SIGTERM)
            statuses = await asyncio.gather(*waiters[1:])
            assert await child.wait() == statuses[0]  # long after the event
            return statuses

    assert asyncio.run(main()) == [ExitStatus(None, signal.SIGTERM)] * 4


def test_leaving_the_block_kills(gone: Callable[[int], bool]) -> None:
    """A child that still runs when the block is left normally is dead and reaped afterwards."""

    async def main() -> int:
        async with isolated_child(Command(argv=SLEEP)) as child:
            pass
        assert child.status == ExitStatus(None, signal.SIGKILL)
        return child.pid

    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, asyncio.run(main()), os.WEXITED | os.WNOHANG)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_in_the_block_kills_and_goes_on(error: type[BaseException]) -> None:
    """Any exception leaves the block as itself, with the child gone."""

    async def main() -> None:
        async with isolated_child(Command(argv=SLEEP)):
            raise error

    with pytest.raises(error):
        asyncio.run(main())


def test_a_deaf_child_is_killed(pipe: Any) -> None:
    """A child that ignores every polite signal is gone after stop's grace."""

    async def main() -> ExitStatus:
        argv = [*DEAF, str(pipe.write_fd)]
        async with isolated_child(Command(argv=argv, inherit_fds=[pipe.write_fd])) as child:
            assert await pipe.heard() == "ready\n"
            return await child.stop(grace_s=0.05)

    assert asyncio.run(main()) == ExitStatus(None, signal.SIGKILL)


def test_a_stopped_child_is_killed() -> None:
    """SIGSTOP keeps nobody alive."""

    async def main() -> None:
        async with isolated_child(Command(argv=SLEEP)) as child:
            child.signal(signal.SIGSTOP)

    asyncio.run(main())


def test_a_child_without_descriptors_is_seen_to_end() -> None:
    """A child that closed all its descriptors is still followed and ended."""
    close_all = "import os, time; os.closerange(0, 1000); os.kill(os.getpid(), 15)"

    async def main() -> ExitStatus:
        async with isolated_child(Command(argv=["python3", "-ISc", close_all])) as child:
            return await child.wait()

    assert asyncio.run(main()) == ExitStatus(None, signal.SIGTERM)


def test_the_group_dies_with_the_block(pipe: Any) -> None:
    """Grandchildren in the group are gone when the block is left, though the child itself ended."""
    script = "sleep 1000 & sleep 1000 & echo ready >/dev/fd/$0; exit 0"

    async def main() -> None:
        argv = ["sh", "-c", script, str(pipe.write_fd)]
        async with isolated_child(Command(argv=argv, inherit_fds=[pipe.write_fd])) as child:
            assert (await child.wait()).ok
            assert await pipe.heard() == "ready\n"
        assert child.survivors() == []

    asyncio.run(main())
    pipe.hang_up()
    assert pipe.read() == ""  # nobody holds the other end any more


@types.coroutine
def interrupted(
    inner: Coroutine[Any, Any, None], at: range, reached: list[int]
) -> Generator[Any, Any, None]:
    """Run a coroutine, and cancel it at these suspensions, the way a task does."""
    resume: Callable[[], Any] = functools.partial(inner.send, None)
    for count in range(10_000):
        try:
            future = resume()
        except StopIteration:
            assert not reached, "the cancellation was swallowed"
            return
        except asyncio.CancelledError:
            assert reached, "cancelled by somebody else"
            return
        if count in at:
            reached.append(count)
            if future is not None:
                future._asyncio_future_blocking = False
                future.cancel()
            resume = functools.partial(inner.throw, asyncio.CancelledError())
        else:
            try:
                yield future
                resume = functools.partial(inner.send, None)
            except asyncio.CancelledError as error:  # a timeout inside, which is not ours
                resume = functools.partial(inner.throw, error)


@pytest.mark.parametrize("times", [1, 2, 1000])
@pytest.mark.parametrize("ahead", [False, True])
def test_cancellation_at_every_await(*, ahead: bool, times: int) -> None:
    """Cancelled at any await, once or at those after it too, nothing is left of the child."""

    async def body() -> None:
        launcher = Launcher.start() if ahead else None
        try:
            command = Command(argv=["sh", "-c", "sleep 1000 & exec sleep 1000"])
            async with isolated_child(command, launcher=launcher) as child:
                await child.stop(grace_s=0.02)
            async with isolated_child(command) as child:
                await asyncio.sleep(0)
        finally:
            if launcher is not None:
                launcher.close()

    def run_to(at: int) -> bool:
        reached: list[int] = []
        asyncio.run(_driven(interrupted(body(), range(at, at + times), reached)))
        assert children() - before == set()
        return bool(reached)

    before = children()
    at = 0
    while run_to(at):
        at += 1
    assert at >= 4  # entering, the body and leaving all suspend


async def _driven(steps: Any) -> None:
    await steps


def test_a_block_that_is_thrown_away() -> None:
    """A coroutine that nobody finishes (GeneratorExit at an await) leaves no child."""

    async def body() -> None:
        async with isolated_child(Command(argv=SLEEP)):
            await asyncio.Event().wait()

    async def main() -> None:
        inner = body()

        @types.coroutine
        def until_body() -> Generator[Any, Any, None]:
            for _ in range(20):
                future = inner.send(None)
                if "Event" in str(inner.cr_await):
                    return
                yield future

        await until_body()
        inner.close()

    asyncio.run(main())


def test_three_hundred_quick_children() -> None:
    """Children that end at once leave neither descriptors nor zombies behind, however many."""

    async def one() -> bool:
        async with isolated_child(Command(argv=["true"])) as child:
            return (await child.wait()).ok

    async def main() -> list[bool]:
        return [ok for _ in range(15) for ok in await asyncio.gather(*(one() for _ in range(20)))]

    assert asyncio.run(main()) == [True] * 300


HALF_DEAD = """
import ctypes, os, pathlib, sys, threading
def outlive():
    stat = pathlib.Path(f"/proc/self/task/{os.getpid()}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        threading.Event().wait(0.001)
    os.write(int(sys.argv[1]), b"ready")
    threading.Event().wait()
threading.Thread(target=outlive).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_main_thread_ended(pipe: Any) -> None:
    """A process that lives on in another thread looks like a zombie, and counts as living."""

    async def main() -> None:
        argv = [sys.executable, "-ISc", HALF_DEAD, str(pipe.write_fd)]
        async with isolated_child(Command(argv=argv, inherit_fds=[pipe.write_fd])) as child:
            assert await pipe.heard() == "ready"
            assert child._worker.tree.members() == [ProcessId(child.pid, child.start_ticks)]
            assert await child.stop() == ExitStatus(None, signal.SIGTERM)

    asyncio.run(main())


class Immortal:
    """A tree that SIGKILL cannot reach, as a process that hangs in the kernel."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def signal(self, number: int) -> None:
        """Do nothing."""

    def kill(self) -> list[ProcessId]:
        """Strike nobody."""
        return []

    def left(self) -> list[ProcessId]:
        """Return the members."""
        return self.members()

    def members(self) -> list[ProcessId]:
        """Return the main process while it is there."""
        main = self.worker.main
        return [] if main.exited() else [ProcessId(main.pid, main.start_ticks)]


def test_an_unkillable_child_is_reported_and_reaped_later(
    monkeypatch: pytest.MonkeyPatch, gone: Callable[[int], bool]
) -> None:
    """A child that does not die of SIGKILL ends the wait with an error; it is reaped later."""
    monkeypatch.setattr("supervisor.process.child.KILL_LIMIT_S", 0.05)
    monkeypatch.setattr("supervisor.process.child.FINISH_LIMIT_S", 1e6)  # not waited for twice

    async def main() -> None:
        block = isolated_child(Command(argv=SLEEP))
        child = await block.__aenter__()
        child._worker.tree = Immortal(child._worker)
        with pytest.raises(ChildUnkillable, match=f"process {child.pid} did not die of SIGKILL"):
            await block.__aexit__(None, None, None)
        assert child.survivors() == [ProcessId(child.pid, child.start_ticks)]
        os.kill(child.pid, signal.SIGKILL)  # unreaped, so the pid is still its own
        assert await child.wait() == ExitStatus(None, signal.SIGKILL)
        assert child.survivors() == []

    asyncio.run(main())


def test_signals_after_the_end_reach_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the leader is reaped its group id is nobody's: no signal is sent to it any more."""
    sent: list[tuple[int, int]] = []

    async def main() -> None:
        async with isolated_child(Command(argv=["true"])) as child:
            await child.kill()
            monkeypatch.setattr(os, "killpg", lambda *call: sent.append(call))
            child.signal(signal.SIGTERM)
            await child.stop()
            await child.kill()
            child._worker.tree.signal(signal.SIGTERM)
            child._worker.tree.kill()
        await child.close()

    asyncio.run(main())
    assert sent == []


def test_a_status_that_somebody_else_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child reaped behind our back has ended with an unknown status; its group is left alone."""
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("the group may be anybody's"))

    async def main() -> ExitStatus:
        async with isolated_child(Command(argv=SLEEP)) as child:
            child.signal(signal.SIGKILL)
            os.waitid(os.P_PID, child.pid, os.WEXITED)  # noqa: ASYNC222 -- it is dying
            return await child.wait()

    status = asyncio.run(main())
    assert (status.code, status.signal, status.ok) == (None, None, False)
    assert "taken by another part" in str(status)


def test_ctrl_c_in_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that strikes in the synchronous last step goes on, after the step was done."""
    drive = ladder.drive
    strikes = [KeyboardInterrupt()]

    def struck(steps: Any, main: Any) -> None:
        if strikes:
            raise strikes.pop()
        drive(steps, main)

    monkeypatch.setattr(ladder, "drive", struck)

    async def main() -> None:
        block = isolated_child(Command(argv=SLEEP))
        child = await block.__aenter__()
        with pytest.raises(KeyboardInterrupt):
            await block.__aexit__(GeneratorExit, GeneratorExit(), None)
        assert child.status == ExitStatus(None, signal.SIGKILL)

    asyncio.run(main())
    assert not strikes


def test_children_are_born_one_at_a_time() -> None:
    """The lock that keeps one child's descriptors out of another is held around each fork."""

    def fork() -> int:
        assert birth._one_at_a_time.locked()
        return os.posix_spawn("/bin/true", ["true"], {}, setsid=True)

    drop(bear(fork))
    assert not birth._one_at_a_time.locked()


def test_ctrl_c_while_a_child_comes_to_be() -> None:
    """A Ctrl-C between the fork and its caller waits, then finds the child and ends it."""

    def fork() -> int:
        pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setsid=True, setsigmask=[])
        os.kill(os.getpid(), signal.SIGINT)
        return pid

    stay = threading.Event()
    other = threading.Thread(target=stay.wait)  # takes the signal that the main thread blocks
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            bear(fork)
    finally:
        stay.set()
        other.join()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_is_entered_once() -> None:
    """The same context manager cannot hold two children."""

    async def main() -> None:
        block = isolated_child(Command(argv=["true"]))
        async with block:
            with pytest.raises(RuntimeError, match="entered before"):
                await block.__aenter__()

    asyncio.run(main())
