"""What holds a worker together, what the kernel did to it, and what an earlier runner left."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.core.evidence import Oom
from supervisor.host import identity, processes
from supervisor.host.cgroup import Leaf, MemoryFacts, Offer, survey
from supervisor.host.kernel_log import KernelLog
from supervisor.process.limits import Limits
from supervisor.runner import isolation
from supervisor.runner.isolation import FIRST_VICTIM, LAST_VICTIM, Enclosure, Isolation, owner_name
from workers.protocol import ENV_OWNER

MIB = 1 << 20
NOBODY = (1 << 22) - 3  # pids below the kernel's highest, which no host has ever counted up to
SLEEPS = "import signal; print('on', flush=True); signal.pause()"


@pytest.fixture(autouse=True)
def _strangers_are_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in what is tested here must not end processes of the host: it sees only ours."""
    everybody, groups = processes.snapshot, isolation.leftovers

    def ours() -> dict[int, processes.Stat]:
        return {pid: one for pid, one in everybody().items() if one.ppid == os.getpid()}

    def named(offer: Offer, prefix: str) -> list[Leaf]:
        found = groups(offer, prefix)
        strange = [leaf.name for leaf in found if not leaf.name.startswith("supervise-net-")]
        assert not strange, f"would have ended groups of others: {strange}"
        return found

    monkeypatch.setattr(processes, "snapshot", ours)
    monkeypatch.setattr(isolation, "leftovers", named)


@pytest.fixture
def isolated(open_a_job: Any) -> Iterator[Callable[..., Any]]:
    """Give the isolation of a job with these resources; `said` has its warnings."""
    made: list[Isolation] = []

    def make(**resources: Any) -> Any:
        said: list[str] = []
        job = open_a_job(resources=resources)
        made.append(Isolation(job, said.append))
        return SimpleNamespace(one=made[-1], said=said, job=job)

    yield make
    for one in made:
        one.close()


@pytest.fixture
def sleeper() -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Start a process that was started for a job; it is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(owner: str) -> "subprocess.Popen[str]":
        env = os.environ | {ENV_OWNER: owner}
        argv = [sys.executable, "-ISc", SLEEPS]
        one = subprocess.Popen(
            argv, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(one)
        assert one.stdout is not None
        one.stdout.readline()
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def offer() -> Offer:
    """What this host offers; skip where it is nothing."""
    found = survey()
    if found.kill is None:
        pytest.skip("no cgroup can be made and killed here: " + "; ".join(found.reasons))
    return found


def enclosure(memory: MemoryFacts | None, host_kills_before: int = 0) -> tuple[Any, list[str]]:
    """An attempt's bounds after its end, and whether they were removed."""
    removed: list[str] = []
    leaf: Any = None
    if memory is not None:
        leaf = SimpleNamespace(memory=lambda: memory, remove=lambda: removed.append("removed"))
    return Enclosure(leaf, Limits(), host_kills_before, memory_held=False), removed


def test_each_attempt_has_bounds_of_its_own(isolated: Any) -> None:
    """Made before the worker, by a name that tells job and attempt; gone after it."""
    offer()
    seen = isolated(memory="64MiB", cpus=1, open_files=99)
    first, second = seen.one.enclose(1), seen.one.enclose(2)
    try:
        assert first.leaf.name.startswith(f"supervise-{owner_name(seen.job)}-1-")
        assert first.leaf.name != second.leaf.name
        assert all(path.exists() for path in first.leaf.entries)
        assert first.memory_held is (seen.one._offer.memory is not None)
        assert (first.limits.open_files, first.limits.core_dumps) == (99, False)
        assert first.limits.oom_score_adj == FIRST_VICTIM
        assert len(first.limits.cpus) in {0, 1}  # none where the host has only one
    finally:
        assert seen.one.opened(second, ()) == (None, 0)
        seen.one.opened(first, ())
    assert not any(path.exists() for path in first.leaf.entries)
    assert seen.said == []


def test_without_control_groups_a_tree_is_swept(isolated: Any) -> None:
    """No leaf and no complaint, but for a limit that nothing can keep; that is said once."""
    seen = isolated(pids=40, memory="64MiB")
    seen.one._offer = Offer()
    for number in (1, 2):
        one = seen.one.enclose(number)
        assert (one.leaf, one.memory_held) == (None, False)
    assert seen.said == ["resources.pids cannot be kept on this host: see `supervise doctor`"]


def test_a_group_that_cannot_be_made_is_said_once(isolated: Any, tmp_path: Path) -> None:
    """The attempt starts all the same."""
    seen = isolated()
    seen.one._offer = Offer(kill=tmp_path / "gone" / "deeper")
    assert seen.one.enclose(1).leaf is None
    assert seen.one.enclose(2).leaf is None
    assert len(seen.said) == 1
    assert "no control group for the worker" in seen.said[0]


def test_limits_that_the_kernel_does_not_take_are_watched_instead(
    isolated: Any, tmp_path: Path
) -> None:
    """A plain folder has no memory.max: the group is used, and the memory is sampled."""
    seen = isolated(memory="64MiB")
    seen.one._offer = Offer(memory=tmp_path, version_memory=2)
    one = seen.one.enclose(1)
    assert (one.leaf is not None, one.memory_held) == (True, False)
    assert "does not take the worker's limits" in seen.said[0]


@pytest.mark.parametrize("at_limit", [False, True])
def test_the_groups_own_count_of_kills_is_believed(isolated: Any, *, at_limit: bool) -> None:
    """Whether its own limit was reached, or the host's memory was at its end."""
    one, removed = enclosure(MemoryFacts(64 * MIB, 63 * MIB, 0, 2, at_limit, "cgroup v1"))
    told = Oom(2, at_limit, "cgroup v1", 64 * MIB, 63 * MIB)
    assert isolated().one.opened(one, ()) == (told, 0)
    assert removed == ["removed"]


def test_a_group_without_kills_rules_them_out(isolated: Any) -> None:
    """Whatever the kernel killed elsewhere meanwhile: it was none of ours."""
    one, removed = enclosure(MemoryFacts(source="cgroup v2"), host_kills_before=-5)
    assert isolated().one.opened(one, (NOBODY,)) == (None, 0)
    assert removed == ["removed"]


@pytest.fixture
def kernel_says() -> Iterator[Callable[[str], object]]:
    """Give a way to write into the kernel's log."""
    try:
        device = os.open("/dev/kmsg", os.O_WRONLY)
    except OSError as error:
        pytest.skip(f"/dev/kmsg cannot be written here: {error.strerror}")
    yield lambda text: os.write(device, f"<4>{text}\n".encode())
    os.close(device)


@pytest.mark.parametrize(
    ("prefix", "of_limit"), [("Memory cgroup out", True), ("Out", False)]
)  # fmt: skip
@pytest.mark.parametrize("facts", [None, MemoryFacts()])
def test_the_kernels_log_names_whom_it_killed(
    isolated: Any, kernel_says: Any, prefix: str, facts: MemoryFacts | None, *, of_limit: bool
) -> None:
    """Where no group counts: by pid, of this very tree, and only since the attempt began."""
    seen = isolated()
    kernel_says(f"{prefix} of memory: Killed process {NOBODY} (python)")
    before = seen.one.enclose(1)
    kernel_says(f"{prefix} of memory: Killed process {NOBODY + 1} (python)")
    one, _ = enclosure(facts, host_kills_before=-5)
    one = replace(one, victims_before=before.victims_before)
    told = seen.one.opened(one, (NOBODY, NOBODY + 1))
    assert told == (Oom(1, of_limit, "the kernel's log names it"), 0)
    kernel_says(f"{prefix} of memory: Killed process {NOBODY + 1} (python)")
    assert seen.one.opened(one, (NOBODY,)) == (None, 0)
    seen.one.opened(before, ())


def test_where_nobody_says_whom_the_hosts_count_is_told(isolated: Any, tmp_path: Path) -> None:
    """It is a suspicion and no more: how many the kernel killed meanwhile, on the whole host."""
    seen = isolated()
    seen.one._log = KernelLog(tmp_path / "no kmsg")
    one, _ = enclosure(None, identity.oom_kills() - 3)
    assert seen.one.opened(one, (NOBODY,)) == (None, 3)


def test_a_runner_ends_what_the_last_one_left_and_nothing_else(isolated: Any, sleeper: Any) -> None:
    """By the name of job and state folder: another job's process and another state's survive."""
    seen = isolated()
    ours = sleeper(owner_name(seen.job))
    other_job = sleeper(f"x{owner_name(seen.job)}")
    elsewhere = SimpleNamespace(id=seen.job.id, state_dir=Path("/elsewhere"))
    other_state = sleeper(owner_name(elsewhere))
    assert asyncio.run(seen.one.reclaim(count().__next__)) == ()
    assert ours.wait(20) == -signal.SIGKILL
    assert (other_job.poll(), other_state.poll()) == (None, None)


def test_groups_of_the_last_runner_are_emptied_and_removed(isolated: Any, sleeper: Any) -> None:
    """Also of one that hides its environment; those of another state folder stay."""
    place, token = offer(), uuid.uuid4().hex[:8]
    seen = isolated()
    left = Leaf.make(place, f"supervise-{owner_name(seen.job)}-7-{token}")
    other = Leaf.make(place, f"supervise-{seen.job.id}.00000000-7-{token}")
    try:
        hidden, strange = sleeper("nobody"), sleeper("nobody")
        for leaf, one in ((left, hidden), (other, strange)):
            for entry in leaf.entries:
                entry.write_text(str(one.pid))
        assert asyncio.run(seen.one.reclaim(count().__next__)) == ()
        assert hidden.wait(20) == -signal.SIGKILL
        assert not any(entry.exists() for entry in left.entries)
        assert [one.pid for one in other.members()] == [strange.pid]
        strange.kill()
        strange.wait(20)
    finally:
        for leaf in (left, other):
            leaf.kill()
            leaf.remove()


def test_what_does_not_end_is_named(
    isolated: Any, sleeper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded; the job holds for it."""
    seen = isolated()
    ours = sleeper(owner_name(seen.job))
    monkeypatch.setattr(identity, "kill", lambda _: None)
    assert asyncio.run(seen.one.reclaim(count(0, 20).__next__)) == (ours.pid,)


PROTECTED = """
from pathlib import Path
from types import SimpleNamespace
from supervisor.runner.isolation import Isolation
file = Path("/proc/self/oom_score_adj")
before = file.read_text()
try:
    file.write_text("-1")
    print("may")
except OSError:
    print("may not")
Isolation.protect_runner(SimpleNamespace())
print(int(before), int(file.read_text()))
"""


def test_the_runner_is_the_kernels_last_victim() -> None:
    """Where it may be; without the right to it, it stays what it was."""
    argv = [sys.executable, "-c", PROTECTED]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    may, figures = said.splitlines()
    before, after = map(int, figures.split())
    assert after == (LAST_VICTIM if may == "may" else before)


def test_the_next_attempts_group_is_made_ahead_with_its_launcher_in_it(
    isolated: Any, sleeper: Any
) -> None:
    """It is used for that attempt and no other, and gone at the end, used or not."""
    offer()
    seen = isolated()
    waiting = sleeper("a launcher")
    seen.one.prepare(2, waiting.pid)
    seen.one.prepare(3, waiting.pid)  # there is one already
    second = seen.one.enclose(2)
    assert [one.pid for one in second.leaf.members()] == [waiting.pid]
    third = seen.one.enclose(3)
    assert third.leaf.name != second.leaf.name
    seen.one.prepare(5, waiting.pid)
    fourth = seen.one.enclose(4)
    assert fourth.leaf.members() == []
    waiting.kill()
    waiting.wait(20)
    for one in (second, third, fourth):
        seen.one.opened(one, ())
    seen.one.close()
    assert not [one for one in survey().kill.iterdir() if owner_name(seen.job) in one.name]
