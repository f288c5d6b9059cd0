"""What the daemon says to systemd, and what systemd hands over."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from supervisor.daemon.notify import Notifier, Watchdog, listen_fds


@pytest.fixture(params=["file", "abstract"])
def listener(request, tmp_path):
    """Give a service manager's socket, and the address as it says it."""
    address = str(tmp_path / "notify") if request.param == "file" else f"@test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        sock.settimeout(10)
        yield sock, address


def to(address):
    """Return a notifier whose manager listens there."""
    return Notifier({} if address is None else {"NOTIFY_SOCKET": address})


def every(period_s):
    """Return an environment that asks for a sign of life in each period."""
    return {"WATCHDOG_USEC": str(round(period_s * 1_000_000))}


def heard(sock):
    """Return all that was said until now, oldest first."""
    sock.settimeout(0)
    found = []
    while True:
        try:
            found.append(sock.recv(4096).decode())
        except BlockingIOError:
            return found


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (lambda it: it.ready(), "READY=1"),
        (lambda it: it.ready("12 jobs run"), "READY=1\nSTATUS=12 jobs run"),
        (lambda it: it.status("idle"), "STATUS=idle"),
        (lambda it: it.stopping("saving 3 jobs"), "STOPPING=1\nSTATUS=saving 3 jobs"),
        (lambda it: it.extend_timeout(1.5), "EXTEND_TIMEOUT_USEC=1500000"),
        (lambda it: it.extend_timeout(0), "EXTEND_TIMEOUT_USEC=1"),
        (lambda it: it.main_pid(42), "MAINPID=42"),
        (lambda it: it.alive(), "WATCHDOG=1"),
    ],
)
def test_each_message_is_as_sd_notify_has_it(say, expected, listener):
    """One datagram each, over a socket in the file system or in the abstract namespace."""
    sock, address = listener
    assert say(to(address)) is True
    assert sock.recv(4096).decode() == expected


def test_a_status_stays_one_line(listener):
    """Words with line breaks cannot say anything else, and long ones are cut."""
    sock, address = listener
    notifier = to(address)
    notifier.status("a\nWATCHDOG=trigger\r\nb\udc80" + "x" * 10_000)
    (said,) = heard(sock)
    assert said.startswith("STATUS=a WATCHDOG=trigger b?")
    assert len(said) < 600


@pytest.mark.parametrize(
    "address", [None, "", "@", "vsock:2:1", "relative", "/nowhere/notify", "/" + "x" * 200, "/dev"]
)
def test_nobody_who_listens_is_no_error(address):
    """Without a manager, or with one that cannot be reached, nothing is sent and nothing raised."""
    notifier = to(address)
    told = [notifier.ready(), notifier.status("a"), notifier.stopping(), notifier.alive()]
    assert told == [False] * 4


def test_a_manager_that_does_not_read_does_not_stop_us(listener):
    """A full queue: signs of life are dropped at once."""
    sock, address = listener
    notifier = to(address)
    sent = 0
    while notifier.alive():
        sent += 1
    assert sent == len(heard(sock)) > 0
    assert notifier.alive() is True


def test_children_cannot_speak_for_us():
    """The names are taken out of the environment, each by its own reader."""
    environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "LISTEN_FDS": "1"}
    environ |= {"LISTEN_PID": "1", "LISTEN_FDNAMES": "a", "INVOCATION_ID": "kept"}
    Watchdog(Notifier(environ), environ)
    assert listen_fds(environ) == []
    assert environ == {"INVOCATION_ID": "kept"}


def test_the_environment_of_this_process_is_the_default(monkeypatch, listener):
    """As the daemon calls it."""
    sock, address = listener
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    notifier = Notifier()
    assert Watchdog(notifier).is_wanted
    assert notifier.ready()
    assert sock.recv(100) == b"READY=1"
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(os.environ)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "1000000"}, True),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "-5"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({"WATCHDOG_USEC": "9" * 5000}, False),
        ({"WATCHDOG_USEC": str(2**64 - 1)}, True),
    ],
)
def test_the_watchdog_is_wanted_by_who_asks_this_process(environ, wanted):
    """A period that is meant for another process, or is none, starts nothing."""
    assert Watchdog(to(None), dict(environ)).is_wanted is wanted


def test_the_watchdog_is_fed_three_times_a_period(listener):
    """At once, and then at each third; no more after the stop."""
    sock, address = listener
    sock.settimeout(0)

    async def fed():
        loop = asyncio.get_running_loop()
        watchdog = Watchdog(to(address), every(0.15))
        began = loop.time()
        watchdog.start()
        for _ in range(4):
            assert await asyncio.wait_for(loop.sock_recv(sock, 100), 10) == b"WATCHDOG=1"
        took_s = loop.time() - began
        watchdog.stop()
        watchdog.stop()
        ended = loop.create_future()
        loop.call_later(0.15, ended.set_result, None)
        await ended
        return took_s

    assert asyncio.run(fed()) >= 0.14
    assert heard(sock) == []


def test_a_loop_that_stands_feeds_nobody(listener):
    """While the event loop is blocked, whatever else this process does, no sign of life is sent."""
    sock, address = listener

    async def stand():
        watchdog = Watchdog(to(address), every(0.03))
        watchdog.start()
        threading.Event().wait(0.3)  # the loop stands; threads would go on
        return heard(sock)

    assert asyncio.run(stand()) == ["WATCHDOG=1"]


def test_a_watchdog_that_nobody_wants_does_nothing(listener):
    """Without a period `start` is silence."""
    sock, address = listener

    async def start():
        Watchdog(to(address), {}).start()

    asyncio.run(start())
    assert heard(sock) == []


TAKE = """
import json, os, sys
from supervisor.daemon.notify import listen_fds
for number, fd in enumerate(map(int, sys.argv[2:]), start=3):
    os.dup2(fd, number)
environ = json.loads(sys.argv[1])
environ = {name: value.replace("OWN", str(os.getpid())) for name, value in environ.items()}
found = listen_fds(environ)
print(json.dumps([
    [[one.name, one.sock.fileno(), one.sock.getsockname(), os.get_inheritable(one.sock.fileno())]
     for one in found],
    environ,
]))
"""


def taken(environ, *fds):
    """What a process of its own finds that was handed these descriptors, from 3 on."""
    words = [sys.executable, "-c", TAKE, json.dumps(environ), *map(str, fds)]
    done = subprocess.run(words, pass_fds=fds, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def listening(tmp_path):
    """Give two listening sockets and a plain file, with numbers too high to be in the way."""
    socks = []
    for name in ("a", "b"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / name))
            sock.listen()
            socks.append(sock.dup())
    paths = [sock.getsockname() for sock in socks]
    with (tmp_path / "file").open("w") as file:
        fds = [os.dup(one.fileno()) for one in (*socks, file)]
        high = [os.dup2(fd, 200 + number) for number, fd in enumerate(fds)]
        for fd in fds:
            os.close(fd)
    yield paths, high
    for fd in high:
        os.close(fd)
    for sock in socks:
        sock.close()


def test_sockets_come_with_names_and_do_not_go_on(listening):
    """Each is returned in order, closed on exec; the environment does not tell children of them."""
    paths, fds = listening
    environ = {"LISTEN_PID": "OWN", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "api:metrics", "A": "b"}
    found, left = taken(environ, *fds[:2])
    assert found == [["api", 3, paths[0], False], ["metrics", 4, paths[1], False]]
    assert left == {"A": "b"}


def test_a_socket_without_a_name_is_called_unknown(listening):
    """As sd_listen_fds_with_names(3) has it."""
    paths, fds = listening
    found, _ = taken({"LISTEN_PID": "OWN", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "api"}, *fds[:2])
    assert [one[0] for one in found] == ["api", "unknown"]
    assert [one[2] for one in found] == paths


def test_what_is_no_socket_is_left_alone(listening):
    """A plain file among them, and a number that is not open, are passed over."""
    paths, fds = listening
    found, _ = taken({"LISTEN_PID": "OWN", "LISTEN_FDS": "60"}, fds[2], fds[0])
    assert [one[2] for one in found] == [paths[0]]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "2"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "2"},
        {"LISTEN_PID": "OWN", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "OWN", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "OWN", "LISTEN_FDS": "many"},
        {"LISTEN_PID": "OWN"},
    ],
)
def test_sockets_meant_for_nobody_or_another_are_not_taken(environ, listening):
    """Without socket activation of this very process there are none."""
    _, fds = listening
    assert taken(environ, *fds[:2])[0] == []


def test_the_module_needs_the_standard_library_alone():
    """It is imported by what must start fast."""
    code = "import sys, supervisor.daemon.notify; print(*sys.modules)"
    root = Path(__file__).parents[2]
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "supervisor.daemon.notify" in loaded
    assert not {"structlog", "pydantic", "fastapi", "click", "psutil"} & set(loaded)
