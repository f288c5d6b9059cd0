"""How long a worker lives: leaks, recycling, isolation; and what it does to its own channel."""

import os
import shutil
from typing import Any

import pytest

from tests.e2e.test_isolation import WITHOUT_CGROUPS

MIB = 1 << 20


def replaced(batch: Any) -> list[dict[str, Any]]:
    """The workers that were replaced, and why."""
    found: list[dict[str, Any]] = batch.events("WorkerReplaced")
    return found


def pids(batch: Any) -> list[int]:
    """The worker of each call, in order."""
    found: list[int] = batch.noted("called.txt")
    return found


def test_a_leak_is_ended_in_time(batch: Any) -> None:
    """20 MiB an item, 100 MiB allowed: replaced well before it could hurt, with the figures."""
    batch.items(range(1, 19))
    batch.add(
        "kept = []\n"
        "def leaks(item):\n"
        "    kept.append(bytearray(os.urandom(4096)) * (20 << 8))\n"
        "    time.sleep(0.21)\n"
        "    note('rss.txt', open('/proc/self/statm').read().split()[1])\n"
        "    return square(item)"
    )
    batch.write("leaks", chunks={"size": 4, "recycle": {"host_growth": "100MiB"}})
    code, output = batch.run()
    assert code == 0, output
    batch.is_whole(18)
    assert set(batch.calls().values()) == {1}
    found = replaced(batch)
    assert 1 <= len(found) <= 4
    for one in found:
        assert one["cause"] == "completed"
        assert "host memory grew by" in one["reason"]
        assert 100 * MIB < one["host_growth_bytes"] < 200 * MIB
    assert max(batch.noted("rss.txt")) * 4096 < 350 * MIB
    assert "MiB" in output


def test_recycled_by_items(batch: Any) -> None:
    """Five items a worker, whatever the chunks are."""
    batch.items(range(1, 21))
    batch.write(chunks={"size": 4, "recycle": {"items": 5}})
    code, output = batch.run()
    assert code == 0, output
    seen = pids(batch)
    assert [seen.count(pid) for pid in dict.fromkeys(seen)] == [5, 5, 5, 5]


def test_recycled_by_age(batch: Any) -> None:
    """Older than it may be, it is replaced after the call that it is in."""
    batch.items(range(1, 31))
    batch.write("slow", chunks={"size": 2, "recycle": {"age": "0.5s"}})
    code, output = batch.run()
    assert code == 0, output
    assert len(set(pids(batch))) > 1
    assert all("chunks.recycle.age" in one["reason"] for one in replaced(batch))
    batch.is_whole(30)


@pytest.mark.parametrize(("isolation", "each"), [("chunk", 3), ("item", 1)])
def test_a_fresh_process_for_each(batch: Any, isolation: str, each: int) -> None:
    """For each chunk, or for each item."""
    batch.items(range(1, 10))
    batch.write(chunks={"size": 3, "isolation": isolation})
    code, output = batch.run()
    assert code == 0, output
    seen = pids(batch)
    assert {seen.count(pid) for pid in seen} == {each}
    batch.is_whole(9)


def test_workers_that_leave_before_their_first_item_are_not_done(batch: Any) -> None:
    """Promise 9: each says that it leaves in order, and none did anything."""
    batch.add(
        "class Leaves:\n"
        "    def __init__(self): os.kill(os.getpid(), signal.SIGTERM)\n"
        "    def __call__(self, item): return square(item)"
    )
    batch.write("Leaves", restart={"budget": 0})
    code, output = batch.run()
    assert code == 1, output
    assert batch.causes() == ["incomplete"]
    assert "left before their first item" in output
    assert batch.quarantined() == {}


def test_a_subprocess_that_outlives_its_item_ends_with_the_worker(batch: Any) -> None:
    """A helper in a session of its own, left at each item: none is left at the end."""
    batch.add(
        "def starts(item):\n"
        "    child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "    note('children.txt', child.pid)\n"
        "    return square(item)"
    )
    batch.write("starts")
    code, output = batch.run()
    assert code == 0, output
    assert len(batch.noted("children.txt")) == 10
    assert batch.processes() == []


def test_a_worker_that_cannot_be_started_is_told(batch: Any) -> None:
    """The folder that it works in is gone: the job says so, and no item is to blame for that."""
    work = batch.folder / "work"
    work.mkdir()
    for name in ("fns.py", "items.txt"):
        (batch.folder / name).rename(work / name)
    with (work / "fns.py").open("a") as file:
        file.write(
            "def last(item):\n    os.path.exists('../work') and os.rename('../work', '../w')\n"
        )
        file.write("    return 1\n")
    batch.write("last", cwd="work", map={"out": str(batch.out)}, restart={"budget": 0})
    batch.write(chunks={"size": 2, "isolation": "chunk"})
    code, output = batch.run()
    assert code == 1, output
    assert batch.causes() == ["spawn_failed"]
    assert batch.done() == ["1", "2"]
    assert batch.show()["items"]["suspect"] == 0
    assert batch.processes() == []


CHANNEL = "int(os.environ['SUPERVISE_CHANNEL_FD'])"
HARMS = {
    "what no worker says": f"os.write({CHANNEL}, b'what is this\\n' * 5000)",
    "a line is longer": f"[os.write({CHANNEL}, b'x' * 65536) for _ in range(400)]",
    "left without a word": f"(os.write({CHANNEL}, b'done 3 0.1 '), os._exit(0))",
    "closed its channel": f"(os.close({CHANNEL}), NEVER.wait())",
    "in the midst of item 3": f"(os.write({CHANNEL}, b'done 99 0.1 1\\n'), os._exit(0))",
}


def test_what_an_item_does_to_the_channel_is_its_own_fault(batch: Any) -> None:
    """The worker is ended, the item that did it quarantined in words, the other nine are done.

    Of five jobs at once, each with another harm.
    """
    runs = []
    for number, (said, harm) in enumerate(HARMS.items()):
        job = batch.twin(f"harm-{number}")
        job.add(f"bad = at('3', lambda item: {harm})")
        job.write("bad")
        runs.append((said, job, job.start()))
    for said, job, run in runs:
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 3, f"{said}: {output}"
        job.is_whole(10, without=("3",))
        assert job.quarantined() == {"3": "incomplete"}, said
        assert said in job.show()["quarantined"][0]["reason"]
        assert len(job.noted("struck.txt")) == 2, said
        assert job.processes() == [], said


def hide_control_groups(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host as a container sees it, where nothing is writable."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("hiding the control groups needs root and unshare")
    plain, script = batch.job.command(), f'{WITHOUT_CGROUPS}; exec "$@"'
    hidden = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    monkeypatch.setattr(batch.job, "command", lambda: [*hidden, *plain])


@pytest.mark.parametrize("hidden", [False, True])
def test_an_item_that_eats_the_memory_is_quarantined(
    batch: Any, monkeypatch: pytest.MonkeyPatch, *, hidden: bool
) -> None:
    """By the kernel where there is a control group, by sampling elsewhere; the cause is one."""
    if hidden:
        hide_control_groups(batch, monkeypatch)
        batch.add("hungry = at('3', lambda item: [bytearray(b'x') * (400 << 20), NEVER.wait()])")
    batch.write("hungry", resources={"memory": "200MiB"})
    code, output = batch.run()
    assert code == 3, output
    batch.is_whole(10, without=("3",))
    assert batch.quarantined() == {"3": "host_memory_limit"}


def test_without_control_groups_a_poison_item_leaves_nothing(
    batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep finds its children."""
    hide_control_groups(batch, monkeypatch)
    batch.write("forks", chunks={"size": 4, "parallel": 2})
    code, output = batch.run()
    assert code == 3, output
    batch.is_whole(10, without=("3",))
    assert batch.processes() == []
