"""The end of the host: who is asked to stop first, and how long it waits."""

from pathlib import Path

import pytest

from tests.systemd.service import SERVICE, TARGET

pytestmark = pytest.mark.systemd

# Stands for a runner: at SIGTERM it saves, which takes until the service has ended, and a while.
RUNNER = """
trap 'echo runner asked >> /kept/order; {wait}; echo runner saved >> /kept/order; exit 75' TERM
echo runner runs >> /kept/order
while :; do sleep 0.05; done
"""

OPEN = ("NotifyAccess=all", "ReadWritePaths=/kept")


def order(host):
    """Return what was written down, in the order in which it happened."""
    file = host.container.folder / "kept/order"
    return file.read_text().splitlines() if file.exists() else []


def daemon(host, *lines):
    """Let the service be one that writes down when it is asked, and leaves."""
    script = Path(host.container.folder / "kept/daemon")
    script.write_text(
        "trap 'echo daemon asked >> /kept/order; {}; echo daemon left >> /kept/order; exit' TERM\n"
        "systemd-notify --ready\nwhile :; do sleep 0.05; done\n".format("; ".join(lines) or ":")
    )
    host.drop_in("ExecStart=", "ExecStart=/bin/sh /kept/daemon", *OPEN)
    host.ctl("start", SERVICE)


def test_the_daemon_is_asked_first_and_runners_have_their_time(host, eventually):
    """The daemon can stop its jobs itself; systemd then asks what is left, and waits for it."""
    daemon(host)
    host.runner("slow", "sh", "-c", RUNNER.format(wait="sleep 1"))
    eventually(lambda: order(host))
    host.container.stop()
    assert order(host) == [
        "runner runs",
        "daemon asked",
        "daemon left",
        "runner asked",
        "runner saved",
    ]


def test_a_runner_that_the_daemon_has_stopped_is_not_asked_again(host, eventually):
    """As it is meant to be: the daemon leaves when its jobs are saved; nothing else happens."""
    daemon(host, "systemctl kill --kill-who=main supervise-job-good.service", "sleep 1")
    host.runner("good", "sh", "-c", RUNNER.format(wait=":"))
    eventually(lambda: order(host))
    host.container.stop()
    assert order(host) == [
        "runner runs",
        "daemon asked",
        "runner asked",
        "runner saved",
        "daemon left",
    ]


def test_a_runner_without_a_daemon_is_asked_too(host, eventually):
    """A daemon that was killed leaves runners behind: they still get SIGTERM and their time."""
    host.runner("alone", "sh", "-c", RUNNER.format(wait="sleep 1"))
    eventually(lambda: order(host))
    host.container.stop()
    assert order(host) == ["runner runs", "runner asked", "runner saved"]


def test_a_runner_can_be_started_while_the_daemon_is_restarted(host, eventually):
    """Neither waits for the other: a daemon that is to end may have a runner under way."""
    daemon(
        host, "systemd-run --unit=supervise-job-late --property=Before=" + TARGET + " sleep 1000"
    )
    host.ctl("restart", SERVICE)
    eventually(lambda: order(host)[-1:] == ["daemon left"])
    assert host.pid("supervise-job-late.service")
    assert host.is_active()
