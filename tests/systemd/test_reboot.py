"""The host goes down and comes back, with the real daemon: what becomes of a training."""

import os
import signal

import pytest

from tests.systemd.people import Person

pytestmark = [pytest.mark.systemd, pytest.mark.long, pytest.mark.timeout(300)]


def served(host):
    """Start the daemon; the one who submits."""
    host.install("--now")
    host.container.check("usermod", "-aG", "supervise", "anna")
    host.container.check("install", "-d", "-m", "1777", "/kept/home")
    return Person.of(host.container, "anna", home="/kept/home")


def boot_id(host):
    """Return what tells this boot from another."""
    return host.container.check("cat", "/proc/sys/kernel/random/boot_id")


@pytest.mark.parametrize("end", ["shutdown", "power cut"])
def test_a_training_goes_on_after_a_reboot(end, host, eventually):
    """Saved, in its own time, where there was time; resumed either way, under a new boot id."""
    anna = served(host)
    job = anna.submit()
    eventually(lambda: anna.step() > 5)
    host.container.check("touch", f"{anna.folder}/slow")
    before = boot_id(host)
    if end == "power cut":
        os.kill(host.container.leader, signal.SIGKILL)
    host.container.stop()
    reached = int((host.container.folder / "kept/home/work/step").read_text())
    host.container.boot()
    host.container.provide()
    assert boot_id(host) != before
    again = served(host)
    eventually(lambda: len(again.began()) == 2)
    first, second = again.began()
    assert first["ids"] == second["ids"]
    assert second["step"] == (reached if end == "shutdown" else 0)
    causes = again.causes(job)
    assert causes == (["stopped", None] if end == "shutdown" else ["host_rebooted", None])
    assert host.shows("NRestarts") == {"NRestarts": "0"}
