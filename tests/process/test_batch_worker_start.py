"""How a real batch worker starts: whose modules it sees, and what it says when it cannot begin."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.batch_worker import MAIN_FILE, BatchWorker, said
from workers import lines, messages

ENTRIES = """
import os, sys

def echo(item):
    return item

def where(item):
    return [os.getcwd(), sys.path[0], sys.path]

def spawns(item):
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(whose)

def whose():
    import workers.outputs
    return workers.outputs.__file__
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with entries of the user's own."""
    (tmp_path / "entries.py").write_text(ENTRIES)
    return tmp_path


@pytest.fixture
def worker(folder: Path) -> Iterator[BatchWorker]:
    """Start a worker in it."""
    with BatchWorker(folder) as started:
        yield started


def test_an_entry_that_cannot_be_had_is_reported_once(worker: BatchWorker) -> None:
    """As `unready`, with advice, on the channel and in the log; exit 1."""
    worker.setup("entrys:echo")
    (unready,) = worker.rest()
    assert isinstance(unready, messages.Unready)
    assert unready.failure.kind == "bad_config"
    assert unready.failure.message.endswith("did you mean entries?")
    assert worker.exit_code() == 1
    assert unready.failure.message in worker.logged()
    assert "Traceback" not in worker.logged()


def test_a_broken_module_is_reported_with_its_own_traceback(
    folder: Path, worker: BatchWorker
) -> None:
    """And with nothing of ours in it."""
    (folder / "broken.py").write_text("def handle(item)\n    return 1\n")
    worker.setup("broken:handle")
    (unready,) = worker.rest()
    assert isinstance(unready, messages.Unready)
    assert (unready.failure.kind, unready.failure.type_name) == ("bad_config", "SyntaxError")
    text = unready.failure.traceback
    assert text.index("broken.py") < text.index("def handle(item)") < text.index("SyntaxError")
    assert "workers" not in text.replace(str(folder), "")


def test_a_constructor_that_raises_is_reported(folder: Path, worker: BatchWorker) -> None:
    """With the kind of what it raised."""
    (folder / "broken.py").write_text(
        "class Handle:\n    def __init__(self):\n        raise RuntimeError('CUDA out of memory')\n"
    )
    worker.setup("broken:Handle")
    (unready,) = worker.rest()
    assert isinstance(unready, messages.Unready)
    assert (unready.failure.kind, unready.failure.type_name) == ("cuda_oom", "RuntimeError")


def test_the_path_is_as_if_run_in_the_users_folder(folder: Path) -> None:
    """The job's folder first, and ours last."""
    with BatchWorker(folder, env={"PYTHONPATH": ""}) as worker:
        worker.start("entries:where").do([1])
        where = json.loads(said(worker.hear() for _ in range(2))[1][2])
    home = str(Path(lines.__file__).parents[1])
    assert where[:2] == [str(worker.cwd)] * 2
    assert where[2].count(home) == 1
    assert home not in where[2][:2]
    assert str(MAIN_FILE.parent) not in where[2]


def user_package(folder: Path) -> None:
    """Give the user a package with the name of ours, and a module that needs it."""
    (folder / "workers").mkdir()
    (folder / "workers" / "__init__.py").write_text("raise SystemExit('not this one')\n")
    (folder / "workers" / "tasks.py").write_text("def handle(item):\n    return item\n")
    (folder / "needs.py").write_text("import workers.tasks\n\ndef handle(item):\n    return item\n")


@pytest.mark.parametrize("entry", ["needs:handle", "workers.tasks:handle", "workers:handle"])
def test_a_package_with_our_name_is_explained(folder: Path, entry: str) -> None:
    """A worker starts ours in spite of it, and says what is wrong where theirs is needed."""
    user_package(folder)
    with BatchWorker(folder) as worker:
        worker.setup(entry)
        (unready,) = worker.rest()
        assert isinstance(unready, messages.Unready)
        assert unready.failure.kind == "bad_config"
        assert f"your own package {folder / 'workers'} has the same name" in unready.failure.message
    with BatchWorker(folder) as worker:
        worker.start("entries:echo").do([1])
        assert said(worker.hear() for _ in range(2))[1] == ("done", 1, "1")


def test_an_unknown_verb_is_refused(tmp_path: Path) -> None:
    """With what there is."""
    with BatchWorker(tmp_path, verb="mop") as worker:
        assert worker.exit_code() == 2
        assert worker.logged().startswith("usage:")


def test_a_users_package_that_came_first_gives_way(folder: Path) -> None:
    """A process that has imported theirs already, as a warm one may, starts ours all the same."""
    user_package(folder)
    (folder / "workers" / "__init__.py").write_text("")
    before = (
        "import runpy, sys; sys.path.insert(0, ''); import workers.tasks; sys.argv[1:] = ['map']"
    )
    run = f"runpy.run_path({str(MAIN_FILE)!r}, run_name='__main__')"
    with BatchWorker(folder, command=[sys.executable, "-c", f"{before}; {run}"]) as worker:
        worker.start("entries:echo").do([1])
        assert said(worker.hear() for _ in range(2))[1] == ("done", 1, "1")


def test_a_child_that_the_user_spawns_sees_the_same_package(folder: Path) -> None:
    """Also beside a package of the user's with our name, and without starting another worker."""
    user_package(folder)
    with BatchWorker(folder) as worker:
        worker.start("entries:spawns").do([1])
        whose = json.loads(said(worker.hear() for _ in range(2))[1][2])
        assert Path(whose) == MAIN_FILE.with_name("outputs.py")


def test_without_a_channel_it_says_who_starts_it(tmp_path: Path) -> None:
    """Run by hand it ends, instead of waiting for ever."""
    with BatchWorker(tmp_path, env={"SUPERVISE_CHANNEL_FD": "none"}) as worker:
        assert worker.exit_code() == 1
        assert worker.logged().startswith("this is started by supervise")
