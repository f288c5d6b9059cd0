"""The unit of one user, in that user's own service manager, with a stand-in for the program."""

from dataclasses import replace

import pytest

from tests.systemd.people import Person
from tests.systemd.service import SERVICE, SUPERVISE, Service

pytestmark = [pytest.mark.systemd, pytest.mark.long]


@pytest.fixture(scope="module")
def lingering(container):
    """Give a user whose service manager runs, as it does for whoever lingers."""
    uid = container.check("id", "-u", "anna").strip()
    container.check("systemctl", "start", f"user@{uid}.service")
    return Service(container, user="anna")


@pytest.fixture
def service(lingering):
    """Give that user's service, installed by themselves, with nothing started."""
    lingering.install()
    lingering.stand_in()
    yield lingering
    lingering.clear()
    lingering.container.check(SUPERVISE, "daemon", "uninstall", "--user", user="anna", cwd="/")


def test_is_that_users_and_starts_with_them(service):
    """No root, no group: it runs as the user, and is started by their manager from then on."""
    service.ctl("enable", "--now", SERVICE)
    owner = service.container.check("stat", "-c", "%U", f"/proc/{service.pid()}").strip()
    assert owner == "anna"
    assert service.shows("StatusText", "UnitFileState") == {
        "StatusText": "serving on 0 sockets",
        "UnitFileState": "enabled",
    }


def test_a_restart_leaves_a_runner_alone(service, eventually):
    """Killed or restarted: the units in the user's slice keep their processes."""
    service.ctl("start", SERVICE)
    first, runner = service.pid(), service.runner("own")
    group = service.shows("ControlGroup", unit="supervise-job-own.service")["ControlGroup"]
    assert "/supervise.slice/" in group
    service.container.check("kill", "-KILL", first, user="anna")
    eventually(lambda: service.pid() not in {0, first} and service.is_active())
    service.ctl("restart", SERVICE)
    assert service.pid("supervise-job-own.service") == runner


def test_the_state_folder_is_the_one_of_the_command_line(service):
    """The manager's environment is not the login's: the folder is written into the unit."""
    unit = service.ctl("cat", SERVICE)
    assert "--state-dir /home/anna/.local/state/supervise daemon run" in unit


def test_is_told_about_lingering(service):
    """Who installs it learns that it ends at logout, and what to do about that."""
    assert "loginctl enable-linger anna" in service.install()
    service.container.check("mkdir", "-p", "/var/lib/systemd/linger")
    service.container.check("touch", "/var/lib/systemd/linger/anna")
    said = service.install()
    service.container.check("rm", "/var/lib/systemd/linger/anna")
    assert "linger" not in said


def test_refused_for_a_user_without_a_manager(service):
    """As after su: in words, with what to do."""
    done = service.container.run(SUPERVISE, "daemon", "install", "--user", user="bert", cwd="/")
    assert done.returncode == 1
    assert "no service manager" in done.stderr
    assert "loginctl enable-linger bert" in done.stderr


@pytest.mark.timeout(300)
def test_the_real_daemon_serves_its_user(service, eventually):
    """Submitted, restarted, stopped and started: the job is a unit of the user's, and goes on."""
    anna = replace(Person.of(service.container, "anna"), shelf="/home/anna/.local/state/supervise")
    service.clear()
    service.install("--now")
    job = anna.submit()
    unit = f"supervise-job-{job}.service"
    eventually(lambda: anna.step() > 5)
    runner = service.pid(unit)
    assert "/user.slice/" in anna.began()[0]["cgroup"]
    assert f"/supervise.slice/{unit}" in anna.began()[0]["cgroup"]
    service.ctl("restart", SERVICE)
    assert service.pid(unit) == runner > 0
    service.ctl("stop", SERVICE)
    stopped_at = anna.step()
    assert anna.show(job)["state"] == "stopped"
    service.ctl("start", SERVICE)
    eventually(lambda: len(anna.began()) == 2)
    assert anna.began()[1]["step"] == stopped_at
