"""Installing and removing the service on a real host, by the command line."""

from pathlib import Path

import pytest

from supervisor.daemon.units import word
from tests.systemd.service import SERVICE, SUPERVISE, Service

pytestmark = [pytest.mark.systemd, pytest.mark.long]


@pytest.fixture
def bare(container):
    """Give a host on which nothing is installed, before and after."""
    service = Service(container)
    yield service
    service.clear()
    container.check(SUPERVISE, "daemon", "uninstall", cwd="/")


def test_install_makes_groups_folders_and_units(bare):
    """All that the units rely on is there at once, without a reboot; nothing is started."""
    said = bare.install()
    run = bare.container.check
    assert run("getent", "group", "supervise", "supervise-admin").count("\n") == 2
    assert run("stat", "-c", "%a %U", "/run/lock/supervise", "/run/supervise").split("\n")[:2] == [
        "1777 root",
        "755 root",
    ]
    assert bare.shows("LoadState", "ActiveState") == {
        "LoadState": "loaded",
        "ActiveState": "inactive",
    }
    assert "systemctl enable --now supervise.service" in said
    assert bare.install().count("unchanged: ") == 6


def test_enabled_it_comes_with_its_socket(bare):
    """What is typed next: the service and its socket, now and at boot."""
    bare.install()
    bare.stand_in()
    bare.ctl("enable", "--now", SERVICE)
    for unit in (SERVICE, "supervise.socket"):
        assert bare.is_active(unit)
        assert bare.ctl("is-enabled", unit) == "enabled\n"


def test_now_does_all_of_it_and_restarts_what_runs(bare):
    """With --now it is up; again, with the new program, and a runner does not notice."""
    bare.install()
    bare.stand_in()
    bare.install("--now")
    first, runner = bare.pid(), bare.runner("stays")
    assert first
    assert "restarted; jobs went on" in bare.install("--now")
    assert bare.pid() not in {0, first}
    assert bare.pid("supervise-job-stays.service") == runner


def test_refused_without_root(bare):
    """An ordinary user is told of both ways."""
    done = bare.container.run(SUPERVISE, "daemon", "install", user="bert", cwd="/")
    assert done.returncode == 1
    assert "sudo supervise daemon install" in done.stderr
    assert bare.shows("LoadState") == {"LoadState": "not-found"}


def test_uninstall_leaves_jobs_running_and_state(bare):
    """The daemon goes, its units go; a runner and what it wrote stay."""
    bare.install()
    bare.stand_in()
    bare.ctl("enable", "--now", SERVICE)
    runner = bare.runner("goes-on")
    bare.container.check("touch", "/var/lib/supervise/journal")
    said = bare.container.check(SUPERVISE, "daemon", "uninstall", cwd="/")
    assert "its jobs go on without it" in said
    assert bare.shows("LoadState", "MainPID") in (
        {"LoadState": "not-found", "MainPID": "0"},
        {"LoadState": "bad-setting", "MainPID": "0"},  # the test's own drop-in is left
    )
    assert bare.pid("supervise-job-goes-on.service") == runner
    bare.container.check("test", "-e", "/var/lib/supervise/journal")
    assert bare.container.run("test", "-e", "/run/supervise/supervise.sock").returncode != 0


def test_purge_stops_the_jobs_and_takes_the_state(bare):
    """Asked for and confirmed: daemon, runners and state folder are gone."""
    bare.install()
    bare.stand_in()
    bare.ctl("enable", "--now", SERVICE)
    bare.runner("ends")
    bare.container.check("touch", "/var/lib/supervise/journal")
    refused = bare.container.run(SUPERVISE, "daemon", "uninstall", "--purge", cwd="/")
    assert refused.returncode != 0
    bare.container.check("test", "-e", "/var/lib/supervise/journal")
    bare.container.check(SUPERVISE, "daemon", "uninstall", "--purge", "--yes", cwd="/")
    assert not bare.is_active("supervise-job-ends.service")
    assert bare.container.run("test", "-e", "/var/lib/supervise").returncode != 0


def test_a_strange_argument_reaches_the_program(bare):
    """What the unit file quotes is what the program gets: blanks, signs that systemd expands."""
    bare.install()
    odd = Path('/a b/$HOME/%n/"c"/\\d/${X}/\'')
    shell = "/bin/sh -c 'echo \"$0\" > /run/supervise/argument'"
    bare.drop_in("Type=oneshot", "Restart=no", "ExecStart=", f"ExecStart={shell} {word(odd)}")
    bare.ctl("start", SERVICE)
    assert bare.container.check("cat", "/run/supervise/argument").strip() == str(odd)
