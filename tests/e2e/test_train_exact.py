"""A training that is disturbed ends with the very bits of one that was not.

The faults are inflicted by the training itself at steps drawn from a seed (benchmarks/exact), under
a real `supervise run`. The long form is benchmarks/train_kills.py.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.exact.compare import differences
from benchmarks.exact.faults import KINDS, Course, Fault, drawn
from benchmarks.exact.trial import Toll, Trial

LIMIT_S = 200.0
pytestmark = pytest.mark.timeout(LIMIT_S + 60)  # a busy machine takes a minute for what takes half
# What an attempt that was struck so may be said to have died of. Of several processes, the one that
# lost its peer may be the first to say so.
CAUSES = {"kill": {"signal"}, "hang": {"hang"}, "stop": {"stopped"}, "torn": {"signal"}}


def run(folder: Path, course: Course, faults: list[Fault]) -> tuple[Toll, str, list[Path]]:
    """Run to the end: what it came to, how it is explained, and what is left in memory."""
    with Trial(folder, course, faults) as trial:
        toll = trial.run(LIMIT_S)
        return toll, trial.explained(), trial.left_in_memory()


def disturbed_and_not(folder: Path, course: Course, faults: list[Fault]) -> Toll:
    """Run both beside each other, compare all that they left, and return the disturbed one's."""
    with ThreadPoolExecutor(2) as pool:
        calm = pool.submit(run, folder / "calm", course, [])
        toll, explained, left = run(folder / "struck", course, faults)
        calm_toll, calm_explained, calm_left = calm.result()
    said = f"{faults}\n{toll}\n{explained}"
    assert calm_toll.code == 0, calm_explained
    assert toll.code == 0, said
    assert len(toll.struck) == len(faults), f"not every fault struck: {said}"
    found = differences(folder / "calm", folder / "struck", course)
    assert not found, "\n".join([*found, said])
    assert left + calm_left == [], "the memory tier outlived its job"
    return toll


@pytest.fixture
def seed() -> int:
    """Give another one in each run of the tests; a failure names the faults that it led to."""
    return random.SystemRandom().randrange(1 << 32)


def test_one_process_and_one_fault_of_each_kind(tmp_path, seed):
    """SIGKILL, hang, stop, torn checkpoints and a lost memory tier change no bit of the result."""
    course = Course(steps=100, save_every=15)
    toll = disturbed_and_not(tmp_path, course, drawn(seed, KINDS, course))
    assert toll.runs >= 2, "the stop did not end the command"
    for kind, causes in CAUSES.items():
        assert set(toll.causes) & causes, f"no attempt ended by {kind}: {toll}"
    assert any(".pt" in told for told in toll.struck if told.startswith("torn")), toll.struck


def test_two_processes_and_two_faults(tmp_path, seed):
    """The same by torchrun, where any one of the processes is struck."""
    course = Course(steps=60, save_every=15, processes=2)
    toll = disturbed_and_not(tmp_path, course, drawn(seed, ["kill", "torn"], course))
    assert toll.causes.total() >= 3, toll


def test_the_comparison_sees_a_single_bit(tmp_path):
    """A judge that calls everything the same would prove nothing: each kind of change is found."""
    import torch  # noqa: PLC0415 -- the module above needs it anyway

    course = Course(steps=2, save_every=1)
    for name in ("one", "other"):
        write_run(tmp_path / name, {"weight": torch.zeros(3)}, course)
    assert differences(tmp_path / "one", tmp_path / "other", course) == []
    write_run(tmp_path / "other", {"weight": torch.tensor([0.0, 0.0, -0.0])}, course)
    (tmp_path / "other/out/metrics.jsonl").write_text('{"step": 1}\n{"step": 1}\n{"step": 2}\n')
    with (tmp_path / "other/order-0.jsonl").open("a") as order:
        order.write('{"step": 2, "indices": [5]}\n')
    found = differences(tmp_path / "one", tmp_path / "other", course)
    assert [one.partition(":")[0] for one in found] == [
        "out/model.pt",
        "out/checkpoints/step-000000002/state.pt",
        "metrics.jsonl",
        "metrics.jsonl does not have every step once",
        "order-0.jsonl",
    ]


def write_run(folder: Path, state: dict, course: Course) -> None:
    """Write what a run of so many steps leaves behind."""
    import torch  # noqa: PLC0415 -- as above

    checkpoint = folder / f"out/checkpoints/step-{course.steps:09d}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "out/model.pt")
    torch.save(state, checkpoint / "state.pt")
    steps = range(1, course.steps + 1)
    lines = "".join(f'{{"step": {step}}}\n' for step in steps)
    (folder / "out/metrics.jsonl").write_text(lines)
    order = "".join(f'{{"step": {step}, "indices": [{step}]}}\n' for step in steps)
    (folder / "order-0.jsonl").write_text(order)
