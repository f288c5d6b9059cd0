"""What a worker is given besides its command, and what becomes of it at the end of the run."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.core.causes import State
from supervisor.runner import outfit as module
from supervisor.runner.home import JobFolder
from supervisor.runner.outfit import Outfit
from workers import protocol


class Tier:
    """A memory tier that writes down what is done to it."""

    folder = Path("/memory")

    def __init__(self, *, fails: bool = False) -> None:
        self.done: list[str] = []
        self._fails = fails

    def environment(self) -> dict[str, str]:
        """Two variables, or an error."""
        if self._fails:
            raise PermissionError(13, "not yours")
        return {protocol.ENV_MEMORY_TIER: str(self.folder), protocol.ENV_MEMORY_BUDGET: "5"}

    def promote(self, _disk: Any) -> None:
        """Copied to the disk, or an error."""
        if self._fails:
            raise OSError(28, "No space left on device")
        self.done.append("promote")

    def clean(self) -> None:
        """Taken away."""
        self.done.append("clean")


class Disk:
    """Does at once what it is given."""

    async def run(self, work: Any, *given: Any) -> Any:
        """Call it."""
        return work(*given)


@pytest.fixture
def warned() -> list[str]:
    """What was warned of."""
    return []


def outfit(
    tmp_path: Path,
    warned: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tier: Tier | None,
    *,
    keep: bool = False,
) -> Outfit:
    """The outfit of a job with checkpoints in `out`."""
    monkeypatch.setattr(module, "MemoryTier", SimpleNamespace(of=lambda _: tier))
    layout = SimpleNamespace(root=tmp_path / "out")
    job: Any = SimpleNamespace(
        folder=JobFolder(tmp_path / "job"), settings=SimpleNamespace(layout=layout)
    )
    return Outfit(job, warned.append, keep_scratch=keep)


def test_a_worker_learns_where_everything_is(
    tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Session, tiers and scratch folder stand in its environment, and the folder exists."""
    of_job = outfit(tmp_path, warned, monkeypatch, Tier())
    session: Any = SimpleNamespace(path=tmp_path / "session")
    told = of_job.environment(session)
    assert told == {
        protocol.ENV_SESSION: str(tmp_path / "session"),
        protocol.ENV_CHECKPOINTS: str(tmp_path / "out"),
        protocol.ENV_MEMORY_TIER: "/memory",
        protocol.ENV_MEMORY_BUDGET: "5",
        protocol.ENV_SCRATCH: str(tmp_path / "job/scratch"),
    }
    assert (tmp_path / "job/scratch").is_dir()
    assert warned == []


def test_what_cannot_be_had_is_told_once(
    tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without tmpfs and scratch folder starts all the same, at every attempt."""
    (tmp_path / "job").write_text("no folder")
    of_job = outfit(tmp_path, warned, monkeypatch, Tier(fails=True))
    for number in (1, 2):
        assert of_job.open_session(number) is None
        assert of_job.environment(None) == {protocol.ENV_CHECKPOINTS: str(tmp_path / "out")}
    assert len(warned) == 3


@pytest.mark.parametrize(
    ("state", "done"),
    [
        (State.SUCCEEDED, ["clean"]),
        (State.STOPPED, ["promote", "clean"]),
        (State.FAILED, ["promote", "clean"]),
        (State.HOLDING, ["promote", "clean"]),
    ],
)
def test_nothing_stays_in_memory(
    tmp_path: Path,
    warned: list[str],
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    done: list[str],
) -> None:
    """What success did not make idle is copied to the disk before the memory is given back."""
    tier = Tier()
    of_job = outfit(tmp_path, warned, monkeypatch, tier)
    disk: Any = Disk()
    asyncio.run(of_job.put_away(state, disk))
    assert tier.done == done


def test_what_the_disk_refuses_stays_in_memory(
    tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs no snapshot: it stays where it is, and that is told."""
    tier = Tier(fails=True)
    disk: Any = Disk()
    asyncio.run(outfit(tmp_path, warned, monkeypatch, tier).put_away(State.STOPPED, disk))
    assert tier.done == []
    assert "stays in memory, in /memory" in warned[0]


@pytest.mark.parametrize(
    "given",  # how it ended, whether the folder was asked for, whether it is left
    [
        (State.SUCCEEDED, False, False),
        (State.SUCCEEDED, True, True),
        (State.FAILED, False, True),
        (State.STOPPED, False, True),
    ],
)
def test_scratch_goes_with_success_alone(
    tmp_path: Path,
    warned: list[str],
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[State, bool, bool],
) -> None:
    """After a failure it tells what went wrong; after success somebody must want it."""
    state, keep, left = given
    of_job = outfit(tmp_path, warned, monkeypatch, None, keep=keep)
    of_job.environment(None)
    half_done = tmp_path / "job/scratch/half-done"
    half_done.write_text("x")
    disk: Any = Disk()
    asyncio.run(of_job.put_away(state, disk))
    assert half_done.exists() is left
