"""The page of `supervise doctor`: every finding stands, whatever the host does to a check."""

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor.cli import doctor
from supervisor.cli.diagnosis.facts import Check, Facts
from supervisor.cli.diagnosis.finding import Bounded, Status, TookTooLong, missing, ok, weak
from supervisor.cli.text import width
from supervisor.gpu.model import Inventory
from supervisor.host.cgroup import Offer

SICK = weak("sickly " * 30, "It means much. " * 10, "Do a lot. " * 10)


@pytest.fixture
def facts(tmp_path):
    """Make facts of a host without control groups and GPUs."""
    return Facts(tmp_path, driver=lambda: (Inventory("", ()), ()), control_groups=Offer)


@pytest.fixture
def checks(monkeypatch):
    """Replace all checks by these."""

    def put(*some):
        monkeypatch.setattr(doctor, "GROUPS", {"Host": some})

    return put


@pytest.fixture
def told(state_dir):
    """Run the verb: `told("--json")`."""

    def call(*words, **extra):
        return CliRunner().invoke(doctor.command, words, obj=state_dir, **extra)

    return call


def test_every_check_of_this_host_finds_something(state_dir):
    """All checks come to an end here, and what is not well says what it means and what to do."""
    seen = list(doctor.examine(Facts(state_dir)))

    failed = [one for one in seen if one.finding.status is Status.UNKNOWN]
    assert failed == []
    assert {one.group for one in seen} == set(doctor.GROUPS)
    for one in seen:
        well = one.finding.status is Status.OK
        assert bool(one.finding.found)
        assert (well, well) == (not one.finding.means, not one.finding.do)
    assert not state_dir.exists()


def test_names_of_checks_are_unique():
    """A program that reads the JSON finds a check by its name alone."""
    names = [one.name for checks in doctor.GROUPS.values() for one in checks]
    assert len(set(names)) == len(names)


def test_a_check_that_fails_is_a_finding_of_its_own(facts, checks):
    """An error names itself, and the checks behind it are made."""

    def fails(_facts):
        raise ZeroDivisionError("by nought")

    checks(Check("bad", fails, vital=True), Check("good", lambda _: ok("well")))
    bad, good = doctor.examine(facts)
    assert bad.finding.status is Status.UNKNOWN
    assert bad.finding.found == "the check itself failed: ZeroDivisionError: by nought"
    assert (good.finding.found, bad.fatal) == ("well", False)


def test_a_check_that_hangs_is_left_behind(facts):
    """It is given up when its time is over."""
    never = threading.Event()
    check = Check("stuck", lambda _: never.wait())
    found = doctor.examined(check, facts, limit_s=0.05)
    never.set()
    assert found.status is Status.UNKNOWN
    assert "`stuck` did not answer within" in found.found


def test_what_hangs_is_waited_for_once():
    """The second who asks is told at once, and the call is made once only."""
    never, calls = threading.Event(), []

    def call():
        calls.append(1)
        never.wait()

    bounded = Bounded("it", call, 0.05)
    for _ in range(2):
        with pytest.raises(TookTooLong):
            bounded.result()
    never.set()
    assert calls == [1]


def test_a_late_answer_still_counts(eventually):
    """Who asks again after the call has come back gets its result."""
    gate = threading.Event()

    def call():
        gate.wait()
        return 7

    bounded = Bounded("it", call, 0.01)
    with pytest.raises(TookTooLong):
        bounded.result()
    gate.set()

    def result():
        try:
            return bounded.result()
        except TookTooLong:
            return None

    assert eventually(result) == 7


def test_what_does_not_concern_this_host_is_left_out(facts, checks):
    """A check that answers None has no line."""
    checks(Check("absent", lambda _: None), Check("good", lambda _: ok("well")))
    assert [one.check.name for one in doctor.examine(facts)] == ["good"]


@pytest.mark.parametrize(("vital", "code"), [(True, 1), (False, 0)])
def test_the_exit_code_tells_whether_jobs_can_run(vital, code, told, checks):
    """Only what `supervise run` cannot do without makes it 1, and the last line names it."""
    checks(Check("heart", lambda _: missing("none", "Dead.", "Get one."), vital=vital))
    result = told()
    assert result.exit_code == code
    last = result.stdout.splitlines()[-1]
    fatal = "1 missing. No job can run here, for want of: heart."
    assert last == (fatal if vital else "1 missing. Jobs can run here.")
    assert told("--json").exit_code == code


def test_a_state_folder_that_cannot_be_made_is_fatal(tmp_path):
    """A state folder below a file is missing, in the words of the system."""
    blocked = Path("/proc/nothing/here")
    result = CliRunner().invoke(doctor.command, ["--json"], obj=blocked)
    found = {one["check"]: one for one in json.loads(result.stdout)}
    assert (result.exit_code, found["state folder"]["status"]) == (1, "missing")
    assert "--state-dir" in found["state folder"]["do"]


def test_the_page_in_plain(told, checks):
    """In a pipe marks are words, nothing is cut or coloured, and groups have headings."""
    checks(Check("good", lambda _: ok("well")), Check("bad", lambda _: SICK))
    lines = told().stdout.splitlines()
    assert lines[0] == "Host"
    assert lines[1].split() == ["ok", "good", "well"]
    assert lines[2].split()[:3] == ["weak", "bad", "sickly"]
    assert lines[3].strip() == SICK.means.strip()
    assert lines[4].strip() == f"→ {SICK.do}".strip()
    assert lines[-1] == "1 ok, 1 weak. Jobs can run here."


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_the_page_on_a_terminal_fits(told, checks, columns, monkeypatch):
    """Text is wrapped behind its column, and the mark has a colour."""
    monkeypatch.setattr(doctor, "columns", lambda: columns)
    checks(Check("bad", lambda _: SICK))
    lines = told(color=True).stdout.splitlines()
    assert max(map(width, lines)) <= columns
    assert "\x1b[33mweak" in lines[1]


def test_the_json(told, checks):
    """Each finding has the promised keys; what there is not to say is null."""
    checks(Check("good", lambda _: ok("well")), Check("bad", lambda _: SICK))
    good, bad = json.loads(told("--json").stdout)
    assert good == {
        "check": "good",
        "group": "Host",
        "vital": False,
        "status": "ok",
        "found": "well",
        "means": None,
        "do": None,
    }
    assert (bad["status"], bad["means"], bad["do"]) == ("weak", SICK.means, SICK.do)
