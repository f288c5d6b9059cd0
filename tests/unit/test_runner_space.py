"""Room on a job's disks: a warning before it is gone, patience when it is."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.host.space import Space
from supervisor.journal import JournalUnavailable
from supervisor.runner import space as module
from supervisor.runner.space import Disks

GIB = 1 << 30


class Host:
    """The file systems, as a test says: one for the job's folder, one for all else."""

    def __init__(self, tmp_path: Path) -> None:
        self.own = tmp_path
        self.free: dict[str, int] = {}
        self.total = 100 * GIB
        self.lacks: list[str | None] = []
        self.asked: list[int] = []
        self.broken = False

    def space(self, folder: Path) -> Space:
        """What is free there."""
        if self.broken:
            raise OSError(5, "Input/output error")
        return Space(folder, self.free.get(folder.name, 50 * GIB), self.total, None)

    def room(self, _folder: Path, need_bytes: int) -> str | None:
        """The next of the answers that the test has given; then there is room."""
        self.asked.append(need_bytes)
        return self.lacks.pop(0) if self.lacks else None


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Put these file systems under the module."""
    made = Host(tmp_path)
    monkeypatch.setattr(module, "space", made.space)
    monkeypatch.setattr(module, "room", made.room)
    monkeypatch.setattr(module, "same_file_system", lambda folders: [(one,) for one in folders])
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0)
    return made


@pytest.fixture
def disks(open_a_job: Any, host: Host) -> Any:
    """The disks of a job without checkpoints: its state, and its folder. `said` has warnings."""

    def make(**fields: Any) -> Any:
        said: list[str] = []
        one: Any = Disks(open_a_job(**fields), said.append)
        return SimpleNamespace(one=one, said=said)

    return make


def test_it_warns_once_and_again_after_there_was_room(disks: Any, host: Host) -> None:
    """A warning a minute would be read by nobody; one for each time it happens is."""
    seen = disks()
    for free, warnings in ((50, 0), (0, 1), (0, 1), (50, 1), (0, 2)):
        host.free = {"state": free * GIB}
        seen.one._look()
        assert len(seen.said) == warnings
    assert seen.said[0].startswith("disk space runs low: 0 B free for ")
    assert seen.said[0].endswith("/state; 1.0 GiB are wanted")


def test_each_disk_is_told_of(disks: Any, host: Host) -> None:
    """The state's and the job's own, and that of the checkpoints."""
    resume = {"env": {"FROM": "{path}"}}
    seen = disks(checkpoint={"dir": "out", "glob": "*.pt"}, resume=resume)
    host.total = 0  # one that does not say
    seen.one._look()
    assert seen.said == []
    host.total, host.free = 100 * GIB, dict.fromkeys(("state", "out", host.own.name), 0)
    seen.one._look()
    assert len(seen.said) == 3


def test_the_next_checkpoint_is_reckoned_with(
    disks: Any, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two more of the size of the last one that is known: that much is wanted, half is needed."""
    seen = disks()
    sizes = [0, 40 * GIB, None]
    known = [SimpleNamespace(size_bytes=one) for one in sizes]
    journal = SimpleNamespace(checkpoints=lambda _: known)
    monkeypatch.setattr(seen.one, "_job", SimpleNamespace(journal=journal, id="net"))
    asyncio.run(seen.one.wait_for_room())
    assert host.asked == [40 * GIB, 40 * GIB]
    seen.one._look()
    assert len(seen.said) == 2


def test_a_journal_that_refuses_changes_nothing(
    disks: Any, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be on the very disk that is full."""

    def refuse(_: str) -> None:
        raise JournalUnavailable(Path("journal"), "disk full")

    seen = disks()
    journal = SimpleNamespace(checkpoints=refuse)
    monkeypatch.setattr(seen.one, "_job", SimpleNamespace(journal=journal, id="net"))
    asyncio.run(seen.one.wait_for_room())
    assert host.asked == [GIB // 2, GIB // 2]


def test_a_disk_that_fails_is_not_this_ones_to_tell(disks: Any, host: Host) -> None:
    """Whoever needs it says so."""
    seen = disks()
    host.broken = True
    seen.one._look()
    assert seen.said == []


def test_it_waits_until_there_is_room_and_says_each_reason_once(disks: Any, host: Host) -> None:
    """It goes on by itself, and a person can read why it does not."""
    seen = disks()
    host.lacks = ["full", "full", "read-only", None, "other full", None]
    asyncio.run(seen.one.wait_for_room())
    assert host.lacks == []
    words = [one.removeprefix("waiting for disk space: ") for one in seen.said]
    assert words == ["full", "read-only", "other full"]


def test_the_wait_grows_up_to_a_bound(
    disks: Any, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon at first, then seldom: each look writes a little."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    seen = disks()
    monkeypatch.setattr(module, "FIRST_WAIT_S", 1.0)
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=pause))
    host.lacks = ["full"] * 7
    asyncio.run(seen.one.wait_for_room())
    assert pauses[:-1] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_wait_can_be_ended(disks: Any, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C cancels it, whatever the disk does."""
    monkeypatch.setattr(module, "FIRST_WAIT_S", 1000.0)
    seen = disks()
    host.lacks = ["full"] * 100

    async def main() -> None:
        said = asyncio.Event()
        seen.one._warn = lambda _: said.set()
        waiting = asyncio.create_task(seen.one.wait_for_room())
        await said.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        seen.one.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_the_watch_looks_at_once_and_again(
    disks: Any, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is low when the job begins is told of before anything is lost."""
    monkeypatch.setattr(module, "LOOK_S", 0)
    seen = disks()
    host.free = {"state": 0}

    async def main() -> None:
        twice = asyncio.Event()

        def warn(text: str) -> None:
            seen.said.append(text)
            host.free = {host.own.name: 0} if len(seen.said) == 1 else {}
            if len(seen.said) == 2:
                loop.call_soon_threadsafe(twice.set)

        loop = asyncio.get_running_loop()
        seen.one._warn = warn
        watching = asyncio.create_task(seen.one.watch())
        await asyncio.wait_for(twice.wait(), 20)
        watching.cancel()
        seen.one.close()

    asyncio.run(main())
    assert len(seen.said) == 2


def test_which_disk_is_full_now(disks: Any, host: Host) -> None:
    """Asked of each, for no room at all: what a checkpoint would need is another question."""
    seen = disks()
    host.lacks = [None, "full"]
    assert asyncio.run(seen.one.full()) == ""  # by the counts there is room: nothing is tried
    host.total = 0  # these do not say
    assert asyncio.run(seen.one.full()) == "full"
    assert asyncio.run(seen.one.full()) == ""
    assert host.asked == [0, 0, 0, 0]


def test_a_disk_that_does_not_answer_is_not_waited_for(
    disks: Any, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of an attempt is concluded without it."""
    monkeypatch.setattr(module, "ANSWER_S", 0.05)

    async def never(*_: Any) -> str:
        await asyncio.Event().wait()
        return ""

    seen = disks()
    seen.one._thread = SimpleNamespace(run=never)
    assert asyncio.run(seen.one.full()) == ""


def test_a_disk_that_fills_again_and_again_is_waited_for_longer(
    disks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What seems to have room each time it is asked must not be filled in a circle."""
    waited: list[float] = []

    async def sleep(delay_s: float) -> None:
        waited.append(delay_s)

    monkeypatch.setattr(module, "FIRST_WAIT_S", 1.0)
    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    seen = disks()

    async def holds() -> None:
        for _ in range(10):
            await seen.one.wait_for_room()

    asyncio.run(holds())
    assert waited == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
