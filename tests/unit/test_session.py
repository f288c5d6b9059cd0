"""What a script can say and hear: all of it, and none of it when there is no runner."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.process.session_server import Peer, Server, server  # noqa: F401 -- a fixture, by its name
from workers import presence, session
from workers.protocol import ENV_CHECKPOINTS, ENV_RESUME_PATH, ENV_SCRATCH, ENV_SESSION
from workers.reports import (
    REPORT_LIMIT_BYTES,
    Errored,
    Hello,
    Listens,
    Outcome,
    PhaseBegan,
    PhaseEnded,
    Progressed,
    Published,
    StopAsked,
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Let each test be a process of its own, as far as sessions go."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(presence, "_hooked", False)
    monkeypatch.setattr(presence.atexit, "register", lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    session._in_copy()
    session._here._copied = False
    yield
    session._here.leave()
    session._in_copy()
    session._here._copied = False
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def peer(server: Server, monkeypatch) -> Peer:  # noqa: F811 -- the fixture
    """Give the line of this process, which has said hello."""
    monkeypatch.setenv(ENV_SESSION, str(server.path))
    with session.phase("first"):
        peer = server.accept()
    assert isinstance(peer.hear(), Hello)
    assert isinstance(peer.hear(), PhaseBegan)
    assert isinstance(peer.hear(), PhaseEnded)
    return peer


def test_without_a_runner_nothing_happens(tmp_path, monkeypatch) -> None:
    """Every call does nothing and returns what says so; no thread, no file."""
    monkeypatch.chdir(tmp_path)
    called = []
    session.progress(1, 2, loss=0.5)
    with session.phase("compile", 5):
        assert session.stopping is False
    session.error(ValueError("no"))
    session.finished()
    assert session.on_stop(called.append) == called.append
    assert not session.supervised()
    assert session.publish(lambda _: called.append(1), 1) is None
    assert session.publish(lambda _: called.append(1), 1, tier="memory") is None
    assert (session.resume_path(), session.resume_step(), session.scratch()) == (None, None, None)
    assert (called, list(tmp_path.iterdir()), session._latest) == ([], [], None)
    assert session._here.line is None
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_the_runner_says_in_the_environment(tmp_path, monkeypatch) -> None:
    """Checkpoint, step and folder are given as they are, nonsense as nothing."""
    monkeypatch.setenv(ENV_RESUME_PATH, "/a/step-3")
    monkeypatch.setenv("SUPERVISE_RESUME_STEP", "3")
    monkeypatch.setenv(ENV_SCRATCH, str(tmp_path))
    monkeypatch.setenv(ENV_SESSION, "/nowhere/at/all.sock")
    assert session.supervised()
    assert (session.resume_path(), session.resume_step()) == ("/a/step-3", 3)
    assert session.scratch() == tmp_path
    monkeypatch.setenv("SUPERVISE_RESUME_STEP", "three")
    assert session.resume_step() is None


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4", "SLURM_PROCID": "9"}, (2, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
        ({"RANK": "x", "PMI_RANK": "3"}, (3, 1)),
    ],
)
def test_a_line_begins_with_who_it_is(env, told, server, monkeypatch) -> None:  # noqa: F811 -- the fixture
    """Its pid, and its rank as whoever started the ranks says it."""
    for name, value in {**env, ENV_SESSION: str(server.path)}.items():
        monkeypatch.setenv(name, value)
    session.progress(1)
    assert server.accept().hear() == Hello(os.getpid(), *told)


def test_the_first_progress_is_sent_at_once_then_the_latest(peer) -> None:
    """Half a second lies between two, and what came between them is left out."""
    session.progress(1, 10, loss=0.5)
    assert peer.hear() == Progressed(1, 10, {"loss": 0.5})
    began = time.monotonic()
    for step in range(2, 1000):
        session.progress(step, 1000)
    assert peer.hear() == Progressed(999, 1000)
    assert 0.3 < time.monotonic() - began < 5


def test_a_step_that_stays_is_not_sent_again(peer) -> None:
    """Only another step is progress, whatever the metrics say."""
    session.progress(1, loss=0.5)
    assert peer.hear().step == 1
    session.progress(1, loss=0.4)
    session._here.line.close(5)
    assert peer.rest() == []


class Odd:
    """Fails at every look."""

    def __float__(self):
        """Fail."""
        raise RuntimeError("no")

    __int__ = __index__ = __repr__ = __str__ = __float__


@pytest.mark.parametrize("step", ["x", None, float("nan"), Odd(), 1 << 70, [1]])
def test_nonsense_is_left_out_and_raises_nothing(step, peer) -> None:
    """A step that is no number is not sent, and what follows it is."""
    session.progress(step)
    session.progress(step, Odd(), loss=Odd())
    session.progress(7, Odd(), loss=Odd(), lr=SimpleNamespace(), epoch=True, big=1 << 2000)
    assert peer.hear() == Progressed(7, None, {"epoch": 1.0})


def test_metrics_become_floats(peer) -> None:
    """Also what only knows how to become one, and figures that JSON does not have."""

    class Tensor:
        def __float__(self):
            return 0.25

    session.progress(3.0, "10", loss=Tensor(), worst=float("inf"))
    assert peer.hear() == Progressed(3, 10, {"loss": 0.25, "worst": float("inf")})
    session.progress(4, **{f"m{number}": number for number in range(5000)})
    assert len(peer.hear().metrics) == 64


def test_the_first_look_says_that_it_listens(peer, eventually) -> None:
    """Once; from then on a message of the runner makes it true."""
    assert session.stopping is False
    assert session.stopping is False
    assert peer.hear() == Listens()
    peer.tell(b"\xff garbage")
    peer.tell(Hello(1))
    peer.tell(StopAsked("you were asked", 60.0))
    eventually(lambda: session.stopping)
    session.finished(8)
    assert peer.hear() == Outcome("finished", 8)


def test_being_asked_before_the_first_look_is_not_forgotten(peer, eventually) -> None:
    """It is there at the first look, which says that it listens all the same."""
    peer.tell(StopAsked("early", 60.0))
    eventually(lambda: session._here._asked)
    assert session.stopping is True
    assert peer.hear() == Listens()


def test_another_name_is_no_attribute() -> None:
    """The module answers for `stopping` alone."""
    with pytest.raises(AttributeError, match="has no attribute 'stoping'"):
        _ = session.stoping


def test_a_term_signal_asks_a_script_that_listens(peer, eventually) -> None:
    """The process lives, and sees it at its next look."""
    assert session.stopping is False
    os.kill(os.getpid(), signal.SIGTERM)
    eventually(lambda: session.stopping)
    assert peer.hear() == Listens()


def test_a_scripts_own_function_for_the_signal_stays(peer) -> None:
    """Ours takes the place of none."""

    def own(*_: object) -> None:
        """Do nothing."""

    signal.signal(signal.SIGTERM, own)
    assert session.stopping is False
    assert signal.getsignal(signal.SIGTERM) is own


def test_stopped_calls_back_in_order_and_once(peer, capfd) -> None:
    """What one raises is in the log and hinders no other."""
    called = []

    def second() -> None:
        called.append(2)
        raise ValueError("cannot save")

    session.on_stop(lambda: called.append(1))
    session.on_stop(second)
    session.on_stop(lambda: called.append(3))
    session.progress(41)
    session.stopped()
    session.stopped(50)
    session.finished(51)
    session._here.line.close(5)
    assert called == [1, 2, 3]
    outcomes = [one for one in peer.rest() if isinstance(one, Outcome)]
    assert outcomes == [Outcome("stopped", 41)]
    assert "ValueError: cannot save" in capfd.readouterr().err


def test_a_phase_is_told_when_it_begins_and_ends(peer) -> None:
    """Also one within another, and one that raises; a limit that is none is left out."""
    with pytest.raises(KeyError), session.phase("compile", 90), session.phase("x" * 500, "soon"):
        raise KeyError("x")
    session._here.line.close(5)
    assert peer.rest() == [
        PhaseBegan(2, "compile", 90.0),
        PhaseBegan(3, "x" * 100, None),
        PhaseEnded(3),
        PhaseEnded(2),
    ]


def test_an_error_is_told_with_what_is_known_of_it(peer, monkeypatch) -> None:
    """Kind, words, step, traceback, details, and the GPU's memory where torch uses one."""
    stats = {"reserved_bytes.all.peak": 9, "allocated_bytes.all.current": 5, "num_ooms": 1}
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_stats=lambda device: stats if device == 1 else {},
        memory_summary=lambda **_: "a table",
        memory_reserved=lambda device: 100 + device,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    session.progress(12)
    assert peer.hear().gpu_bytes == 201
    session.error(
        RuntimeError("CUDA out of memory"),
        batch=7,
        names=["a", {"b": None}],
        odd=Odd(),
        path=Path("x"),
    )
    session.error(ValueError("a later one"))
    told = peer.wait_for(Errored)
    assert (told.kind, told.type_name, told.step) == ("cuda_oom", "RuntimeError", 12)
    assert told.message == "CUDA out of memory"
    assert told.details == {
        "batch": 7,
        "names": ["a", {"b": None}],
        "path": "PosixPath('x')",
        "odd": "of type Odd, which cannot be shown",
        "cuda_memory": {
            "cuda:1": {"peak_reserved_bytes": 9, "allocated_bytes": 5, "ooms": 1},
        },
        "cuda_summary": "a table",
    }
    session._here.line.close(5)
    assert peer.rest() == []


def test_an_error_that_is_too_long_is_cut_to_fit(peer) -> None:
    """What matters most of it is in one packet, in whatever alphabet."""
    session.error(ValueError("\U0001f600" * 100_000), **{f"d{one}": "é" * 9000 for one in range(9)})
    told = peer.wait_for(Errored)
    assert told.kind == "error"
    assert told.message.startswith("\U0001f600")
    assert told.details == {}
    assert len(told.traceback) > 500
    assert REPORT_LIMIT_BYTES == 65536


def test_a_publication_is_told_and_no_hang(peer, tmp_path, monkeypatch) -> None:
    """The runner hears of a phase while it lasts, and where the checkpoint lies."""
    monkeypatch.setenv(ENV_CHECKPOINTS, str(tmp_path / "ckpt"))
    path = session.publish(lambda folder: (folder / "x").write_bytes(b"abc"), 5, {"loss": 1})
    assert path == tmp_path / "ckpt" / "step-000000005"
    assert peer.hear() == PhaseBegan(2, "publish", None)
    assert peer.hear() == PhaseEnded(2)
    assert peer.hear() == Published(str(path), 5, "disk", 3)


def test_a_name_that_placing_does_not_know_is_refused() -> None:
    """A slip of the pen is the script's own mistake, supervised or not."""
    with pytest.raises(TypeError, match="kep"):
        session.publish("x", 5, kep=3)


def test_what_nobody_catches_is_told_and_still_printed(peer, capsys) -> None:
    """The hook that was there is called; Ctrl-C is no error."""
    raised = ValueError("nobody")
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    sys.excepthook(ValueError, raised, None)
    assert peer.wait_for(Errored).message == "nobody"
    assert "ValueError: nobody" in capsys.readouterr().err


def test_the_path_of_the_socket_may_be_long(tmp_path, monkeypatch) -> None:
    """Longer than what fits into an address."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    monkeypatch.chdir(folder)
    made = Server(Path("s"))
    try:
        monkeypatch.setenv(ENV_SESSION, str(folder / "s"))
        session.progress(1)
        peer = made.accept()
        assert [peer.hear(), peer.hear()] == [Hello(os.getpid()), Progressed(1)]
    finally:
        made.close()
