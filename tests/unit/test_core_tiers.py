"""What the core makes of snapshots in memory, which a restart of the host takes away."""

from dataclasses import replace

import pytest

from supervisor.core.causes import State
from supervisor.core.effects import EndRun, SpawnAttempt
from supervisor.core.events import CheckpointChosen, CheckpointVerified
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal.codec import decode, encode
from tests.unit.core_rows import BASE, NOW, QUEUED, verified

FROM_ZERO = CheckpointChosen(None, None)


def in_memory(at: int) -> CheckpointVerified:
    """A snapshot of this step that verified."""
    return replace(verified(at), tier="memory", pinned=False)


def run(state: JobState, *events: CheckpointVerified | CheckpointChosen) -> JobState:
    """The state after these."""
    for event in events:
        state, _ = step(state, event, NOW)
    return state


def test_a_snapshot_is_progress_like_any_checkpoint() -> None:
    """It forgives failures and lifts the ceiling, but it is not what must be found on disk."""
    after = run(QUEUED, in_memory(500))
    assert (after.best_checkpoint, after.disk_checkpoint) == (500, 400)
    assert (after.failures, after.ceiling) == ((), None)
    running = replace(BASE, phase=State.RUNNING)
    assert run(running, in_memory(350)).saved_step == 350


def test_what_is_on_disk_counts_also_behind_a_newer_snapshot() -> None:
    """The disk's newest step is known by itself, in whatever order the two are told."""
    running = replace(BASE, phase=State.RUNNING)
    for events in ((in_memory(600), verified(500)), (verified(500), in_memory(600))):
        after = run(running, *events)
        assert (after.best_checkpoint, after.disk_checkpoint) == (600, 500)


@pytest.mark.parametrize("ceiling", [None, 400])
def test_losing_all_that_was_only_in_memory_means_the_beginning(ceiling: int | None) -> None:
    """A reboot before the first checkpoint on disk: the job starts anew and does not wait."""
    state = replace(QUEUED, disk_checkpoint=None, ceiling=ceiling)
    after, effects = step(state, FROM_ZERO, NOW)
    assert (after.phase, effects) == (State.RUNNING, (SpawnAttempt(4, None, None),))


def test_losing_memory_does_not_excuse_a_disk_tier_that_is_gone() -> None:
    """There was one on disk: it never starts from zero by itself, and names the disk's step."""
    state = run(replace(QUEUED, ceiling=None), in_memory(500))
    after, effects = step(state, FROM_ZERO, NOW)
    assert (after.phase, effects) == (State.HOLDING, (EndRun(State.HOLDING),))
    assert "the last at step 400" in after.why


def test_events_of_earlier_versions_are_of_the_disk() -> None:
    """A journal that knew no tiers is read as what it was."""
    for event in (verified(5), CheckpointChosen("c5", 5)):
        old = encode(event).replace(',"tier":"disk"', "")
        assert "tier" not in old
        assert decode(type(event).__name__, old) == event
