"""Whose limit an out-of-memory kill came from, on pictures of a version 2 hierarchy."""

from pathlib import Path

import pytest

from supervisor.host.cgroup_memory import MemoryFacts, above, facts

MIB = 1 << 20


@pytest.fixture
def leaf(tmp_path: Path) -> Path:
    """Give a leaf in a scope in a slice, none of which was ever at its limit; the root has none."""
    folder = tmp_path / "a.slice/b.scope/leaf"
    folder.mkdir(parents=True)
    for one in (folder, folder.parent, folder.parent.parent):
        struck(one, ooms=0)
        (one / "memory.max").write_text("max\n")
    (folder / "memory.events").write_text("oom 0\noom_kill 0\n")
    (folder.parent / "memory.max").write_text(f"{200 * MIB}\n")
    return folder


def struck(folder: Path, ooms: int) -> None:
    """Have a cgroup say how often it was at its limit."""
    (folder / "memory.events.local").write_text(f"low 0\nhigh 0\nmax 7\noom {ooms}\noom_kill 0\n")


def test_only_those_that_can_be_limited_are_asked(leaf: Path, tmp_path: Path) -> None:
    """The cgroups above are read up to the root, which counts nothing; the nearest comes first."""
    struck(leaf.parent, ooms=3)
    assert list(above(leaf).items()) == [(leaf.parent, 3), (leaf.parent.parent, 0)]


def test_the_limit_of_a_cgroup_around_it_is_told(leaf: Path) -> None:
    """A kill for the limit of the scope names the scope and its limit, not the host's memory."""
    before = above(leaf)
    (leaf / "memory.events").write_text("oom 0\noom_kill 2\n")
    struck(leaf.parent, ooms=1)
    source = f"cgroup v2: the limit of {leaf.parent}, around it"
    expected = MemoryFacts(limit_bytes=200 * MIB, oom_kills=2, at_limit=True, source=source)
    assert expected == facts(leaf, 2, before)


@pytest.mark.parametrize("ooms", [0, 4])
def test_what_happened_before_is_somebody_elses(leaf: Path, ooms: int) -> None:
    """A scope that was at its limit before this attempt, or never, is not why it was killed."""
    struck(leaf.parent, ooms)
    before = above(leaf)
    (leaf / "memory.events").write_text("oom 0\noom_kill 1\n")
    found = facts(leaf, 2, before)
    assert (found.oom_kills, found.at_limit, found.source) == (1, False, "cgroup v2")


def test_its_own_limit_comes_first(leaf: Path) -> None:
    """At its own limit nobody else is to blame; without a kill nobody is."""
    before = above(leaf)
    struck(leaf.parent, ooms=1)
    assert not facts(leaf, 2, before).at_limit
    (leaf / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert (facts(leaf, 2, before).at_limit, facts(leaf, 2, before).source) == (True, "cgroup v2")
