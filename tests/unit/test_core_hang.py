"""Slow is not hung: the judgement over a worker that says nothing."""

from dataclasses import replace

import pytest

from supervisor.core.activity import Use, over, starvation, use_of
from supervisor.core.hang import (
    LOOK_AGAIN_S,
    TABLE,
    Activity,
    GpuActivity,
    judge,
    window_s,
)

TIMEOUT_S = 300.0
JUST_OVER_S = 300.5
SLEEPS = Activity(window_s=30.0, cpu_share=0.002, processes=1)
COMPUTES = replace(SLEEPS, cpu_share=1.0, runnable=(7,))


def gpu(utilization: float | None, watts: float | None, traffic: float | None) -> GpuActivity:
    """A GPU whose limit is 700 W."""
    return GpuActivity("GPU-1", utilization, traffic, watts, 700.0)


IDLE_GPU = gpu(0, 70, 0)
SPINS = gpu(100, 120, 0)  # as an H100 in a stuck collective
TRAINS = gpu(97, 560, 45)

# What is slow, and for how many timeouts of silence it is left alone.
SLOW = {
    "compiling: one compiler after the other": (4, replace(COMPUTES, births=9, faults_per_s=9e3)),
    "compiling within the process": (4, replace(COMPUTES, faults_per_s=4_000)),
    "reading a data set": (4, replace(SLEEPS, io_bytes_per_s=20e6)),
    "mapping a big file, page by page": (4, replace(SLEEPS, faults_per_s=400)),
    "writing a checkpoint, slowly": (4, replace(SLEEPS, io_bytes_per_s=300e3)),
    "in fsync on a slow disk": (4, replace(SLEEPS, uninterruptible=(7,))),
    "a script of many short programs": (4, replace(SLEEPS, births=1)),
    "evaluating silently on the GPU": (4, replace(COMPUTES, gpus=(TRAINS,))),
    "a memory-bound kernel at low power": (4, replace(SLEEPS, gpus=(gpu(100, 180, 60),))),
    "a badly fed training at 36 % power": (2, replace(COMPUTES, gpus=(gpu(99, 250, 2),))),
    "one GPU works, others wait for it": (4, replace(COMPUTES, gpus=(SPINS, TRAINS))),
    "small kernels with gaps between them": (
        2,
        replace(COMPUTES, gpus=(replace(SPINS, lowest_utilization=80),)),
    ),
    "one long computation on the CPU": (2, COMPUTES),
    "a GPU whose driver gives no figures": (2, replace(SLEEPS, gpus=(gpu(None, None, None),))),
    "busy, but its power is unknown": (2, replace(COMPUTES, gpus=(gpu(100, None, 0),))),
    "busy, but its memory traffic is unknown": (2, replace(COMPUTES, gpus=(gpu(100, 100, None),))),
    "swapping on a host without memory": (
        4,
        replace(SLEEPS, starved="memory", uninterruptible=(7,)),
    ),
    "throttled by a CPU quota": (4, replace(SLEEPS, cpu_share=0.06, cpu_wait_share=0.94)),
    "crowded out by others": (4, replace(COMPUTES, cpu_share=0.3, starved="a CPU")),
    "a rank of it is stopped": (4, replace(SLEEPS, hindered=(8,), processes=3)),
}

# What is hung, and after how many timeouts it is found.
HUNG = {
    "waiting for a lock": (1, SLEEPS),
    "waiting, with threads that tick": (1, replace(SLEEPS, cpu_share=0.02)),
    "waiting for a dead data loader": (1, replace(SLEEPS, cpu_share=0.1, processes=64)),
    "waiting, while a logger writes a line": (1, replace(SLEEPS, io_bytes_per_s=9e3)),
    "waiting, the GPU idle": (1, replace(SLEEPS, gpus=(IDLE_GPU,))),
    "a stuck collective, all ranks in it": (1, replace(COMPUTES, gpus=(SPINS, SPINS))),
    "a stuck collective that one rank missed": (1, replace(COMPUTES, gpus=(SPINS, IDLE_GPU))),
    "a stuck collective, waited for asleep": (1, replace(SLEEPS, gpus=(SPINS,))),
    "asleep on a host that starves others": (1, replace(SLEEPS, starved="a CPU")),
    "an endless loop": (2, COMPUTES),
    "an endless loop that writes": (4, replace(COMPUTES, io_bytes_per_s=1e6)),
    "in the kernel for good": (4, replace(SLEEPS, uninterruptible=(7,))),
    "a GPU at full power for ever": (4, replace(SLEEPS, gpus=(TRAINS,))),
}


@pytest.mark.parametrize(("worth", "seen"), SLOW.values(), ids=SLOW)
def test_slow_is_left_alone(worth: int, seen: Activity) -> None:
    """Whatever may be work gets more time, is looked at again soon, and not for ever."""
    early = judge(TIMEOUT_S, JUST_OVER_S, seen)
    late = judge(TIMEOUT_S, worth * TIMEOUT_S - 1, seen)
    over_time = judge(TIMEOUT_S, worth * TIMEOUT_S, seen)

    assert not early.kill
    assert 0 < early.extra_s <= window_s(TIMEOUT_S)
    assert not early.excused
    assert (late.kill, late.extra_s) == (False, 1.0)
    assert over_time.kill


@pytest.mark.parametrize(("worth", "seen"), HUNG.values(), ids=HUNG)
def test_hung_is_found(worth: int, seen: Activity) -> None:
    """A hang is called one at once where that is proven, and at its bound where it is not."""
    assert judge(TIMEOUT_S, worth * TIMEOUT_S, seen).kill
    assert not judge(TIMEOUT_S, worth * TIMEOUT_S - 1, seen).kill


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(SLEEPS, stopped=(7, 8)), "kill -CONT 7 8"),
        (replace(SLEEPS, traced=(7,)), "halted by a debugger (pid 7)"),
        (replace(SLEEPS, frozen=True), "its cgroup is frozen"),
        (replace(COMPUTES, stopped=(7,), gpus=(SPINS,)), "stopped by a signal (pid 7)"),
    ],
)
def test_whoever_is_kept_from_running_is_never_hung(seen: Activity, words: str) -> None:
    """However long the silence, it does not count, and the reason says what to do."""
    verdict = judge(TIMEOUT_S, 1e9, seen)

    assert (verdict.kill, verdict.extra_s, verdict.excused) == (False, LOOK_AGAIN_S, True)
    assert words in verdict.reason


@pytest.mark.parametrize(
    ("timeout_s", "window"), [(1.0, 2.0), (8.0, 2.0), (60.0, 15.0), (120.0, 30.0), (1800.0, 30.0)]
)
def test_idle_must_be_seen_for_a_whole_window(timeout_s: float, window: float) -> None:
    """Less than a window proves nothing; the rest of it is waited for, then it is a hang."""
    short = replace(SLEEPS, window_s=window / 2)

    assert window_s(timeout_s) == window
    verdict = judge(timeout_s, timeout_s, short)
    assert (verdict.kill, verdict.extra_s) == (False, window / 2)
    assert judge(timeout_s, timeout_s + window / 2, replace(SLEEPS, window_s=window)).kill


def test_short_windows_do_not_go_on_for_ever() -> None:
    """When the longest time is over, what was seen has to be enough."""
    assert judge(TIMEOUT_S, 4 * TIMEOUT_S, replace(COMPUTES, window_s=0.1)).kill


def test_a_worker_that_turns_idle_is_found_at_the_next_look() -> None:
    """The stretch that work earned ends with the work."""
    works = replace(SLEEPS, io_bytes_per_s=20e6)

    first = judge(TIMEOUT_S, TIMEOUT_S, works)
    assert judge(TIMEOUT_S, TIMEOUT_S + first.extra_s, SLEEPS).kill


def test_before_the_deadline_there_is_no_hang() -> None:
    """Called too early, it says how long to wait."""
    verdict = judge(TIMEOUT_S, TIMEOUT_S - 3, SLEEPS)

    assert (verdict.kill, verdict.extra_s) == (False, 3.0)


@pytest.mark.parametrize(
    ("seen", "silent_s", "reason"),
    [
        (
            replace(SLEEPS, gpus=(IDLE_GPU,)),
            300.2,
            (
                "no sign of progress for 300 s, and idle: CPU 0.2 % of a core, no I/O, "
                "GPU 0 % at 70 of 700 W with 0 % memory traffic"
            ),
        ),
        (
            replace(COMPUTES, gpus=(SPINS, gpu(None, None, None))),
            600,
            (
                "no sign of progress for 600 s, but busy, whether with work is not to be "
                "seen: CPU 100.0 % of a core, no I/O, GPU 0 100 % at 120 of 700 W with 0 % memory "
                "traffic, GPU 1 unknown; a worker of which no more is seen gets 2 x 300 s"
            ),
        ),
        (
            replace(COMPUTES, births=2, faults_per_s=800, io_bytes_per_s=2e6),
            400,
            (
                "no sign of progress for 400 s, but working: CPU 100.0 % of a core, "
                "I/O 2 MB/s, 800 page faults/s, 2 new processes"
            ),
        ),
        (
            replace(SLEEPS, births=1, gpus=(gpu(50, None, None),) * 6),
            301,
            (
                "no sign of progress for 301 s, but working: CPU 0.2 % of a core, no I/O, "
                "1 new process, GPU 0 50 %, GPU 1 50 %, GPU 2 50 %, GPU 3 50 %, and 2 more GPUs"
            ),
        ),
    ],
)
def test_the_reason_is_for_people(seen: Activity, silent_s: float, reason: str) -> None:
    """It says how long nothing came, what that means, and what was measured."""
    assert judge(TIMEOUT_S, silent_s, seen).reason == reason


def test_every_row_has_words_for_everything() -> None:
    """No row of the table fails to tell of what another row is about."""
    seen = replace(COMPUTES, stopped=(1,), traced=(2,), hindered=(3,), uninterruptible=(4,))

    assert all(row.words(seen) for row in TABLE)


def test_several_readings_of_a_gpu() -> None:
    """One moment of work in a window is a sign of work; one gap disproves a spin."""
    readings = [SPINS, replace(SPINS, power_w=None, memory_utilization=None), TRAINS]
    unknown = gpu(None, None, None)

    assert use_of(over(readings)) is Use.WORKING
    assert use_of(over([SPINS, gpu(60, 120, 0), SPINS])) is Use.BUSY
    assert use_of(over([SPINS, SPINS])) is Use.SPINNING
    assert over([unknown, unknown]) == unknown
    assert use_of(replace(SPINS, power_limit_w=0.0)) is Use.BUSY


@pytest.mark.parametrize(
    ("pressures", "words"),
    [
        ((0.0, 0.0, 0.0), ""),
        ((None, None, None), ""),
        ((60.0, 5.0, 30.0), ""),
        ((95.0, 0.0, 0.0), "its tasks wait for a CPU 95 % of the time"),
        ((95.0, 12.0, 50.0), "its tasks wait for memory 12 % of the time"),
        ((0.0, None, 50.0), "its tasks wait for disks 50 % of the time"),
    ],
)
def test_starvation(pressures: tuple[float | None, ...], words: str) -> None:
    """High pressure is named; a crowded but working host is not starved."""
    assert starvation(*pressures) == words
