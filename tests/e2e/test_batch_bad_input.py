"""What a person may get wrong, and what a function may do wrong: words, not a stack trace."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20


@pytest.mark.parametrize(
    ("entry", "said"),
    [("fns:no_such", "no_such"), ("no_such_module:f", "no_such_module"), ("broken:f", "broken.py")],
)
def test_an_entry_that_cannot_be_had_ends_the_job_at_once(
    batch: Any, entry: str, said: str
) -> None:
    """One worker, cause bad_config, the words that Python has for it."""
    (batch.folder / "broken.py").write_text("def f(:\n")
    batch.write(map={"entry": entry})
    code, output = batch.run()
    assert code == 1, output
    assert batch.causes() == ["bad_config"]
    assert said in output
    assert batch.processes() == []


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ("photos/*.jpg", "there is no folder"),
        ("*.jpg", "no file matches"),
        ("bad.jsonl", "bad.jsonl:2"),
        ("fns:no_such", "no_such"),
    ],
)
def test_items_that_cannot_be_read_hold_the_job(batch: Any, items: str, said: str) -> None:
    """No worker is started; the words say where it is; the same command goes on."""
    (batch.folder / "bad.jsonl").write_text('{"a": 1}\n{"a": \n')
    batch.write(map={"items": items})
    code, output = batch.run()
    assert code == 3, output
    assert said in output
    assert batch.show()["attempts"] == []


def test_a_listing_that_raises_holds_the_job_with_the_users_own_frames(batch: Any) -> None:
    """Half a list is no list: nothing is planned."""
    batch.add("def lists_badly():\n    yield '1'\n    raise RuntimeError('the shop is shut')")
    batch.write(map={"items": "fns:lists_badly"})
    run = batch.start()
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 3, output
    assert "RuntimeError: the shop is shut" in output
    assert "planner.py" not in output
    assert batch.show()["attempts"] == []


def test_no_items_are_nothing_to_do(batch: Any) -> None:
    """An empty list is done."""
    batch.items([])
    code, output = batch.run()
    assert code == 0, output
    assert batch.show()["items"]["total"] == 0


def test_items_from_a_function(batch: Any) -> None:
    """Whatever it yields is an item; it runs in a child, and what it prints is no item."""
    batch.add(
        "def lists():\n    print('binary', b'\\x00\\xff')\n    yield from map(str, range(1, 8))"
    )
    batch.write(map={"items": "fns:lists"})
    code, output = batch.run()
    assert code == 0, output
    batch.is_whole(7)


def test_a_listing_that_never_ends_is_stopped(batch: Any, eventually: Any) -> None:
    """Ctrl-C while the user's function lists: exit 75, and nothing of it is left."""
    batch.add("def lists():\n    begun(0)\n    NEVER.wait()\n    yield '1'")
    batch.write(map={"items": "fns:lists"})
    run = batch.start()
    eventually((batch.folder / "begun").exists, 20)
    output = batch.job.stop(run)
    assert run.returncode == 75, output
    assert batch.processes() == []


def test_binary_output_of_a_function_is_harmless(batch: Any) -> None:
    """Its log takes it, also beside an error."""
    batch.add(
        "def prints(item):\n"
        "    os.write(1, bytes(range(256)) * 400)\n"
        "    if item == '3': os._exit(3)\n"
        "    return square(item)"
    )
    batch.write("prints")
    code, output = batch.run()
    assert code == 3, output
    batch.is_whole(10, without=("3",))


def test_a_result_that_is_too_long_is_that_items_fault(batch: Any) -> None:
    """20 MB do not cross the channel: quarantined with words, the others are done."""
    batch.add("def huge(item):\n    return 'x' * (20 << 20) if item == '3' else square(item)")
    batch.write("huge")
    code, output = batch.run()
    assert code == 3, output
    batch.is_whole(10, without=("3",))
    assert "too long" in output


@pytest.mark.parametrize("calls", [None, 8])
def test_items_of_a_megabyte(batch: Any, calls: int | None) -> None:
    """More of them than one line of the channel holds, also where a call takes many."""
    lines = "".join(f"{number}{'x' * (MIB - 10)}\n" for number in range(1, 21))
    (batch.folder / "items.txt").write_text(lines)
    batch.add(
        "def length(item):\n"
        "    return [len(one) for one in item] if isinstance(item, list) else len(item)"
    )
    batch.write("length", chunks={"size": 32}, map={"batch": calls} if calls else {})
    code, output = batch.run()
    assert code == 0, output
    assert len(batch.lines()) == 20


def test_an_out_folder_that_cannot_be(batch: Any) -> None:
    """A file stands in its place: held, with words."""
    (batch.folder / "out").write_text("mine")
    code, output = batch.run()
    assert code == 3, output
    assert "out is no folder" in output
    assert (batch.folder / "out").read_text() == "mine"


def test_results_of_before_are_kept(batch: Any) -> None:
    """A person's own results.jsonl is not written into, nor lost."""
    batch.out.mkdir()
    (batch.out / "results.jsonl").write_text("mine\n")
    code, output = batch.run()
    assert code == 0, output
    batch.is_whole(10)
    assert (batch.out / "results.before-1.jsonl").read_text() == "mine\n"
    assert "results.before-1.jsonl" in output


def test_a_package_called_workers_of_the_users_own_is_told(batch: Any) -> None:
    """Ours is started all the same, and who imports from theirs reads why that fails."""
    own = batch.folder / "workers"
    own.mkdir()
    (own / "__init__.py").write_text("")
    (own / "mine.py").write_text("def f(item): return 1\n")
    batch.add("def clashes(item):\n    from workers import mine\n    return mine.f(item)")
    batch.write("square")
    assert batch.run()[0] == 0
    batch.write("clashes", name="clash")
    code, output = batch.run()
    assert code in {1, 3}
    assert "has the same name as supervise's" in batch.job.ask("explain", "clash") + output


def test_a_constructor_that_never_ends_is_a_startup_timeout(batch: Any) -> None:
    """No item is blamed for it."""
    batch.add(
        "class Slow:\n    def __init__(self): NEVER.wait()\n    def __call__(self, item): return 1"
    )
    batch.write("Slow", timeouts={"startup": 0.6, "stop": 5}, restart={"budget": 0})
    code, output = batch.run()
    assert code == 1, output
    assert batch.causes() == ["startup_timeout"]
    assert batch.quarantined() == {}


def test_a_function_that_never_works_does_not_quarantine_everything(batch: Any) -> None:
    """After ten failures of ten it is the function: bad_config, and no item is set aside."""
    batch.items(range(1, 101))
    batch.write("fail")
    code, output = batch.run()
    assert code == 1, output
    assert batch.causes() == ["bad_config"]
    assert batch.quarantined() == {}


def test_json_items_come_as_they_are(batch: Any) -> None:
    """Values of any kind, and the line of the result names the value itself."""
    given = [1, "two", {"k": [3]}, None, True, 1.5, "é\u2028"]
    file = batch.folder / "items.jsonl"
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in given))
    batch.add("def same(item): return item")
    batch.write("same", map={"items": "items.jsonl"})
    code, output = batch.run()
    assert code == 0, output
    assert [one["item"] for one in batch.lines()] == given
    assert [one["result"] for one in batch.lines()] == given


def test_a_folder_that_may_not_be_written(batch: Any) -> None:
    """A read-only place: held, with words."""
    if os.geteuid() == 0:
        batch.write(map={"out": "/proc/no/such/place"})
    else:
        Path(batch.folder / "shut").mkdir(mode=0o500)
        batch.write(map={"out": "shut/out"})
    code, output = batch.run()
    assert code == 3, output
