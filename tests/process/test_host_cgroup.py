"""Leaves on the real cgroups of this host; skipped, with the reason, where it offers none."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.host.cgroup import Leaf, Offer, leftovers, survey

ENTER = 'for entry in $ENTRIES; do echo 0 > "$entry" || exit 99; done; exec "$@"'
ESCAPEES = 'for i in $(seq "$1"); do setsid -f sleep 1000; done; echo ready; exec sleep 1000'
INTO = 'echo 0 > "$0"; echo in; exec sleep 1000'
DOWN = (
    "import os, subprocess, selectors, sys;"
    " from supervisor.host.cgroup import Leaf, leftovers, survey; "
)

MIB = 1 << 20


def as_nobody(code: str) -> str:
    """Code that runs as an ordinary user, after the imports that only root may read."""
    return f"{DOWN}os.setgroups([]); os.setgid(65534); os.setuid(65534); {code}"


def python(code: str, *wrapped: str) -> str:
    """Run code in another process and return what it prints."""
    # Whoever becomes another user can no longer write down what was covered.
    environment = {name: text for name, text in os.environ.items() if "COVERAGE" not in name}
    done = subprocess.run(
        [*wrapped, sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def everything() -> Offer:
    """Give what this host offers."""
    return survey()


@pytest.fixture(params=["at once", "one by one"])
def offer(request: pytest.FixtureRequest, everything: Offer) -> Offer:
    """Give each way in which a leaf's members can be killed."""
    if request.param == "at once":
        if everything.kill is None:
            pytest.skip("; ".join(everything.reasons))
        return everything
    if everything.pids is None:
        pytest.skip("; ".join(everything.reasons))
    return replace(everything, kill=None)


@pytest.fixture
def made(eventually) -> Iterator[Callable[[Offer], Leaf]]:
    """Give a way to make a leaf that is emptied and removed after the test."""
    leaves = []

    def make(offer: Offer) -> Leaf:
        leaves.append(Leaf.make(offer, f"supervise-test-1-{secrets.token_hex(4)}"))
        return leaves[-1]

    yield make
    for leaf in leaves:
        for member in leaf.members():
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        eventually(leaf.remove)


@pytest.fixture
def inside() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a way to start a command inside a leaf; it is ended and reaped after the test."""
    started = []

    def start(leaf: Leaf, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["sh", "-c", ENTER, "sh", *command],
            env={**os.environ, "ENTRIES": " ".join(map(str, leaf.entries))},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def heard(process: subprocess.Popen[str]) -> str:
    """Return the next line that a command says."""
    assert process.stdout is not None
    return process.stdout.readline()


def test_nobody_escapes_a_leaf(offer, made, inside, eventually):
    """Fifty daemons in sessions of their own are members, and all are gone after a kill."""
    leaf = made(offer)
    assert leaf.empty()
    main = inside(leaf, "sh", "-c", ESCAPEES, "sh", "50")
    assert heard(main) == "ready\n"
    eventually(lambda: len(leaf.members()) == 51)
    assert not leaf.empty()
    leaf.kill()
    eventually(leaf.empty)
    assert leaf.members() == []
    assert main.wait(20) == -signal.SIGKILL
    assert leaf.remove()
    assert not any(entry.parent.exists() for entry in leaf.entries)


def test_a_fork_bomb_stays_bounded_and_dies(offer, made, inside, eventually):
    """What forks as fast as it can stays within the pids limit, and is killed all the same."""
    if offer.pids is None:
        pytest.skip("; ".join(offer.reasons))
    leaf = made(offer)
    leaf.limit(memory_bytes=None, pids=20)
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"
    main = inside(leaf, sys.executable, "-S", "-c", bomb)
    eventually(lambda: len(leaf.members()) == 20)
    leaf.kill()
    eventually(leaf.empty)
    assert main.wait(20) == -signal.SIGKILL


def test_a_worker_may_divide_its_own_leaf(offer, made, inside, eventually):
    """Members of cgroups that a worker made below its leaf are seen, killed and removed."""
    leaf = made(offer)
    for entry in leaf.entries:
        (entry.parent / "own" / "deeper").mkdir(parents=True)
    main = inside(leaf, "sleep", "1000")
    eventually(lambda: [one.pid for one in leaf.members()] == [main.pid])
    for entry in leaf.entries:
        (entry.parent / "own" / "deeper" / "cgroup.procs").write_text(str(main.pid))
    assert [one.pid for one in leaf.members()] == [main.pid]
    assert not leaf.remove()  # as long as anybody is in it
    leaf.kill()
    eventually(leaf.empty)
    assert leaf.remove()


def test_frozen_members_are_told_and_die(everything, made, inside, eventually):
    """A leaf that is frozen says so, and is killed without waking it first."""
    if everything.kill is None:
        pytest.skip("; ".join(everything.reasons))
    leaf = made(everything)
    freeze = everything.kill / leaf.name / "cgroup.freeze"
    inside(leaf, "sleep", "1000")
    eventually(leaf.members)
    assert not leaf.frozen()
    freeze.write_text("1")
    eventually(leaf.frozen)
    leaf.kill()
    eventually(leaf.empty)


def test_the_old_freezer_does_not_keep_a_member_alive(offer, made, inside, eventually):
    """A member frozen by version 1 is told, and dies; a stranger frozen beside it stays frozen."""
    if offer.freezer is None or not os.access(offer.freezer / "cgroup.procs", os.W_OK):
        pytest.skip("no version 1 freezer that may be written")
    leaf, other = made(offer), made(offer)
    main, stranger = inside(leaf, "sleep", "1000"), inside(other, "sleep", "1000")
    eventually(lambda: leaf.members() and other.members())
    cold = offer.freezer / f"test-{secrets.token_hex(4)}"
    cold.mkdir()
    try:
        for process in (main, stranger):
            (cold / "cgroup.procs").write_text(str(process.pid))
        assert not leaf.frozen()
        (cold / "freezer.state").write_text("FROZEN")
        eventually(leaf.frozen)
        leaf.kill()
        eventually(leaf.empty)
        assert (cold / "cgroup.procs").read_text().split() == [str(stranger.pid)]
        assert other.frozen()
    finally:
        (cold / "freezer.state").write_text("THAWED")
        stranger.kill()
        stranger.wait(20)
        eventually(lambda: (cold / "cgroup.procs").read_text() == "")
        cold.rmdir()


def test_memory_beyond_the_limit_kills_and_is_told(everything, made, inside):
    """The kernel ends what grows past the limit, and its leaf says so, with peak and source."""
    if everything.memory is None:
        pytest.skip("; ".join(everything.reasons))
    leaf = made(everything)
    assert leaf.memory().limit_bytes is None
    leaf.limit(memory_bytes=64 * MIB, pids=None)
    main = inside(leaf, sys.executable, "-S", "-c", f"bytearray({MIB} * 256)")
    assert main.wait(60) == -signal.SIGKILL
    facts = leaf.memory()
    assert facts.limit_bytes == 64 * MIB
    assert facts.oom_kills >= 1
    assert facts.at_limit
    assert facts.peak_bytes is None or 60 * MIB <= facts.peak_bytes <= 64 * MIB
    assert facts.source == f"cgroup v{everything.version_memory}"


def test_a_kill_from_elsewhere_is_no_oom(everything, made, inside, eventually):
    """A worker under a limit that is killed by a person has no OOM kill in its facts."""
    if everything.memory is None:
        pytest.skip("; ".join(everything.reasons))
    leaf = made(everything)
    leaf.limit(memory_bytes=64 * MIB, pids=None)
    main = inside(leaf, "sleep", "1000")
    eventually(leaf.members)
    main.kill()
    assert main.wait(20) == -signal.SIGKILL
    assert (leaf.memory().oom_kills, leaf.memory().at_limit) == (0, False)


def test_an_impossible_limit_names_its_file(everything, made):
    """A limit that the kernel refuses raises, and the error names the file."""
    if everything.pids is None:
        pytest.skip("; ".join(everything.reasons))
    leaf = made(everything)
    with pytest.raises(OSError, match=r"pids\.max"):
        leaf.limit(memory_bytes=None, pids=-5)


def test_another_process_finds_and_ends_what_was_left(offer, made, inside, eventually):
    """A later runner finds the leaf of one that is gone by its name's beginning, and ends it."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's processes have cgroups of their own")
    leaf = made(offer)
    main = inside(leaf, "sleep", "1000")
    eventually(leaf.members)
    found = python(
        f"{DOWN}found = leftovers(survey(), {leaf.name!r});"
        " print([(one.name, [m.pid for m in one.members()]) for one in found]);"
        " [one.kill() for one in found]"
    )
    assert found == f"[({leaf.name!r}, [{main.pid}])]\n"
    assert main.wait(20) == -signal.SIGKILL
    assert leaf.remove()
    assert leftovers(offer, leaf.name) == []


def test_a_leaf_that_is_gone_is_quiet(offer, made):
    """Every question and lever of a removed leaf answers as nothing; making it twice does not."""
    leaf = made(offer)
    with pytest.raises(FileExistsError):
        Leaf.make(offer, leaf.name)
    assert all(entry.exists() for entry in leaf.entries)
    assert leaf.remove()
    leaf.kill()
    assert leaf.remove()
    assert (leaf.empty(), leaf.frozen(), leaf.members()) == (True, False, [])
    assert (leaf.memory().oom_kills, leaf.memory().source) == (0, "")


def test_an_ordinary_user_gets_reasons(everything):
    """Where a user may make no cgroup the survey says what it would take, and does not fail."""
    if os.geteuid() != 0 or everything.kill is None:
        pytest.skip("needs root, to become another user, and a hierarchy that only root may write")
    told = python(as_nobody("o = survey(); print(o.kill, o.memory, o.pids, o.reasons)"))
    assert told.startswith("None None None ('no kill of a whole cgroup, no memory limit,")
    assert "systemd-run --user --scope -p Delegate=yes" in told
    assert everything == survey()


def test_a_read_only_hierarchy_is_told_as_such(everything):
    """Where cgroups are mounted read-only, as in a container, the reason says so."""
    if os.geteuid() != 0 or everything.kill is None:
        pytest.skip("needs root and a cgroup v2 hierarchy to mount read-only")
    point = everything.kill.parent
    remount = f'mount -o remount,ro,bind {point} || exit 77; exec "$0" "$@"'
    told = python(
        f"{DOWN}o = survey(); print(o.kill, o.reasons)", "unshare", "-m", "sh", "-c", remount
    )
    assert told.startswith("None (")
    assert f"{point} is mounted read-only: start the container with" in told


def test_the_top_of_a_container_is_divided(everything, made, inside):
    """In a cgroup namespace of its own, root makes its leaves at the top of what it sees."""
    if os.geteuid() != 0 or everything.kill is None:
        pytest.skip("needs root and a cgroup v2 hierarchy to mount again")
    leaf = made(everything)
    below = (
        f"{DOWN}offer = survey(); leaf = Leaf.make(offer, 'supervise-inner-1-00000000');"
        " print(offer.kill, leaf.entries[0].exists(), leaf.empty(), leaf.remove())"
    )
    point = everything.kill.parent
    mount = f'umount {point} && mount -t cgroup2 none {point} || exit 77; exec "$0" "$@"'
    wrapped = ["unshare", "-C", "-m", "sh", "-c", mount, sys.executable, "-c", below]
    main = inside(leaf, "env", "-C", str(Path(__file__).parents[2]), *wrapped)
    assert heard(main) == f"{point} True True True\n"
    assert main.wait(20) == 0


def test_an_ordinary_user_may_divide_what_was_given(everything):
    """In a cgroup that was handed to it, an ordinary user makes a leaf, fills and kills it."""
    if os.geteuid() != 0 or everything.kill is None:
        pytest.skip("needs root, to hand a cgroup to another user")
    given = everything.kill.parent / f"test-{secrets.token_hex(4)}"
    given.mkdir()
    try:
        for path in (given, given / "cgroup.procs", given / "cgroup.subtree_control"):
            os.chown(path, 65534, 65534)
        told = python(
            f"open('{given}/cgroup.procs', 'w').write('0');"
            + as_nobody(
                "offer = survey(); leaf = Leaf.make(offer, 'supervise-test-1-00000000');"
                " entry = leaf.entries[0];"
                f" child = subprocess.Popen(['sh', '-c', {INTO!r}, str(entry)],"
                " stdout=subprocess.PIPE);"
                " child.stdout.readline(); pids = [one.pid for one in leaf.members()];"
                " leaf.kill(); child.wait(20);"
                " print(offer.kill, pids == [child.pid], child.returncode, leaf.remove())"
            )
        )
        assert told == f"{given} True -9 True\n"
    finally:
        for runner in given.glob("supervise-runner-*"):  # it stepped aside to hand controllers down
            runner.rmdir()
        given.rmdir()
