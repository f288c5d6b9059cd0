"""A session in real processes: how they end, what they fork, and what a zygote knows."""

import os
import signal
import sys
import time

import pytest

from tests.process.session_server import DEADLINE_S, ROOT, Server, result, server  # noqa: F401 -- a fixture
from tests.process.zygotes import Home, drive, home  # noqa: F401 -- a fixture
from workers.protocol import ENV_SESSION
from workers.reports import Errored, Hello, Listens, Outcome, Progressed, StopAsked

HEAD = "import atexit, os, signal, sys, time\nfrom workers import session\n"
STEPS = HEAD + "for step in range(1, 1001): session.progress(step, 1000, loss=1 / step)\n"


@pytest.mark.parametrize(
    ("ending", "code"),
    [("", 0), ("sys.exit(7)", 7), ("sys.exit()", 0), ("raise ValueError('x')", 1)],
)
def test_the_last_progress_is_sent_at_the_end(ending, code, server) -> None:  # noqa: F811 -- the fixture
    """The exit code is the script's own, and nothing is lost that was said at the very end."""
    child = server.start(STEPS + ending)
    peer = server.accept()
    told = peer.rest()
    assert child.wait(DEADLINE_S) == code
    assert [one.step for one in told if isinstance(one, Progressed)][-1] == 1000
    errors = ["x"] if "raise" in ending else []
    assert [one.message for one in told if isinstance(one, Errored)] == errors


def test_what_kills_at_once_still_leaves_the_error(server) -> None:  # noqa: F811 -- the fixture
    """An error that is told before os._exit has arrived."""
    child = server.start(STEPS + "session.error(KeyError('x'))\nos._exit(9)")
    assert server.accept().wait_for(Errored).type_name == "KeyError"
    assert child.wait(DEADLINE_S) == 9


def test_the_end_waits_for_no_value_of_the_scripts(server) -> None:  # noqa: F811 -- the fixture
    """A metric that never becomes a number, as on a GPU that hangs, does not keep the process."""
    code = HEAD + (
        "class Stuck:\n"
        "    def __float__(self):\n"
        "        print('stuck', flush=True)\n"
        "        time.sleep(1000)\n"
        "session.progress(1, loss=Stuck())\n"
    )
    child = server.start(code)
    assert child.stdout is not None
    assert child.stdout.readline() == "stuck\n"
    began = time.monotonic()
    assert child.wait(DEADLINE_S) == 0
    assert time.monotonic() - began < 5


def test_a_forked_child_neither_holds_the_line_nor_speaks(server) -> None:  # noqa: F811 -- the fixture
    """The line ends with the parent; the child lives on, sees no stop, and SIGTERM ends it."""
    code = HEAD + (
        "session.progress(1)\n"
        "session.on_stop(lambda: print('never', flush=True))\n"
        "if os.fork() == 0:\n"
        "    assert session.stopping is False\n"
        "    assert session._here.line is None\n"
        "    print(os.getpid(), flush=True)\n"
        "    signal.pause()\n"
        "os._exit(0)\n"
    )
    child = server.start(code)
    peer = server.accept()
    assert peer.hear() == Hello(child.pid)
    peer.rest()
    assert child.stdout is not None
    copy = int(child.stdout.readline())
    os.kill(copy, 0)  # it lives
    os.kill(copy, signal.SIGTERM)
    assert child.stdout.read() == ""  # its end was the last of the pipe
    assert child.wait(DEADLINE_S) == 0


def test_a_forked_child_that_speaks_has_its_own_line(server) -> None:  # noqa: F811 -- the fixture
    """From its first call on, also from a thread; its exit says nothing of the parent's."""
    code = HEAD + (
        "import threading\n"
        "session.progress(1)\n"
        "session.on_stop(lambda: print('parent', flush=True))\n"
        "def copy():\n"
        "    if os.fork() == 0:\n"
        "        assert session.stopping is False\n"
        "        session.progress(77)\n"
        "        while not session.stopping: time.sleep(0.001)\n"
        "        os._exit(5)\n"
        "thread = threading.Thread(target=copy)\n"
        "thread.start()\n"
        "thread.join()\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"  # the test's own only child
    ).replace("os.wait()", "os.waitpid(0, 0)")
    child = server.start(code, "-W", "ignore:.*multi-threaded:DeprecationWarning")
    server.accept()
    peer = server.accept()
    hello = peer.hear()
    assert hello.pid != child.pid
    assert {type(peer.hear()), type(peer.hear())} == {Listens, Progressed}
    peer.tell(StopAsked("copy", 60.0))
    assert result(child) == (5, "", "")


def test_children_of_multiprocessing_end_as_ever(server) -> None:  # noqa: F811 -- the fixture
    """A pool that is terminated by signal is gone, though its parent listens."""
    code = HEAD + (
        "import multiprocessing\n"
        "session.progress(1)\n"
        "assert session.stopping is False\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    print(pool.map(abs, [-1, -2]))\n"
    )
    child = server.start(code, "-W", "ignore:.*multi-threaded:DeprecationWarning")
    assert result(child) == (0, "[1, 2]\n", "")
    assert isinstance(server.accept().hear(), Hello)


@pytest.mark.parametrize(
    ("ending", "printed"),
    [
        ("", "saved\n"),
        ("sys.exit(75)", "saved\n"),
        ("session.stopped()", "saved\n"),
        ("session.finished()", ""),
        ("raise KeyboardInterrupt", ""),
    ],
)
def test_who_was_asked_and_ends_is_called_back(ending, printed, server) -> None:  # noqa: F811 -- the fixture
    """At the exit at the latest, once; not when it had finished, nor after an error."""
    code = HEAD + (
        "session.on_stop(lambda: print('saved'))\nwhile not session.stopping: time.sleep(0.001)\n"
    )
    child = server.start(code + ending)
    peer = server.accept()
    peer.tell(StopAsked("asked", 60.0))
    out, _ = child.communicate(timeout=DEADLINE_S)
    assert out == printed
    words = [one.word for one in peer.rest() if isinstance(one, Outcome)]
    assert words == [word for word in ("stopped", "finished") if word in ending]


def test_it_works_in_a_worker_of_a_zygote(home: Home, tmp_path) -> None:  # noqa: F811 -- the fixture
    """The zygote has imported it before there was a session; the worker speaks, and ends alike."""
    made = Server(tmp_path / "session.sock")
    home.env |= {ENV_SESSION: str(made.path), "PYTHONPATH": str(ROOT)}
    home.write("train.py", STEPS + "assert session.stopping is False\nraise ValueError('x')\n")

    async def main() -> None:
        cold, warm = await home.both(["workers.session"], home.command("train.py"))
        assert cold == warm
        assert cold[0].code == 1
        told = [made.accept().rest() for _ in (1, 2)]
        for heard in told:
            assert isinstance(heard[0], Hello)
            assert [one.step for one in heard if isinstance(one, Progressed)][-1] == 1000
            assert "warm.py" not in next(one for one in heard if isinstance(one, Errored)).traceback
        kinds = [{type(one) for one in heard} for heard in told]
        assert kinds[0] == kinds[1]

    try:
        drive(main)
    finally:
        made.close()


def test_the_older_interpreters_can_import_it(tmp_path) -> None:
    """Nothing is imported but the standard library, and no file of the supervisor."""
    code = (
        "import sys; from workers import session, placing\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "left = names - set(sys.stdlib_module_names) - {'__main__', 'workers', 'sitecustomize'}\n"
        "print(sorted(name for name in left if not name.startswith('_')))"
    )
    made = Server(tmp_path / "s")
    try:
        assert result(made.start(code, "-S", "-s")) == (0, "[]\n", "")
        assert sys.version_info >= (3, 11)
    finally:
        made.close()
