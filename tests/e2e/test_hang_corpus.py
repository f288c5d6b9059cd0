"""The short form of the corpus of hangs and slow phases, each under a real `supervise run`.

All of them are under way at once, so that each test waits for its own only.
"""

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from benchmarks.corpus.cases import CASES, SLACK_S, Case
from benchmarks.corpus.trial import Outcome, Verdict
from benchmarks.hangs import trials

CHOSEN = [case for case in CASES if case.quick]
SLOW = [case.name for case in CHOSEN if not case.is_hang]
HUNG = [case.name for case in CHOSEN if case.is_hang]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    """Give the outcome of each chosen case, as soon as it is there."""
    with trials(CHOSEN, tmp_path_factory.mktemp("corpus"), at_once=5) as running:
        yield running


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_phase_is_left_alone(name, running):
    """Promise 8: silent for longer than the heartbeat, but not hung; the job ends well."""
    outcome = running[name].result()
    if outcome.verdict is Verdict.SKIPPED:
        pytest.skip(outcome.detail)
    assert outcome.verdict is Verdict.KEPT, f"{outcome.cause}: {outcome.detail}"
    assert outcome.silent_s > 3.0, "it was never silent, so it proved nothing"


@pytest.mark.parametrize("name", HUNG)
def test_a_hang_is_found_in_time(name, running):
    """Within its deadline and two seconds; never before one heartbeat of silence."""
    outcome = running[name].result()
    if outcome.verdict in {Verdict.SKIPPED, Verdict.EXCUSED}:
        pytest.skip(f"{outcome.verdict}: {outcome.detail}")
    said = f"{outcome.cause} after {outcome.silent_s:.1f} s: {outcome.detail}"
    assert outcome.verdict is Verdict.KEPT, said


HANG = Case("any", "module.function", deadline_s=3.0)
PATIENT = Case("any", "module.function")


@pytest.mark.parametrize(
    ("case", "cause", "silent_s", "verdict"),
    [
        (PATIENT, "completed", 9.0, Verdict.KEPT),
        (PATIENT, "hang", 3.1, Verdict.FALSE_KILL),
        (PATIENT, "startup_timeout", 4.1, Verdict.FALSE_KILL),
        (PATIENT, "exit_code", 0.1, Verdict.BROKEN),
        (HANG, "hang", 3.1, Verdict.KEPT),
        (HANG, "hang", 2.1, Verdict.EARLY),
        (HANG, "hang", 3.1 + SLACK_S, Verdict.LATE),
        (HANG, "stopped", 60.0, Verdict.MISSED),
        (HANG, "completed", 0.1, Verdict.MISSED),
        (HANG, "exit_code", 0.1, Verdict.BROKEN),
        (HANG, "", 0.0, Verdict.SKIPPED),
    ],
)
def test_each_broken_promise_has_its_verdict(case, cause, silent_s, verdict):
    """Each way to break the promise has its own verdict, and only keeping it is `kept`."""
    assert Outcome(case, cause, silent_s).verdict is verdict


def test_only_a_starved_host_excuses_a_late_find_and_not_for_ever():
    """Up to four heartbeats a hang may hide behind others' work; nothing else is excused."""
    late_s = HANG.deadline_s + SLACK_S + 1
    assert Outcome(HANG, "hang", late_s).verdict is Verdict.LATE
    assert Outcome(HANG, "hang", late_s, starved=True).verdict is Verdict.EXCUSED
    assert Outcome(HANG, "hang", 15.0, starved=True).verdict is Verdict.LATE
    assert Outcome(PATIENT, "hang", late_s, starved=True).verdict is Verdict.FALSE_KILL
