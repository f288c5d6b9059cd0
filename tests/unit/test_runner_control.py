"""Signals reach the runner that the journal names, and nobody else."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest

from supervisor.core.causes import State
from supervisor.core.events import GpusSetAside, StopRequested
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.gpu.leases import Leases
from supervisor.gpu.shared_folder import lease_folder
from supervisor.host import identity
from supervisor.host.processes import ProcessId
from supervisor.journal import Journal
from supervisor.journal.records import JobRecord
from supervisor.runner import concluding, control
from supervisor.runner.alive import runner_gone, runner_process
from supervisor.runner.control import NotHeard, conclude_cancel, conclude_stop, kill, stop
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import AlreadyDone, open_known
from supervisor.spec.frozen import freeze
from supervisor.spec.load import load_job
from tests.golden.journal import make_v1, make_v2_cancelled

DEAF = "import signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
WAITS = "print(flush=True)\nsys.stdin.read()\n"
HEEDS = "import sys\n"
JOB = "digits-0a1b2c"


@pytest.fixture
def runner():
    """Start a process that the journal could name, and give a record that does."""
    with ExitStack() as closing:

        def started(script):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            child = closing.enter_context(
                subprocess.Popen([sys.executable, "-c", script + WAITS], **pipes)
            )
            closing.callback(child.stdin.close)
            child.stdout.readline()
            ticks = identity.start_ticks(child.pid)
            named = JobRecord(JOB, "digits", "/x", "{}", 1, 1, "running", "", *(None,) * 5)
            return replace(
                named, runner_pid=child.pid, runner_ticks=ticks, boot_id=identity.boot_id()
            ), child

        yield started


@pytest.fixture
def journal(state_dir):
    """Give a journal of this test's own."""
    opened = Journal.open(state_dir)
    yield opened
    opened.close()


def test_a_runner_is_asked_to_stop_by_one_sigterm(runner):
    """True while it is there; afterwards nobody is asked."""
    record, child = runner(HEEDS)
    assert runner_process(record) == ProcessId(record.runner_pid, record.runner_ticks)
    assert stop(record)
    assert child.wait(timeout=30) == -signal.SIGTERM
    assert (stop(record), runner_process(record)) == (False, None)
    assert runner_gone(record)


@pytest.mark.parametrize(
    "changes",
    [{"runner_ticks": 7}, {"boot_id": "another"}, {"boot_id": None}, {"runner_pid": None}],
)
def test_a_process_that_only_has_the_pid_hears_nothing(runner, journal, changes):
    """After a reboot, or when the pid came back, it is somebody else's."""
    record, child = runner(HEEDS)
    other = replace(record, **changes)
    assert not stop(other)
    assert not kill(journal, other)
    child.stdin.close()
    assert child.wait(timeout=30) == 0


def test_another_users_runner_is_said_to_be_so(runner, journal, monkeypatch):
    """In words, with the way on."""
    record, _ = runner(HEEDS)

    def refused(*_args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(signal, "pidfd_send_signal", refused)
    for ask in (lambda: stop(record), lambda: kill(journal, record)):
        with pytest.raises(PermissionError, match=r"is another user's: ask them, or root$"):
            ask()


def test_a_runner_that_does_not_react_is_told_of(runner, journal, monkeypatch):
    """It ignores SIGTERM, as one would that is stopped: the message names the last resort."""
    monkeypatch.setattr(control, "ASK_AGAIN_S", 0.01)
    record, child = runner(DEAF)
    with pytest.raises(NotHeard, match=f"kill -KILL {child.pid}"):
        kill(journal, record, wait_s=0.1)
    assert child.poll() is None


def test_a_runner_that_is_stopping_is_left_in_peace(runner):
    """A second signal would kill a worker that is still saving."""
    record, child = runner(HEEDS)
    assert stop(replace(record, state=State.STOPPING))
    assert child.poll() is None
    assert stop(record)
    assert child.wait(timeout=30) == -signal.SIGTERM


def test_a_runner_that_leaves_at_the_first_signal_is_killed_well_enough(runner, journal):
    """A job without a worker stops at once."""
    record, child = runner(HEEDS)
    assert kill(journal, record)
    assert child.wait(timeout=30) == -signal.SIGTERM


def test_the_second_signal_waits_until_the_first_was_heard(runner, journal, monkeypatch):
    """Two at once may arrive as one; an old stop in the journal is not the answer to this one."""
    record, _ = runner(DEAF)
    make_v1.write(journal)  # holds a stop by force, of months ago
    state, sent = JobState(phase=State.STOPPING), []
    looks = iter(range(1000))

    def hears(_pidfd, number):
        assert number == signal.SIGTERM
        sent.append(next(looks))
        if len(sent) == 1:
            return  # it takes its time
        journal.append(JOB, StopRequested("SIGTERM", forced=True), state)

    def passes(_wait_s):
        if next(looks) == 5:
            journal.append(JOB, StopRequested("SIGTERM"), state)

    monkeypatch.setattr(signal, "pidfd_send_signal", hears)
    monkeypatch.setattr(control.time, "sleep", passes)
    assert kill(journal, record)
    assert len(sent) == 2
    assert sent[1] > 5


def accepted(journal, tmp_path, *events):
    """A job with this story, that no runner has."""
    (tmp_path / "job.yaml").write_text('{"name": "net", "command": ["true"]}')
    spec = freeze(load_job(tmp_path / "job.yaml", {}))
    journal.create_job(replace(make_v1.job("digits"), spec=spec, id=JOB))
    state = JobState()
    for event in events:
        state, _ = step(state, event, 0.0)
        journal.append(JOB, event, state)
    return state


def test_a_cancelled_job_is_so_for_good_and_says_by_whom(journal, state_dir, tmp_path):
    """A second time is no error, and no event."""
    accepted(journal, tmp_path)
    conclude_cancel(journal, state_dir, JOB, "supervise cancel by anna")
    conclude_cancel(journal, state_dir, JOB, "supervise cancel by bert")
    record = journal.job(JOB)
    assert (record.state, record.why) == ("cancelled", "cancelled by supervise cancel by anna")
    assert [one.kind for one in journal.events(JOB)] == ["JobCancelled"]


def test_a_job_that_is_stopped_while_it_waits_says_so(journal, state_dir, tmp_path):
    """It had no runner to hear of it. Twice, or of an ended job, is nothing."""
    accepted(journal, tmp_path)
    conclude_stop(journal, state_dir, JOB, "supervise stop")
    conclude_stop(journal, state_dir, JOB, "supervise stop")
    assert journal.job(JOB).state == "stopped"
    assert [one.kind for one in journal.events(JOB)] == ["StopRequested"]
    conclude_cancel(journal, state_dir, JOB, "anna")
    conclude_stop(journal, state_dir, JOB, "supervise stop")
    assert journal.job(JOB).state == "cancelled"


def test_a_job_that_succeeded_or_runs_or_is_unknown_is_not_cancelled(journal, state_dir, tmp_path):
    """Each is said in its own way, and changes nothing."""
    with pytest.raises(KeyError):
        conclude_cancel(journal, state_dir, JOB, "anna")
    accepted(journal, tmp_path)
    with open_known(journal, state_dir, JOB):
        for conclude in (conclude_cancel, conclude_stop):
            with pytest.raises(AlreadyRunning):
                conclude(journal, state_dir, JOB, "anna")
    assert journal.events(JOB) == []
    journal._connection.execute("UPDATE jobs SET state = 'succeeded'")
    with pytest.raises(AlreadyDone):
        conclude_cancel(journal, state_dir, JOB, "anna")


def test_a_gpu_that_the_job_spoilt_is_set_aside_when_it_is_cancelled(
    journal, state_dir, tmp_path, monkeypatch
):
    """Its last runner died before it could, and no other one will come; a reboot resets GPUs."""
    story = make_v2_cancelled.STORY[:9]
    state = accepted(journal, tmp_path, *story)
    assert state.spoilt
    monkeypatch.setattr(identity, "boot_id", lambda: "boot-1")
    conclude_cancel(journal, state_dir, JOB, "anna")
    assert [one.uuid for one in Leases(lease_folder()).set_asides()] == ["GPU-a"]
    assert journal.replay(JOB)[-1] == GpusSetAside(("GPU-a",))


def test_after_a_reboot_no_gpu_is_set_aside(journal, state_dir, tmp_path):
    """The journal names another boot."""
    accepted(journal, tmp_path, *make_v2_cancelled.STORY[:9])
    conclude_cancel(journal, state_dir, JOB, "anna")
    assert Leases(lease_folder()).set_asides() == []
    assert journal.job(JOB).state == "cancelled"


def test_what_cannot_be_seen_out_leaves_the_job_as_it_is(
    journal, state_dir, tmp_path, monkeypatch, capfd
):
    """The runner that was to do so ends with an error, or does not end."""
    accepted(journal, tmp_path, *make_v2_cancelled.STORY[:4])
    surroundings = state_dir / "jobs" / JOB / "surroundings.json"
    surroundings.parent.mkdir(parents=True)
    surroundings.write_text("{")
    with pytest.raises(NotHeard, match="could not be seen out"):
        conclude_cancel(journal, state_dir, JOB, "anna")
    assert "cannot be read from" in capfd.readouterr().err
    monkeypatch.setattr(concluding, "WIND_UP_S", 0.0)
    with pytest.raises(NotHeard, match=f"supervise logs --runner {JOB}"):
        conclude_cancel(journal, state_dir, JOB, "anna")
    assert journal.job(JOB).state == "running"
    assert os.path.lexists(surroundings)
