"""Silence is looked into by an injected clock: real processes, but no second passes."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor.core.activity import GpuActivity
from supervisor.core.evidence import DeadlineName
from supervisor.core.hang import LOOK_AGAIN_S, window_s
from supervisor.host.pressure import Pressure
from supervisor.host.processes import stat
from supervisor.runner import suspicion
from supervisor.runner.suspicion import Suspicion
from tests.unit.runner_fakes import FakeLoop

HEARTBEAT = DeadlineName.HEARTBEAT
TIMEOUT_S = 8.0
WINDOW_S = window_s(TIMEOUT_S)
SPINS = "print('on', flush=True)\nwhile True: pass"
SLEEPS = "import signal; print('on', flush=True); signal.pause()"


class Seen:
    """One process as a whole attempt."""

    def __init__(self, pid: int) -> None:
        self.main_pid = pid
        self.is_frozen = False
        self.gpu: tuple[GpuActivity, ...] = ()

    def pids(self) -> frozenset[int]:
        """It alone."""
        return frozenset({self.main_pid})

    def frozen(self) -> bool:
        """As the test says."""
        return self.is_frozen

    def gpus(self) -> tuple[GpuActivity, ...]:
        """As the test says."""
        return self.gpu


@pytest.fixture(autouse=True)
def _calm_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on this host, it is not starved."""
    monkeypatch.setattr(suspicion, "pressure", Pressure)


@pytest.fixture
def process() -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Start Python code, which says when it is there; it is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-ISc", code]
        one = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        started.append(one)
        assert one.stdout is not None
        one.stdout.readline()
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


@pytest.fixture
def silent(process: Any) -> Callable[..., tuple[FakeLoop, Seen, Suspicion]]:
    """An attempt that runs this code and gives no sign."""

    def make(code: str = SLEEPS, **fields: Any) -> tuple[FakeLoop, Seen, Suspicion]:
        loop = FakeLoop(**fields)
        seen = Seen(process(code).pid)
        loop.expects_a_sign_by(loop.now + TIMEOUT_S)
        return loop, seen, Suspicion(loop, seen)

    return make


def watch(loop: FakeLoop, one: Suspicion, seconds: float) -> None:
    """Let so much time pass, looked at in the rhythm of the observer."""
    for _ in range(round(seconds / 0.5)):
        loop.now += 0.5
        one.look()


def test_a_lively_worker_costs_no_sample(silent: Any) -> None:
    """Until half of its deadline nobody looks at it; a sign clears what was seen before."""
    loop, _, one = silent()
    watch(loop, one, TIMEOUT_S / 2 - 0.5)
    assert not one._taken
    watch(loop, one, 1.0)
    assert one._taken
    loop.expects_a_sign_by(loop.now + TIMEOUT_S)
    one.look()
    assert not one._taken


def test_who_waits_for_no_sign_is_not_looked_at(silent: Any) -> None:
    """While it is stopping, or when the timeout is off."""
    loop, _, one = silent()
    loop.state = FakeLoop().state
    watch(loop, one, TIMEOUT_S)
    assert not one._taken


def test_samples_are_as_many_as_a_window_needs(silent: Any) -> None:
    """Four to a window, however often somebody looks."""
    loop, _, one = silent()
    watch(loop, one, TIMEOUT_S)
    first, last = one._taken[0].at, one._taken[-1].at
    assert len(one._taken) == (last - first) / (WINDOW_S / 4) + 1


def test_silent_and_idle_is_a_hang_at_the_deadline(silent: Any) -> None:
    """Judged by the injected clock alone."""
    loop, _, one = silent()
    watch(loop, one, TIMEOUT_S)
    verdict = one.judge(HEARTBEAT)
    assert verdict.kill
    assert "idle" in verdict.reason
    assert "for 8 s" in verdict.reason


def test_a_runner_that_was_held_up_takes_a_window_first(silent: Any) -> None:
    """It has no sample of the time before: what it sees now is no proof."""
    loop, _, one = silent()
    loop.now += 100.0
    verdict = one.judge(HEARTBEAT)
    assert (verdict.kill, verdict.extra_s, verdict.reason) == (False, WINDOW_S, "")
    loop.expects_a_sign_by(loop.now + WINDOW_S)
    watch(loop, one, WINDOW_S)
    assert one.judge(HEARTBEAT).kill


def test_a_short_window_is_made_whole(silent: Any) -> None:
    """Held up for most of the window: the rest of it is still looked at."""
    loop, _, one = silent()
    loop.now += TIMEOUT_S - 0.5
    watch(loop, one, 0.5)
    loop.now += 0.5
    verdict = one.judge(HEARTBEAT)
    assert not verdict.kill
    assert verdict.extra_s == pytest.approx(WINDOW_S - 0.5)


def test_one_that_was_stopped_gets_its_whole_timeout_anew(silent: Any, eventually: Any) -> None:
    """SIGSTOP is nobody's hang; after SIGCONT the silence counts from the last look at it."""
    loop, seen, one = silent()
    os.kill(seen.main_pid, signal.SIGSTOP)
    eventually(lambda: stat(seen.main_pid).state == "T")
    watch(loop, one, TIMEOUT_S)
    for _ in range(10):  # for as long as it takes
        verdict = one.judge(HEARTBEAT)
        assert (verdict.kill, verdict.extra_s, verdict.excused) == (False, LOOK_AGAIN_S, True)
        assert str(seen.main_pid) in verdict.reason
        loop.expects_a_sign_by(loop.now + LOOK_AGAIN_S)
        watch(loop, one, LOOK_AGAIN_S)
    went_on_at = loop.now
    os.kill(seen.main_pid, signal.SIGCONT)
    eventually(lambda: stat(seen.main_pid).state != "T")
    while not (verdict := one.judge(HEARTBEAT)).kill:
        loop.expects_a_sign_by(loop.now + verdict.extra_s)
        watch(loop, one, verdict.extra_s)
        assert loop.now < went_on_at + 3 * TIMEOUT_S
    assert loop.now >= went_on_at + TIMEOUT_S - WINDOW_S


def test_a_stop_that_is_over_at_the_deadline_does_not_count_either(
    silent: Any, eventually: Any
) -> None:
    """Stopped and let go on again before anybody asked: the whole timeout, from then on."""
    loop, seen, one = silent()
    watch(loop, one, TIMEOUT_S / 2)
    os.kill(seen.main_pid, signal.SIGSTOP)
    eventually(lambda: stat(seen.main_pid).state == "T")
    watch(loop, one, 1.0)
    stopped_at = one._taken[-1].at
    os.kill(seen.main_pid, signal.SIGCONT)
    eventually(lambda: stat(seen.main_pid).state != "T")
    watch(loop, one, TIMEOUT_S / 2 - 1.0)
    verdict = one.judge(HEARTBEAT)
    assert (verdict.kill, verdict.reason) == (False, "")
    assert verdict.extra_s == stopped_at + TIMEOUT_S - loop.now


TRACED = """
import ctypes, os, signal
ctypes.CDLL(None).ptrace(0, 0, 0, 0)  # PTRACE_TRACEME: by its parent
print("on", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
signal.pause()
"""


def test_one_in_a_debugger_has_its_whole_timeout_when_it_goes_on(
    silent: Any, eventually: Any
) -> None:
    """From the last look at it there; between two deadlines it is not asked about."""
    loop, seen, one = silent(TRACED)
    eventually(lambda: stat(seen.main_pid).state == "t")
    watch(loop, one, TIMEOUT_S)
    try:
        verdict = one.judge(HEARTBEAT)
        halted_at = loop.now
        os.waitpid(seen.main_pid, os.WUNTRACED)
        assert ctypes.CDLL(None).ptrace(17, seen.main_pid, 0, signal.SIGCONT) == 0  # DETACH
    finally:
        os.kill(seen.main_pid, signal.SIGCONT)
    assert verdict.excused
    assert "debugger" in verdict.reason
    eventually(lambda: stat(seen.main_pid).state == "S")
    loop.expects_a_sign_by(loop.now + WINDOW_S)
    loop.now += WINDOW_S  # by then no sample shows it halted
    one._take()
    loop.now += WINDOW_S
    assert one.judge(HEARTBEAT).extra_s == halted_at + TIMEOUT_S - loop.now


def test_a_frozen_group_is_told_apart(silent: Any) -> None:
    """Its processes look asleep; the group says why."""
    loop, seen, one = silent()
    seen.is_frozen = True
    watch(loop, one, TIMEOUT_S)
    verdict = one.judge(HEARTBEAT)
    assert verdict.excused
    assert "frozen" in verdict.reason


def spends(pid: int, eventually: Any) -> None:
    """Wait until a process has used CPU time that a sample shows."""
    before = stat(pid).cpu_ticks
    eventually(lambda: stat(pid).cpu_ticks > before + 50, 30)


@pytest.mark.parametrize(
    ("signs", "kills"),
    [("output checkpoint gpu cpu", False), ("output checkpoint gpu", True)],
)
def test_busy_counts_only_where_liveness_names_the_cpu(
    silent: Any, eventually: Any, signs: str, *, kills: bool
) -> None:
    """A worker that spins is given time, unless job.yaml says that this is no sign of life."""
    loop, seen, one = silent(SPINS, signs=signs)
    loop.now += TIMEOUT_S / 2
    one.look()
    spends(seen.main_pid, eventually)
    loop.now += TIMEOUT_S / 2
    assert one.judge(HEARTBEAT).kill is kills


WORKS = GpuActivity("a", 90.0, 40.0, 500.0, 700.0)
SPINNING = GpuActivity("a", 100.0, 0.0, 100.0, 700.0)
IDLE = GpuActivity("a", 0.0, 0.0, 70.0, 700.0)


@pytest.mark.parametrize(
    ("gpus", "signs", "kills"),
    [
        ([WORKS], "output gpu cpu", False),
        ([WORKS], "output cpu", True),
        ([SPINNING], "output gpu cpu", True),
        ([IDLE, WORKS, IDLE], "output gpu cpu", False),
    ],
)
def test_gpus_speak_for_a_silent_worker_where_liveness_names_them(
    silent: Any, gpus: list[GpuActivity], signs: str, *, kills: bool
) -> None:
    """One sign of work in the window is enough; spinning is none."""
    loop, seen, one = silent(signs=signs)
    watch(loop, one, TIMEOUT_S / 2)
    for n in range(round(TIMEOUT_S)):
        seen.gpu = (gpus[n % len(gpus)],)
        watch(loop, one, 0.5)
    assert one.judge(HEARTBEAT).kill is kills


def test_gpus_that_were_not_seen_yet_are_left_out(silent: Any) -> None:
    """The first looks had none to show: only those that can be compared are."""
    loop, seen, one = silent()
    watch(loop, one, TIMEOUT_S - 0.5)
    seen.gpu = (WORKS,)
    watch(loop, one, 0.5)
    assert not one.judge(HEARTBEAT).kill


def test_it_has_gone_meanwhile(silent: Any) -> None:
    """A worker that ends while it is looked at raises nothing."""
    loop, seen, one = silent()
    watch(loop, one, TIMEOUT_S - 1)
    seen.main_pid = 1 << 22  # no pid is that high: it is nobody's
    watch(loop, one, 1)
    assert one.judge(HEARTBEAT).kill
