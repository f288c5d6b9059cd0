"""Who looks at an attempt: as many as its job needs, from its spawn to its end."""

import asyncio
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.core.activity import GpuActivity
from supervisor.core.evidence import DeadlineName, GpuUse
from supervisor.gpu.model import Reading
from supervisor.host.processes import ProcessId
from supervisor.process.limits import Limits
from supervisor.runner.isolation import Enclosure
from supervisor.runner.watcher import Subject, Watcher
from tests.unit.runner_fakes import FakeLoop


class Child:
    """A main process, which is this one, and a tree that the test changes."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.tree = [self.pid]

    def members(self) -> list[ProcessId]:
        """Who lives."""
        return [ProcessId(pid, 1) for pid in self.tree]


@pytest.fixture
def watcher(open_a_job: Any) -> Callable[..., Any]:
    """Watch an attempt of a job with these resources."""

    def make(leaf: Any = None, *, held: bool = False, **resources: Any) -> Any:
        loop: Any = FakeLoop()
        loop.job = open_a_job(resources=resources)
        loop.job.folder.attempt(1).path.mkdir(parents=True)
        loop.spare = lambda _, work: work
        loop.show_progress = lambda *_: None
        loop.was_held_up = lambda _: None
        child = Child()
        live: Any = SimpleNamespace(child=child)
        subject = Subject(1, live, Enclosure(leaf, Limits(), 0, memory_held=held))
        checkpoints: Any = SimpleNamespace(unsettled=False)
        gpus: Any = SimpleNamespace(held=None, title=str)
        one = Watcher(loop, subject, checkpoints, gpus)
        return SimpleNamespace(one=one, loop=loop, child=child)

    return make


@pytest.mark.parametrize(
    ("resources", "held", "looks"),
    [
        ({}, False, (False, False)),
        ({"gpus": 1}, False, (True, False)),
        ({"memory": "1GiB"}, False, (False, True)),
        ({"memory": "1GiB"}, True, (False, False)),
    ],
)
def test_nobody_looks_at_what_is_not_asked_for(
    watcher: Any, resources: dict[str, Any], looks: tuple[bool, bool], *, held: bool
) -> None:
    """No GPU, no probe; and where the kernel keeps the memory in bounds, nobody samples it."""
    one = watcher(held=held, **resources).one
    assert (one._gpu is not None, one._memory is not None) == looks


def test_all_of_them_begin_and_end_together(watcher: Any) -> None:
    """After the end nobody looks any more."""

    async def main() -> None:
        seen = watcher(gpus=1, memory="100GiB")
        seen.one._gpu.run = seen.one._memory.run = asyncio.Event().wait
        seen.one.start()
        tasks = seen.one._tasks
        assert len(tasks) == 3
        seen.one.end()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    asyncio.run(main())


def test_who_was_ever_seen_is_known(watcher: Any) -> None:
    """A process that ended may still be on a GPU, or in the kernel's log."""
    seen = watcher()
    assert seen.one.known == {os.getpid()}
    seen.child.tree = [5, 6]
    assert seen.one.pids() == {5, 6}
    seen.child.tree = [6, 7]
    assert seen.one.pids() == {6, 7}
    assert seen.one.known == {os.getpid(), 5, 6, 7}
    assert seen.one.main_pid == os.getpid()


@pytest.mark.parametrize(
    ("leaf", "frozen"),
    [
        (None, False),
        (SimpleNamespace(frozen=lambda: False), False),
        (SimpleNamespace(frozen=lambda: True), True),
    ],
)
def test_its_group_says_whether_it_is_frozen(watcher: Any, leaf: Any, *, frozen: bool) -> None:
    """Without one nobody can freeze it as a whole."""
    assert watcher(leaf).one.frozen() is frozen


def test_a_job_without_gpus_shows_none(watcher: Any) -> None:
    """Neither to the judgement nor to people."""
    one = watcher().one
    assert (one.gpus(), one.gpu_lines(), one.gpu_curve()) == ((), [], ())


def test_what_its_gpus_did_is_handed_on(watcher: Any) -> None:
    """To the judgement, to the evidence of a hang, and to that of the end."""
    one = watcher(gpus=1).one
    one._gpu.latest = (Reading("GPU-a", utilization=50.0),)
    one._gpu.curve = [GpuUse(1.0, 7)]
    assert one.gpus() == (GpuActivity("GPU-a", 50.0, None, None, None),)
    assert one.gpu_lines()[0].startswith("GPU-a GPU-a: utilization 50.0 %")
    assert one.gpu_curve() == (GpuUse(1.0, 7),)


def test_the_last_words_are_read_after_the_end(watcher: Any) -> None:
    """What the worker wrote when nobody looked any more counts as its progress."""

    async def main() -> None:
        seen = watcher()
        seen.loop.job.folder.attempt(1).log.write_text("step 3/9\n")
        await seen.one.last_words()
        assert [event.step for event in seen.loop.fed if hasattr(event, "step")] == [3]
        seen.one._observer._checkpoints.look_now = seen.one.last_words
        await seen.one.look_at_everything()

    asyncio.run(main())


def test_each_look_reaps_orphans_and_has_an_eye_on_silence(watcher: Any) -> None:
    """In the rhythm of the observer, which costs nothing while there is neither."""
    seen = watcher()
    asked: list[str] = []
    seen.one._orphans = SimpleNamespace(reap=lambda: asked.append("reap"))
    seen.one._suspicion = SimpleNamespace(
        look=lambda: asked.append("look"), judge=lambda name: f"judged {name}"
    )
    seen.one._at_each_look()
    assert asked == ["reap", "look"]
    assert seen.one.judge(DeadlineName.HEARTBEAT) == "judged heartbeat"
