"""A batch job is stopped, and the same command is given again; items come and go meanwhile."""

import signal
from collections import Counter
from typing import Any

import pytest


def started(batch: Any, eventually: Any, items: int = 200) -> Any:
    """A run of a slow job that has done some items."""
    batch.items(range(1, items + 1))
    batch.write("slow", chunks={"size": 4, "parallel": 2})
    run = batch.start()
    eventually(lambda: len(batch.lines()) > 2, 20)
    return run


def test_ctrl_c_ends_it_after_the_call_that_it_is_in(batch: Any, eventually: Any) -> None:
    """Exit 75; no item was called in vain; the same command does the rest and nothing twice."""
    run = started(batch, eventually, 40)
    output = batch.job.stop(run)
    assert run.returncode == 75, output
    done = batch.done()
    assert 2 < len(done) < 40
    assert Counter(done) == batch.calls()
    assert batch.processes() == []
    code, output = batch.run()
    assert code == 0, output
    batch.is_whole(40)
    assert set(batch.calls().values()) == {1}
    assert batch.causes() == ["stopped", "completed"]


def test_sigterm_is_a_stop_too(batch: Any, eventually: Any) -> None:
    """As systemd sends it."""
    run = started(batch, eventually)
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=20)
    assert run.returncode == 75, output
    assert Counter(batch.done()) == batch.calls()


def test_ctrl_c_twice_kills_at_once(batch: Any, eventually: Any) -> None:
    """Exit 130, also where a call never ends; it is nobody's poison."""
    batch.write("hangs", timeouts={"stop": 50})
    run = batch.start()
    eventually((batch.folder / "struck.txt").exists, 20)
    run.send_signal(signal.SIGINT)
    eventually(lambda: batch.show()["state"] == "stopping", 10)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=20)
    assert run.returncode == 130, output
    assert batch.processes() == []
    shown = batch.show()["items"]
    assert (shown["suspect"], shown["quarantined"]) == (0, 0)
    batch.write("square")
    code, output = batch.run("--continue")
    assert code == 0, output
    batch.is_whole(10)


def test_a_call_that_never_ends_is_killed_when_the_grace_is_over(
    batch: Any, eventually: Any
) -> None:
    """Ctrl-C once: after timeouts.stop it is killed, exit 75, no item to blame."""
    batch.write("hangs", timeouts={"stop": 0.5})
    run = batch.start()
    eventually((batch.folder / "struck.txt").exists, 20)
    output = batch.job.stop(run)
    assert run.returncode == 75, output
    assert batch.show()["items"]["suspect"] == 0
    assert batch.processes() == []


def test_stopped_while_its_workers_get_ready(batch: Any, eventually: Any) -> None:
    """One that loads for ever need not be waited for."""
    batch.add(
        "class Slow:\n"
        "    def __init__(self):\n        begun(0)\n        NEVER.wait()\n"
        "    def __call__(self, item): return 1"
    )
    batch.write("Slow", timeouts={"stop": 50})
    run = batch.start()
    eventually((batch.folder / "begun").exists, 20)
    output = batch.job.stop(run)
    assert run.returncode == 75, output
    assert batch.processes() == []


def test_stopped_while_a_large_source_is_planned(batch: Any, eventually: Any) -> None:
    """At once, and the next run plans again."""
    batch.add(
        "def many():\n"
        "    begun(0)\n    yield from map(str, range(400))\n"
        "    while not os.path.exists('go'): yield '1'\n"
    )
    batch.write(map={"items": "fns:many"})
    run = batch.start()
    eventually((batch.folder / "begun").exists, 20)
    output = batch.job.stop(run)
    assert run.returncode == 75, output
    assert batch.processes() == []
    (batch.folder / "go").touch()
    code, output = batch.run()
    assert code == 0, output
    assert len(batch.lines()) == 400


def test_again_after_the_end_only_new_files_are_done(batch: Any) -> None:
    """Nothing new: nothing to do. A new one: that one. One taken away before it was done: gone."""
    photos = batch.folder / "photos"
    photos.mkdir()
    for name in "abc":
        (photos / f"{name}.txt").write_text(name)
    batch.add(
        "def reads(path):\n"
        "    note('called.txt', f'{path} {os.getpid()}')\n"
        "    if 'bad' in path: raise ValueError(path)\n"
        "    return open(path).read()"
    )
    batch.write("reads", map={"items": "photos/*.txt"})
    assert batch.run()[0] == 0
    assert batch.run()[0] == 0
    assert len(batch.show()["attempts"]) == 1
    (photos / "bad.txt").write_text("bad")
    (photos / "d.txt").write_text("d")
    assert batch.run()[0] == 3
    assert batch.quarantined() == {"photos/bad.txt": "poison_item"}
    (photos / "bad.txt").unlink()
    (photos / "a.txt").unlink()
    code, output = batch.run()
    assert code == 0, output
    shown = batch.show()["items"]
    assert (shown["done"], shown["gone"], shown["quarantined"]) == (4, 1, 0)
    assert sorted(one["result"] for one in batch.lines()) == list("abcd")
    assert batch.calls()["photos/a.txt"] == 1


def test_quarantined_items_are_tried_again_when_a_person_says_so(batch: Any) -> None:
    """A plain run leaves them alone; `retry --items quarantined` does them, and only them."""
    batch.write("raises")
    assert batch.run()[0] == 3
    tries = len(batch.noted("struck.txt"))
    assert batch.run()[0] == 3
    assert len(batch.noted("struck.txt")) == tries
    fixed = (batch.folder / "fns.py").read_text().replace("if str(item) == bad:", "if False:")
    (batch.folder / "fns.py").write_text(fixed)
    output = batch.job.ask("retry", "batch", "--items", "quarantined")
    batch.is_whole(10)
    assert batch.calls() == Counter([str(number) for number in range(1, 11)])
    assert not (batch.out / "quarantine.jsonl").exists(), output


@pytest.mark.parametrize("harm", ["shortened", "a folder", "grown"])
def test_results_that_are_changed_while_it_runs(batch: Any, eventually: Any, harm: str) -> None:
    """It ends in words; nothing is written into what somebody else put there."""
    run = started(batch, eventually)
    file = batch.out / "results.jsonl"
    kept = file.read_bytes()
    if harm == "shortened":
        file.write_bytes(b"")
    elif harm == "grown":
        with file.open("ab") as more:
            more.write(b"mine\n")
    else:
        file.rename(batch.out / "away.jsonl")
        if harm == "a folder":
            file.mkdir()
    output, _ = run.communicate(timeout=20)
    assert "Traceback" not in output, output
    assert run.returncode in {1, 3}, output
    assert "results.jsonl" in output
    assert batch.processes() == []
    if harm == "grown":
        return
    code, output = batch.run()
    assert code == 3, output
    if harm == "a folder":
        file.rmdir()
    away = batch.out / "away.jsonl"
    content = away.read_bytes() if away.exists() else kept
    file.write_bytes(content)
    again = batch.start()
    eventually(lambda: len(batch.lines()) > content.count(b"\n") or again.poll() is not None, 20)
    output = batch.job.stop(again)
    assert len(set(batch.done())) == len(batch.done()), output
