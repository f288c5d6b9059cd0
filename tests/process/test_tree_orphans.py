"""Orphans that come to a subreaper are reaped; its own children are left to who started them."""

import subprocess
import sys

import pytest

from supervisor.host.processes import ProcessId, Stat
from supervisor.process import orphans

pytestmark = pytest.mark.usefixtures("unleaked")

# A subreaper with two orphans that ended and three children of its own, all unreaped.
PROGRAM = '''
import os, signal, subprocess, sys
from supervisor.host import processes
from supervisor.process import Launcher
from supervisor.process.orphans import Orphans, become_subreaper
become_subreaper()
become_subreaper()
mark = os.environ["SUPERVISE_TREE"]
assert len(mark.split("/")) == 1, mark
same = subprocess.Popen(["sh", "-c", "exit 7"])
apart = subprocess.Popen(["sh", "-c", "exit 8"], start_new_session=True)
launcher = Launcher.start()
os.kill(launcher.pid, signal.SIGKILL)
read, write = os.pipe()
flees = """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.read(0, 1)  # until there is no parent
        os.write(1, b"%d %d" % (os.getsid(0), os.getpid()))
"""
first, last = os.pipe()
subprocess.run([sys.executable, "-ISc", flees], stdin=first, stdout=write, check=True)
os.close(last)
leader, follower = map(int, os.read(read, 100).split())
for pid in (same.pid, apart.pid, launcher.pid, leader, follower):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
ours = Orphans()
assert ours.reap(now=0.0) == [follower]  # leads no session: nobody starts a child like that
assert ours.reap(now=1.0) == []
assert apart.wait() == 8  # its starter came in time
assert ours.reap(now=2.0) == [leader]
assert ours.reap(now=9.0) == []
assert same.wait() == 7
launcher.close()
assert processes.children(os.getpid()) == []
'''


def test_orphans_are_reaped_and_children_are_not() -> None:
    """An orphan is reaped after a while; who was started here keeps its exit status."""
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False).returncode == 0


def test_who_adopts_nobody_reaps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program of the user's own nothing is taken for an orphan."""
    monkeypatch.setattr("os.waitid", lambda *_: pytest.fail("it is not ours to reap"))
    one = Stat(1, 2, 3, 4, "S", 1, 5, 0, 0, 0)
    assert not orphans.is_adopted(one, None)
    assert orphans.Orphans().reap() == []
    orphans.collect([ProcessId(1, 5)])
