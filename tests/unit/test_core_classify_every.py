"""What holds of the cause whatever the exit status, and the words for one."""

import signal

import pytest

from supervisor.core.causes import Cause
from supervisor.core.classify import classify
from supervisor.core.evidence import Breach, Evidence
from supervisor.core.status import signal_name, status_words
from tests.unit.test_core_classify import (
    BUS,
    HARD,
    HOST_OOM,
    KILL,
    OWN_OOM,
    RSS,
    SOFT,
)


def test_every_exit_code_has_a_cause() -> None:
    """No exit code is left without an answer, and 0 alone means done."""
    for code in range(256):
        cause, reason = classify(Evidence(exit_code=code))
        assert (cause is Cause.COMPLETED) == (code == 0)
        assert f"exit code {code}" in reason


def test_every_signal_has_a_cause_and_a_name() -> None:
    """Real-time signals too, which have no name of their own."""
    for number in range(1, 65):
        cause, reason = classify(Evidence(signal=number))
        assert cause is (Cause.SHM if number == BUS else Cause.SIGNAL)
        assert signal_name(number) in reason


@pytest.mark.parametrize("done", [True, False, None])
@pytest.mark.parametrize("code", [0, 1, 3, None])
def test_exit_code_zero_is_not_done_where_the_job_says_what_done_is(
    *, done: bool | None, code: int | None
) -> None:
    """`done` decides where it is known; exit code 0 decides only where it is not."""
    completed = classify(Evidence(exit_code=code, done=done))[0] is Cause.COMPLETED
    assert completed == (code == 0 if done is None else done)


def test_words_for_a_status() -> None:
    """Both ways to die of a signal are said as a person says them."""
    assert status_words(Evidence(signal=signal.SIGKILL)) == "killed by SIGKILL"
    assert status_words(Evidence(exit_code=137)) == "exit code 137 (a shell's word for SIGKILL)"
    assert status_words(Evidence(exit_code=200)) == "exit code 200"
    assert signal_name(40) == "signal 40"


def test_an_end_after_an_oom_kill_tells_what_the_main_process_said() -> None:
    """Where the kernel killed something else of the worker, a person can judge the connection."""
    pool = Evidence(exit_code=1, oom=OWN_OOM, error_line="BrokenProcessPool: terminated abruptly")
    assert classify(pool)[1] == (
        "the kernel killed it at a memory limit of 32.00 GiB "
        "(cgroup v2; exit code 1: BrokenProcessPool: terminated abruptly)"
    )
    struck = Evidence(signal=KILL, oom=HOST_OOM, error_line="step 7")
    assert "step 7" not in classify(struck)[1]


@pytest.mark.parametrize("breach", [RSS, HARD, SOFT])
@pytest.mark.parametrize("done", [True, False, None])
@pytest.mark.parametrize("code", [0, 1, None])
def test_who_went_over_a_limit_is_done_only_where_the_job_says_so(
    *, code: int | None, done: bool | None, breach: Breach
) -> None:
    """Leaving with 0 is what a soft limit asks for; it is no end of the job."""
    cause, _ = classify(Evidence(exit_code=code, done=done, breach=breach))
    assert (cause is Cause.COMPLETED) == (done is True)
