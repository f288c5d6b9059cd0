"""In the machine: an ordinary user in a cgroup that was delegated to him, with every controller."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.host.cgroup import Leaf, Offer, survey
from tests.vm.given import Given, enter, standing

MIB = 1 << 20
TREE = """
import os, sys, threading
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        os.setsid()
        threading.Event().wait()
print("ready", flush=True)
held = bytearray(int(sys.argv[2]) << 20)
print("held", flush=True)
threading.Event().wait()
"""
FORKS = """
import os, threading
made = 0
while True:
    try:
        if os.fork() == 0:
            threading.Event().wait()
    except BlockingIOError:
        break
    made += 1
print(made, flush=True)
threading.Event().wait()
"""
# Steps for ever, and has begun a daemon that bears no mark of its origin.
LITTERS = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open("left.txt", "a") as file:
            print(os.getpid(), file=file)
        sleeps = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); time.sleep(1e6)"
        os.execve(sys.executable, [sys.executable, "-ISc", sleeps], {})
    os._exit(0)
for step in range(10**6):
    print("step", step, flush=True)
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def offer() -> Offer:
    """Give what this user was given."""
    return survey()


@pytest.fixture
def make(offer: Offer, eventually: Any) -> Iterator[Callable[..., Leaf]]:
    """Give a way to make leaves with limits, which are emptied and removed after the test."""
    leaves = []

    def made(memory_mib: int | None = None, pids: int | None = None) -> Leaf:
        leaf = Leaf.make(offer, f"supervise-vm-1-{secrets.token_hex(4)}")
        leaves.append(leaf)
        leaf.limit(memory_bytes=memory_mib and memory_mib * MIB, pids=pids)
        return leaf

    yield made
    for leaf in leaves:
        leaf.kill()
        eventually(leaf.empty, 30)
        assert leaf.remove()


@pytest.fixture
def inside() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a way to run Python in a leaf; it is reaped after the test."""
    started = []

    def start(leaf: Leaf, code: str, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-ISc", code, *map(str, words)]
        started.append(enter(leaf.entries[0].parent, command, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()  # its children may hold the other end


def heard(process: subprocess.Popen[str]) -> str:
    """Return the next line that a command says; "" when it is gone."""
    assert process.stdout is not None
    return process.stdout.readline()


def steps(folder: Path) -> int:
    """Return how far the worker has come."""
    logs = folder.glob("state/jobs/*/attempts/*/output.log")
    return sum(log.read_text().count("step") for log in logs)


def test_every_lever_is_on_offer_beside_the_runner(offer: Offer) -> None:
    """All is version 2, in the cgroup that was given; this process has left it for one below.

    No process may be in a cgroup that hands controllers down.
    """
    given = offer.kill
    assert given is not None
    assert (offer.memory, offer.pids, offer.reasons) == (given, given, ())
    assert (offer.version_memory, offer.version_pids) == (2, 2)
    assert standing(os.getpid()) == given / f"supervise-runner-{os.getpid()}"
    assert (given / "cgroup.procs").read_text() == ""
    assert set((given / "cgroup.subtree_control").read_text().split()) == {"memory", "pids"}


def test_a_tree_dies_as_one(make: Any, inside: Any, eventually: Any) -> None:
    """When one of a tree grows past the limit, the kernel ends all of it; the leaf says why."""
    leaf = make(memory_mib=64)
    main = inside(leaf, TREE, 3, 256)
    assert heard(main) == "ready\n"
    assert main.wait(60) == -signal.SIGKILL
    eventually(leaf.empty, 30)  # nobody was killed by us
    facts = leaf.memory()
    assert (facts.at_limit, facts.limit_bytes, facts.source) == (True, 64 * MIB, "cgroup v2")
    assert facts.oom_kills >= 4  # the one that the kernel chose first may be counted twice
    assert facts.peak_bytes is None or 60 * MIB <= facts.peak_bytes <= 64 * MIB


def test_a_limit_is_nobody_elses(make: Any, inside: Any) -> None:
    """A sibling without a limit holds more than the limited one may."""
    limited, free = make(memory_mib=32), make()
    small, large = inside(limited, TREE, 0, 4), inside(free, TREE, 0, 64)
    assert [heard(one) for one in (small, large)] == ["ready\n", "ready\n"]
    assert [heard(one) for one in (small, large)] == ["held\n", "held\n"]
    assert free.memory().used_bytes >= 64 * MIB
    assert free.memory().limit_bytes is None
    assert (limited.memory().oom_kills, free.memory().oom_kills) == (0, 0)


def test_forks_end_at_the_limit(make: Any, inside: Any) -> None:
    """The kernel refuses the process that would be one too many."""
    leaf = make(pids=30)
    assert heard(inside(leaf, FORKS)) == "29\n"
    assert len(leaf.members()) == 30


def test_five_hundred_are_gone_at_once(make: Any, inside: Any, eventually: Any) -> None:
    """One write ends a tree of five hundred sessions."""
    leaf = make()
    main = inside(leaf, TREE, 500, 0)
    assert heard(main) == "ready\n"
    assert len(leaf.members()) == 501
    leaf.kill()
    eventually(leaf.empty, 30)
    assert main.wait(30) == -signal.SIGKILL


def test_a_crowd_is_told_to_move(given: Given) -> None:
    """Beside another process there is a kill, no limit, and a sentence on what to do."""
    other = enter(given.folder, ["sleep", "1000"], stdout=subprocess.DEVNULL)
    try:
        told = given.survey()
    finally:
        other.kill()
        other.wait(30)
    assert told["levers"] == [str(given.folder), None, None]
    assert f"other processes are in {given.folder} beside this one" in told["reasons"][0]
    assert "systemd-run --user --scope -p Delegate=yes" in told["reasons"][0]


def test_a_runner_takes_its_tree_along(given: Given, tmp_path: Path, eventually: Any) -> None:
    """Killed with SIGKILL: its worker and a daemon that hid are gone, though nobody comes after.

    The worker's leaf is beside the runner's cgroup, not below it.
    """
    (tmp_path / "litters.py").write_text(LITTERS)
    spec = {"name": "vm", "command": [sys.executable, "litters.py"], "resources": {"pids": 50}}
    run = given.supervise(tmp_path, spec)
    left = tmp_path / "left.txt"
    eventually(lambda: left.exists() and left.read_text().endswith("\n"), 90)
    hidden = int(left.read_text())
    leaf = standing(hidden)
    assert leaf.parent == given.folder
    assert leaf.name.startswith("supervise-vm")
    assert standing(run.pid) == given.folder / f"supervise-runner-{run.pid}"
    assert (leaf / "pids.max").read_text() == "50\n"
    runners = given.folder / f"supervise-runner-{run.pid}/cgroup.procs"
    eventually(lambda: len(runners.read_text().split()) > 1, 30)  # the guard is born
    further = steps(tmp_path) + 10
    eventually(lambda: steps(tmp_path) > further, 60)
    run.kill()
    run.communicate(timeout=30)
    eventually(lambda: not (leaf / "cgroup.procs").read_text(), 30)
    assert not Path(f"/proc/{hidden}/exe").exists()
