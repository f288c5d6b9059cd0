"""One item of ten is poison: nine results, one quarantined with the right cause, nothing left."""

from typing import Any

import pytest

from supervisor.core.batch.blame import OUTSIDE_STRIKES

KINDS = {
    "segfault": "signal",
    "leaves": "incomplete",
    "killed": "signal",
    "forks": "exit_code",
    "raises": "poison_item",
    "not_a_number": "poison_item",
}


def nine_of_ten(batch: Any, cause: str) -> None:
    """Check what a person sees when item 3 is poison."""
    batch.is_whole(10, without=("3",))
    assert batch.quarantined() == {"3": cause}
    shown = batch.show()["items"]
    assert (shown["done"], shown["quarantined"], shown["left"]) == (9, 1, 0)
    assert batch.processes() == []


@pytest.mark.parametrize(("entry", "cause"), KINDS.items())
def test_one_poison_item_costs_nobody_else_anything(batch: Any, entry: str, cause: str) -> None:
    """Nine results, one quarantined with its cause, the other nine called once."""
    batch.write(entry)
    code, output = batch.run()
    assert code == 3, output
    nine_of_ten(batch, cause)
    assert set(batch.calls().values()) == {1}
    assert batch.causes() == ["poison_item"]
    tries = 1 + OUTSIDE_STRIKES if entry == "killed" else 2  # a signal may have come from elsewhere
    assert len(batch.noted("struck.txt")) == tries


def test_a_hang_is_ended_and_leaves_its_stack(batch: Any) -> None:
    """By the item's time, the chunk's, or because it is idle and silent: three jobs at once."""
    jobs = [batch.twin(timeout) for timeout in ("item", "chunk", "heartbeat")]
    for job, timeout in zip(jobs, ({"item": 0.5}, {"chunk": 1}, {"heartbeat": 1}), strict=True):
        job.write("hangs", timeouts={"stop": 5} | timeout)
    for job, run in [(job, job.start()) for job in jobs]:
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 3, output
        nine_of_ten(job, "hang")
        assert "hang (fns.py" in job.stack_of(3)


def test_who_is_busy_for_ever_is_ended_by_the_items_time(batch: Any) -> None:
    """A loop that never ends looks alive, but for its item's time."""
    batch.write("spins", timeouts={"stop": 5, "item": 0.5})
    code, output = batch.run()
    assert code == 3, output
    nine_of_ten(batch, "hang")


@pytest.mark.parametrize("entry", ["segfault", "raises"])
def test_three_at_a_time(batch: Any, entry: str) -> None:
    """The others go on while one is tried apart."""
    batch.write(entry, chunks={"size": 4, "parallel": 3})
    code, output = batch.run()
    assert code == 3, output
    nine_of_ten(batch, KINDS[entry])


@pytest.mark.parametrize("entry", ["segfault", "raises", "leaves"])
def test_a_call_of_eight_is_bisected(batch: Any, entry: str) -> None:
    """Halved until it is found, in as few calls as halving takes."""
    batch.write(entry, map={"batch": 8}, chunks={"size": 8})
    code, output = batch.run()
    assert code == 3, output
    nine_of_ten(batch, KINDS[entry])
    assert len(batch.noted("struck.txt")) <= 5  # 8, 4, 2, 1, and once more alone


def test_poison_that_is_to_fail_the_job_does(batch: Any) -> None:
    """chunks.poison: fail ends it at the first; what is done stays done."""
    batch.write("raises", chunks={"size": 4, "poison": "fail"})
    code, output = batch.run()
    assert code == 1, output
    assert batch.causes() == ["poison_item"]
    assert batch.quarantined() == {"3": "poison_item"}
    assert "chunks.poison is fail" in output
    assert batch.processes() == []


def test_two_poison_items_are_told_apart(batch: Any) -> None:
    """Each with its own cause and its own words, for people and for programs."""
    batch.add(
        "def two(item):\n"
        "    if item == '7': raise KeyError('no such thing')\n"
        "    return leaves(item)"
    )
    batch.write("two")
    code, output = batch.run()
    assert code == 3, output
    batch.is_whole(10, without=("3", "7"))
    assert batch.quarantined() == {"3": "incomplete", "7": "poison_item"}
    shown = {one["item"]: one for one in batch.show()["quarantined"]}
    assert "in the midst of item 3" in shown["3"]["reason"]
    assert "KeyError" in shown["7"]["reason"]
    assert "no such thing" in shown["7"]["detail"]
