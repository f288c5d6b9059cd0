"""The line where the system itself gives trouble, with the system's part played here."""

import errno
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.process.session_server import Server, server  # noqa: F401 -- a fixture, by its name
from workers import connection, cuda, packets
from workers.connection import Ears, Line
from workers.reports import Hello, Listens, Outcome, Progressed


class Told:
    """What a line calls, and whether it was lost."""

    def __init__(self) -> None:
        self.lost = 0
        self.ears = Ears(lambda: None, lambda: None, self._lose)

    def _lose(self) -> None:
        self.lost += 1


def open_descriptors() -> int:
    """Return how many there are."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- nothing else is opened


@pytest.mark.parametrize("failing", [1, 2])
def test_sockets_that_cannot_be_made_leave_none_open(failing, server, monkeypatch) -> None:  # noqa: F811 -- the fixture
    """Whichever of them it is, there is no line and no error."""
    before, real = open_descriptors(), socket.socket

    def refuse(*args: int) -> socket.socket:
        if failing == 1 or socket.SOCK_SEQPACKET in args:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*args)  # what a pair is made of

    monkeypatch.setattr(socket, "socketpair" if failing == 1 else "socket", refuse)
    assert Line.open(str(server.path), Told().ears) is None
    assert open_descriptors() <= before


def test_a_thread_that_cannot_be_started_is_no_line(server, monkeypatch) -> None:  # noqa: F811 -- the fixture
    """A host out of threads does not end the training."""
    before = open_descriptors()

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(connection.threading.Thread, "start", refuse)
    assert Line.open(str(server.path), Told().ears) is None
    assert open_descriptors() <= before


@pytest.mark.parametrize("later", [BlockingIOError(), ConnectionRefusedError()])
def test_a_runner_that_stays_busy_or_goes_is_given_up(
    later,
    server,  # noqa: F811 -- the fixture
    monkeypatch,
    eventually,
) -> None:
    """After so many tries, or at once when it refuses; what was kept is dropped."""
    results = [BlockingIOError()]

    def busy(*_: object) -> None:
        raise results.pop() if results else later

    monkeypatch.setattr(connection, "connect", busy)
    monkeypatch.setattr(connection, "RETRIES", 2)
    monkeypatch.setattr(connection, "RETRY_S", 0.001)
    told = Told()
    line = Line.open(str(server.path), told.ears)
    assert line is not None
    eventually(lambda: told.lost)
    line.send(Outcome("stopped"), 10)
    line.close(10)
    assert not line.alive


class Stubborn:
    """A socket whose next sends fail as it is told."""

    def __init__(self, real: socket.socket, *errors: int) -> None:
        self._real = real
        self._errors = list(errors)

    def send(self, packet: bytes, flags: int) -> int:
        """Fail, or do it."""
        if self._errors:
            raise OSError(self._errors.pop(0), "told to")
        return self._real.send(packet, flags)

    def __getattr__(self, name: str):
        """Be the socket in all else."""
        return getattr(self._real, name)


def test_a_kernel_out_of_memory_only_delays_a_message(server, monkeypatch) -> None:  # noqa: F811 -- the fixture
    """And a message that is too long for it is the only one that is lost."""
    line = Line.open(str(server.path), Told().ears)
    assert line is not None
    peer = server.accept()
    monkeypatch.setattr(line, "_socket", Stubborn(line._socket, errno.EMSGSIZE, errno.ENOBUFS))
    line.send(Listens())
    line.send(Outcome("stopped", 1), 10)
    assert [peer.hear(), peer.hear()] == [Hello(os.getpid()), Outcome("stopped", 1)]
    line.close(10)
    assert peer.rest() == []


def test_what_a_deaf_runner_is_told_does_not_pile_up(server, monkeypatch) -> None:  # noqa: F811 -- the fixture
    """So much is kept; of the rest only last words."""
    monkeypatch.setattr(connection, "PACKETS_KEPT", 3)
    line = Line.open(str(server.path), Told().ears)
    assert line is not None
    peer = server.accept()
    monkeypatch.setattr(line, "_connected", False)
    monkeypatch.setattr(line, "_connect", lambda: None)
    for _ in range(10):
        line.send(Listens())
    line.send(Outcome("stopped"), 0.001)
    line._connected = True
    line.close(10)
    assert peer.rest() == [Hello(os.getpid()), Listens(), Listens(), Listens(), Outcome("stopped")]


def test_a_message_that_cannot_be_written_is_none() -> None:
    """Values that JSON does not have; progress goes without its metrics."""
    assert packets.packet_of(Outcome("stopped", object())) is None  # type: ignore[arg-type] # on purpose
    long = Progressed(1, 2, {"x" * 70_000: 1.0})
    assert b'"step":1' in (packets.packet_of(long) or b"")
    assert packets.number_of(1 << 64) is None


@pytest.mark.parametrize("cudas", [None, SimpleNamespace(), SimpleNamespace(is_initialized=dict)])
def test_there_are_no_gpu_figures_where_there_is_no_gpu(cudas, monkeypatch) -> None:
    """Nor where torch is half imported or broken; CUDA is not started for them."""
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cudas))
    assert cuda.reserved_bytes() is None
    assert cuda.memory_figures() == {}
    assert cuda.memory_summary() == ""
    assert Path(cuda.__file__ or "").name == "cuda.py"


def test_a_tensor_with_a_gradient_is_read_without_a_warning() -> None:
    """`loss=loss` is what everybody writes; torch would warn into the log of each run."""
    torch = pytest.importorskip("torch")
    loss = (torch.ones(1, requires_grad=True) * 2).sum()

    said = packets.progressed(3, None, {"loss": loss, "none": object()})

    assert said == Progressed(3, None, {"loss": 2.0}, said.gpu_bytes)
