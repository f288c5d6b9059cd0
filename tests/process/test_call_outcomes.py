import asyncio
import ctypes
import operator
import os
import signal
import threading
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
    Options,
    isolated_process,
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


@pytest.mark.parametrize(("argument", "code"), [(None, 0), (7, 7), ("a reason", 1), (1 << 40, 0)])
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


def test_a_fork_that_comes_back_twice(victims: ModuleType, start: Any) -> None:
    """A function that forked returns once: the copy's result is not a second answer."""
    with isolated_process(victims.forks_on, timeout=60, options=Options(start=start)) as child:
        assert child.result() == "original"


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
