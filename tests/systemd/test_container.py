"""The container itself: quick, like this machine, and gone afterwards."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.systemd.conftest import skipping
from tests.systemd.container import CGROUPS, booted

pytestmark = pytest.mark.systemd


def test_is_systemd_with_this_python(container):
    """Number 1 in there is systemd, and an ordinary user can run this interpreter."""
    assert container.check("cat", "/proc/1/comm") == "systemd\n"
    code = "import os, supervisor, workers; print(os.getuid())"
    uid = int(container.check(sys.executable, "-c", code, user="anna", cwd="/"))
    assert uid == int(container.check("id", "-u", "anna")) > 0


def test_has_a_boot_id_and_a_network_of_its_own(container):
    """What identifies a boot differs from this machine's, and only loopback is there."""
    boot_id = "/proc/sys/kernel/random/boot_id"
    assert container.check("cat", boot_id) != Path(boot_id).read_text()
    interfaces = container.check("ls", "/proc/sys/net/ipv4/conf").split()
    assert sorted(interfaces) == ["all", "default", "lo"]


def test_writes_stay_in_there(container):
    """What is written anywhere is seen in there alone."""
    container.check("touch", "/etc/written-in-the-container")
    assert not Path("/etc/written-in-the-container").exists()


@pytest.mark.parametrize("end", ["in order", "by force"])
def test_nothing_is_left(end, tmp_path, eventually):
    """After the end, in order or not, no process, mount or cgroup is there, and it can be again."""
    with skipping(), booted(tmp_path, eventually) as made:
        made.check("systemd-run", "--quiet", "--unit=left", "sleep", "1000")
        left = os.pidfd_open(made.outside(int(made.shows("left.service", "MainPID")["MainPID"])))
        if end == "by force":
            os.kill(made.leader, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(left, 0)
    os.close(left)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert [str(one) for one in CGROUPS.rglob(f"{made.name}*")] == []
