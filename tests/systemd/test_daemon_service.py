"""The daemon as the system's service: whose jobs it runs, and what they notice of its troubles."""

import json
import sys

import pytest

from tests.systemd.people import Person
from tests.systemd.service import SERVICE, SOCKET, SUPERVISE

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def people(installed):
    """Give two users who may submit."""
    container = installed.container
    container.check("usermod", "-aG", "supervise", "bert")
    return [Person.of(container, name) for name in ("anna", "bert")]


@pytest.fixture
def served(installed):
    """Give the service with the real daemon, running; all of it is ended afterwards."""
    installed.clear()
    installed.ctl("start", SERVICE)
    yield installed
    installed.clear()
    installed.container.check("find", "/var/lib/supervise", "-mindepth", "1", "-delete")


@pytest.fixture
def anna(people, served):
    """Give the first user, with a daemon that serves."""
    return people[0]


def unit(job):
    """Return the name of a job's unit."""
    return f"supervise-job-{job}.service"


def test_each_job_runs_as_who_submitted_it(people, served, eventually):
    """User, groups, home, folder and umask are the submitter's; nobody's job runs as root."""
    jobs = [one.submit() for one in people]
    for person, job in zip(people, jobs, strict=True):
        eventually(person.step)
        (told,) = person.began()
        uid, gid = (int(served.container.check("id", f"-{which}", person.name)) for which in "ug")
        groups = served.container.check("id", "-G", person.name).split()
        assert told["ids"] == [uid] * 3 + [gid] * 3
        assert sorted(told["groups"]) == sorted(map(int, groups))
        assert (told["home"], told["cwd"]) == (f"/home/{person.name}", person.folder)
        assert told["umask"] == 0o22
        assert f"/supervise.slice/{unit(job)}" in told["cgroup"]
        owner = served.container.check("stat", "-c", "%U", f"/proc/{served.pid(unit(job))}")
        assert owner.strip() == person.name


def test_systemd_shows_the_job_with_its_processes(anna, served, eventually):
    """`systemctl status` of the unit names the worker; the slice has the unit."""
    job = anna.submit()
    eventually(anna.step)
    shown = served.container.check("systemctl", "status", "--no-pager", unit(job))
    assert "training.py" in shown
    assert unit(job) in served.container.check(
        "systemctl", "status", "--no-pager", "supervise.slice"
    )


def test_one_user_may_see_and_not_touch_the_job_of_another(people, served, eventually):
    """`ps` and `top` show both to both; a stop by the other is refused; root may."""
    anna, bert = people
    job = anna.submit()
    eventually(anna.step)
    bert.container.check("mkdir", "-p", bert.folder, user="bert")
    assert job in bert.ok("ps")
    (row,) = json.loads(bert.ok("top", "--json"))["jobs"]
    assert (row["id"], row["user"], row["processes"]) == (job, "anna", 1)
    (own,) = json.loads(anna.ok("top", "--json"))["jobs"]
    assert (own["id"], own["user"], own["restarts"]) == (job, "anna", 0)
    refused = bert.give("stop", job)
    assert refused.returncode != 0
    assert "anna" in refused.stderr
    assert anna.container.run("ls", anna.shelf, user="bert").returncode != 0
    before = anna.step()
    eventually(lambda: anna.step() > before)


def test_what_a_job_printed_is_not_for_others(people, served, eventually):
    """That it failed, and of which cause, is; its owner reads why."""
    anna, bert = people
    fails = [sys.executable, "-c", "raise ValueError('no such ' + 'patient')"]
    job = anna.submit(command=fails, restart={"budget": 0})
    eventually(lambda: anna.show(job)["state"] == "failed")
    bert.container.check("mkdir", "-p", bert.folder, user="bert")
    eventually(lambda: "failed" in bert.ok("ps"))
    for words in (["show"], ["show", "--json"], ["report"], ["explain"], ["events"], ["logs"]):
        told = bert.give(words[0], job, *words[1:])
        assert "no such patient" not in told.stdout + told.stderr, words
    assert "exit_code" in bert.ok("show", job)
    assert "no such patient" in anna.ok("show", job)


def test_who_is_not_in_the_group_is_told_so(served):
    """A user whom the socket refuses learns what to ask for."""
    served.container.run("useradd", "--create-home", "carl")
    carl = Person.of(served.container, "carl")
    with pytest.raises(AssertionError, match="supervise"):
        carl.submit()


@pytest.mark.parametrize("how", ["restart", "kill -9", "watchdog"])
def test_a_worker_does_not_notice(how, anna, served, eventually):
    """Whatever ends the daemon: the same process goes on, no step is lost, and its end is seen."""
    if how == "watchdog":
        served.drop_in("WatchdogSec=2s", "TimeoutAbortSec=1s")
        served.ctl("restart", SERVICE)
    job = anna.submit(steps=300)
    eventually(anna.step)
    first, runner = served.pid(), served.pid(unit(job))
    if how == "restart":
        served.ctl("restart", SERVICE)
    else:
        served.container.check("kill", "-KILL" if how == "kill -9" else "-STOP", first)
    eventually(lambda: served.pid() not in {0, first} and served.is_active())
    assert served.pid(unit(job)) == runner
    assert json.loads(anna.ok("ps", "--json"))[0]["state"] == "running"
    assert anna.ok("wait", job)
    assert anna.causes(job) == ["completed"]
    assert [one["step"] for one in anna.began()] == [0]
    assert anna.step() == 300


def test_a_stop_saves_the_training_and_a_start_resumes_it(anna, served, eventually):
    """Asked by systemd: the job saves and is stopped; the next daemon lets it go on from there."""
    job = anna.submit()
    eventually(lambda: anna.step() > 5)
    served.ctl("stop", SERVICE, "supervise.socket")
    shown = anna.show(job)
    assert shown["state"] == "stopped"
    stopped_at = anna.step()
    assert not served.is_active(unit(job))
    (row,) = json.loads(anna.ok("ps", "--json"))  # also while nobody serves
    assert (row["id"], row["state"]) == (job, "stopped")
    served.ctl("start", SERVICE)
    eventually(lambda: len(anna.began()) == 2)
    assert anna.began()[1]["step"] == stopped_at > 5
    assert served.shows("Result")["Result"] == "success"


def test_a_job_that_its_owner_stopped_stays_stopped(anna, served, eventually):
    """Only who was stopped by the daemon's own stop is resumed."""
    job = anna.submit()
    eventually(anna.step)
    anna.ok("stop", job)
    anna.give("wait", job)
    served.ctl("stop", SERVICE, "supervise.socket")
    served.ctl("start", SERVICE)
    assert (anna.show(job)["state"], len(anna.began())) == ("stopped", 1)


def test_whoever_submits_first_starts_the_daemon(anna, served, eventually):
    """Socket activation: with the socket alone, `submit` works, and the daemon is there."""
    served.ctl("stop", SERVICE)
    assert not served.is_active()
    job = anna.submit(steps=3)
    assert served.is_active()
    assert anna.ok("wait", job)
    assert anna.causes(job) == ["completed"]


def test_a_killed_runner_is_replaced(anna, served, eventually):
    """SIGKILL to the runner: its worker is gone, another runner resumes the job."""
    job = anna.submit()
    eventually(anna.step)
    first = served.pid(unit(job))
    served.container.check("kill", "-KILL", first)
    eventually(lambda: len(anna.began()) == 2)
    assert served.pid(unit(job)) not in {0, first}
    assert served.container.run("kill", "-0", anna.began()[0]["pid"]).returncode != 0
    assert anna.causes(job) == ["runner_lost", None]


def test_the_socket_stays_the_groups(served):
    """The daemon takes the socket as systemd made it."""
    seen = served.container.check("stat", "-c", "%A %U %G", SOCKET).strip()
    assert seen == "srw-rw---- root supervise"


def test_tcp_is_opened_by_the_drop_in_of_the_docs(served):
    """The unit forbids TCP; the documented lines open loopback, for whoever has the token."""
    asking = (
        "import urllib.request as u; print(u.urlopen('http://127.0.0.1:7070/v1/daemon').status)"
    )
    program = f"ExecStart={SUPERVISE} daemon run --system --tcp 7070"
    served.drop_in("Restart=no", "ExecStart=", program)
    assert served.container.run("systemctl", "restart", SERVICE).returncode != 0
    served.drop_in(
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "Restart=no", "ExecStart=", program
    )
    served.container.run("systemctl", "reset-failed", SERVICE)
    served.ctl("start", SERVICE)
    refused = served.container.run("python3", "-c", asking)
    assert "401" in refused.stderr
