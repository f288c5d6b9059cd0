"""A runner that is missing, deaf, mad or gone is no trouble of the script's."""

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.session_server import DEADLINE_S, Server, result, server  # noqa: F401 -- a fixture
from workers.reports import Hello, Listens, Outcome, Progressed, StopAsked

# Says all that there is to say, and is 20 seconds busy at most.
TALKATIVE = """
import time
from workers import session
session.on_stop(lambda: None)
for step in range(1, 2001):
    with session.phase("x" * 100):
        session.progress(step, 2000, loss=0.5)
    assert session.stopping is False
session.error(ValueError("é" * 5000))
session.finished(2000)
print("done")
"""


def missing(server: Server) -> None:  # noqa: F811 -- the fixture
    """Have no socket at all."""
    server.socket.close()
    server.path.unlink()


def refused(server: Server) -> None:  # noqa: F811 -- the fixture
    """Have a socket where nobody listens any more."""
    server.socket.close()


def not_a_socket(server: Server) -> None:  # noqa: F811 -- the fixture
    """Have a file in its place."""
    missing(server)
    server.path.write_text("x")


def full(server: Server) -> None:  # noqa: F811 -- the fixture
    """Have so many lines waiting that there is no place for another."""
    server.socket.listen(0)
    while True:
        one = server._kept(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        one.settimeout(0)
        try:
            one.connect(str(server.path))
        except BlockingIOError:
            return


def deaf(server: Server) -> None:  # noqa: F811 -- the fixture
    """Have a runner that takes no line and reads nothing."""
    assert server.socket.fileno() >= 0


@pytest.mark.parametrize("trouble", [missing, refused, not_a_socket, full, deaf])
def test_a_script_does_not_notice(trouble: Callable[[Server], None], server) -> None:  # noqa: F811 -- the fixture
    """It ends as it would, soon, and writes nothing about it."""
    trouble(server)
    child = server.start(TALKATIVE)
    began = time.monotonic()
    assert result(child) == (0, "done\n", "")
    assert time.monotonic() - began < DEADLINE_S / 2


def test_a_runner_that_hangs_up_is_not_missed(server) -> None:  # noqa: F811 -- the fixture
    """In the middle of it all, with what it sent unread."""
    child = server.start(TALKATIVE)
    peer = server.accept()
    assert isinstance(peer.hear(), Hello)
    peer.line.close()
    assert result(child) == (0, "done\n", "")


def test_what_no_runner_says_is_not_heard(server) -> None:  # noqa: F811 -- the fixture
    """Packets of any bytes and of any type are passed over."""
    child = server.start(
        "from workers import session\n"
        "while not session.stopping: session.progress(1)\n"
        "print('stopped')\n",
    )
    peer = server.accept()
    for packet in (b"\0", b"{}", b"[" * 60000, b'{"is":"StopAsked"}', b'{"is":"Hello","pid":1}'):
        peer.tell(packet)
    peer.tell(StopAsked("asked", 60.0))
    assert result(child) == (0, "stopped\n", "")


def test_a_runner_that_was_busy_gets_it_all_later(server) -> None:  # noqa: F811 -- the fixture
    """A line that had to wait for its place says hello first, then what it kept, in order."""
    full(server)
    child = server.start(
        "import sys\n"
        "from workers import session\n"
        "session.progress(1)\n"
        "with session.phase('p'): pass\n"
        "sys.stdin.read()\n",
    )
    lines = []
    while not any(isinstance(one, Progressed) for one in lines):
        peer = server.accept()
        peer.line.settimeout(0.05)  # those who filled the queue say nothing
        try:
            lines = [peer.hear() for _ in range(4)]
        except TimeoutError:
            continue
    assert isinstance(lines[0], Hello)
    assert [type(one).__name__ for one in lines if not isinstance(one, Progressed)][1:] == [
        "PhaseBegan",
        "PhaseEnded",
    ]
    child.kill()


def test_a_line_that_is_full_holds_nobody_up(server) -> None:  # noqa: F811 -- the fixture
    """Nothing is read for a while: steps go on, and the last word arrives when there is room."""
    child = server.start(TALKATIVE + "import sys; sys.stdout.flush(); sys.stdin.read()")
    peer = server.accept()
    assert child.stdout is not None
    assert child.stdout.readline() == "done\n"
    assert isinstance(peer.wait_for(Outcome), Outcome)
    child.kill()


def test_descriptors_that_ran_out_are_no_trouble(server) -> None:  # noqa: F811 -- the fixture
    """Where no socket can be made there is no session, and no error."""
    code = "import resource\nimport workers.session\n"
    code += "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))\n"
    assert result(server.start(code + TALKATIVE)) == (0, "done\n", "")


@pytest.mark.parametrize("stop", ["message", "signal"])
def test_a_script_that_listens_is_stopped_either_way(stop: str, server) -> None:  # noqa: F811 -- the fixture
    """It sees it at its next look, and its exit code is its own."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"  # coverage has a function for it
        "from workers import session\n"
        "while not session.stopping: session.progress(1); time.sleep(0.001)\n"
        "session.stopped(4)\n"
        "sys.exit(75)\n"
    )
    child = server.start(code)
    peer = server.accept()
    peer.wait_for(Listens)
    if stop == "message":
        peer.tell(StopAsked("asked", 60.0))
    else:
        child.send_signal(signal.SIGTERM)
    assert result(child) == (75, "", "")
    assert Outcome("stopped", 4) in peer.rest()


def test_without_a_runner_that_could_ask_the_signal_ends_it(server, eventually) -> None:  # noqa: F811 -- the fixture
    """A script that does not look, or whose runner is gone, dies of SIGTERM as ever."""
    ready = "print('ready', flush=True); sys.stdin.read()\n"
    head = "import sys\nfrom workers import session\nsession.progress(1)\n"
    blind = server.start(head + ready)
    seeing = server.start(head + "session.stopping\n" + ready)
    for _ in (1, 2):
        server.accept().line.close()
    for child in (blind, seeing):
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        threads = Path(f"/proc/{child.pid}/task")
        eventually(lambda: len(list(threads.iterdir())) == 1)  # noqa: B023 -- called at once
        child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE_S) == -signal.SIGTERM
