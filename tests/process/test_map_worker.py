"""A real batch worker over its channel: what it says, when, and how it ends."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.batch_worker import BatchWorker, said
from workers import lines, messages

ENTRIES = '''
import ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path
from workers.outputs import output

def echo(item):
    return item

def times(item, factor=1):
    return item * factor

def listed(items):
    return [item * 2 for item in items]

def short(items):
    return items[:-1]

class Adder:
    made = 0
    def __init__(self, start):
        Adder.made += 1
        self.sum = start
    def __call__(self, item):
        self.sum += item
        return [Adder.made, self.sum]

def waits(item):
    """Writes its number to a pipe, and goes on when it may."""
    with open(item["begun"], "w") as begun:
        begun.write("begun")
    with open(item["go"]) as go:
        go.read()
    return item["number"]

def ends(item):
    if item == "exit":
        os._exit(0)
    if item == "sys.exit":
        sys.exit(0)
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "crash":
        ctypes.string_at(0)
    if item == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(20)
    return item

def fails(item):
    if item == "nan":
        return float("nan")
    if item == "out of GPU memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if item == "base":
        raise BaseException("rarely seen")
    if item:
        raise ValueError(f"cannot read {item}")
    return item

def forks(item):
    """Both come back from here."""
    copy = os.fork()
    if copy == 0:
        if item == "raises":
            raise ValueError("in the copy")
        return "copy"
    status = os.waitpid(copy, 0)[1]
    return ["original", os.WEXITSTATUS(status)]

def forks_deaf(item):
    """Copies that wait for ever: SIGTERM ends them, however early it comes."""
    ends = set()
    for _ in range(20):
        copy = os.fork()
        if copy == 0:
            while True:
                time.sleep(100)
        os.kill(copy, signal.SIGTERM)
        ends.add(os.WTERMSIG(os.waitpid(copy, 0)[1]))
    return sorted(ends)

def forks_twice(item):
    """What a copy of a copy has open, beside what it opened itself: no socket."""
    own = os.open(os.devnull, os.O_RDONLY)
    read, write = os.pipe()
    if os.fork() == 0:
        reused = [os.dup(own) for _ in range(100)]  # one has the number that the channel had
        if os.fork() == 0:
            for fd in reused:
                os.fstat(fd)
            fds = []
            for name in os.listdir("/proc/self/fd"):
                try:
                    fds.append(os.readlink(f"/proc/self/fd/{name}"))
                except FileNotFoundError:
                    pass
            os.write(write, b"%d" % sum("socket" in fd for fd in fds))
        os._exit(0)
    os.close(write)
    return os.read(read, 100).decode()

def keeps_running(item):
    process = subprocess.Popen(["sleep", "1000"], close_fds=False)
    return process.pid

def prints(item):
    for _ in range(item):
        print("x" * 1000)
    return item

def half_a_line(item):
    print("before the crash")
    os._exit(9)

def huge(item):
    return "x" * item

def keeps_a_thread(item):
    threading.Thread(target=threading.Event().wait).start()
    return item

def writes(item):
    output(item).write_text(item)
    if item.startswith("bad"):
        raise ValueError(item)
    if item.startswith("nan"):
        return float("nan")
    if item.startswith("never"):
        output("never.txt")
    return sorted(path.name for path in Path("out").rglob("*") if path.is_file())

'''


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


def test_items_are_announced_then_acknowledged(worker: BatchWorker) -> None:
    """Each item in its order: begin, done with its result, and at last `left` with exit 0."""
    worker.start("entries:echo").do(["a.jpg", {"b": [1, None]}, "ü"])
    heard = []
    while ("done", 3, '"\\u00fc"') not in heard:
        heard += said([worker.hear()])
    worker.leave()
    heard += said(worker.rest())
    assert heard == [
        ("begin", 1),
        ("done", 1, '"a.jpg"'),
        ("begin", 2),
        ("done", 2, '{"b":[1,null]}'),
        ("begin", 3),
        ("done", 3, '"\\u00fc"'),
        ("left",),
    ]
    assert worker.exit_code() == 0


def test_a_class_is_constructed_once_with_args(worker: BatchWorker) -> None:
    """What it keeps between calls lasts, across orders too."""
    worker.start("entries:Adder", {"start": 10}).do([1, 2])
    assert said(worker.hear() for _ in range(4))[3] == ("done", 2, "[1,13]")
    worker.do([3], first=3)
    assert said(worker.hear() for _ in range(2)) == [("begin", 3), ("done", 3, "[1,16]")]


def test_a_function_gets_args_with_each_call(worker: BatchWorker) -> None:
    """As keyword arguments, since there is no constructor to give them to."""
    worker.start("entries:times", {"factor": 3}).do([2])
    assert said(worker.hear() for _ in range(2)) == [("begin", 1), ("done", 1, "6")]


def test_a_batch_is_called_with_lists(worker: BatchWorker) -> None:
    """Lists of at most so many, announced together, acknowledged one by one."""
    worker.start("entries:listed").do([1, 2, 3], batch=2)
    assert said(worker.hear() for _ in range(5)) == [
        ("begin", 1, 2),
        ("done", 1, "2"),
        ("done", 2, "4"),
        ("begin", 3),
        ("done", 3, "6"),
    ]


def test_a_batch_of_another_length_fails_whole(worker: BatchWorker) -> None:
    """Nobody could say whose results these are."""
    worker.start("entries:short").do([1, 2], batch=2)
    assert said(worker.hear() for _ in range(2)) == [
        ("begin", 1, 2),
        ("failed", 1, 2, "bad_result"),
    ]


def held(folder: Path, number: int) -> dict[str, object]:
    """Return an item for `waits`, with the pipes that tell of it."""
    pipes = {"begun": str(folder / f"begun{number}"), "go": str(folder / f"go{number}")}
    for pipe in pipes.values():
        os.mkfifo(pipe)
    return {"number": number, **pipes}


def test_nothing_that_is_known_waits_for_a_slow_item(folder: Path, worker: BatchWorker) -> None:
    """While an item is worked on, its announcement and the result before it have been sent."""
    first, second = held(folder, 1), held(folder, 2)
    worker.start("entries:waits").do([first, second])
    for item in (first, second):
        assert Path(str(item["begun"])).read_text() == "begun"
        heard = said(worker.hear() for _ in range(1 if item is first else 2))
        before = [] if item is first else [("done", 1, "1")]
        assert heard == [*before, ("begin", item["number"])]
        assert worker.quiet()
        Path(str(item["go"])).write_text("go")
    assert said([worker.hear()]) == [("done", 2, "2")]


@pytest.mark.parametrize("how", ["leave", "SIGTERM"])
def test_it_leaves_behind_the_call_that_has_begun(
    folder: Path, worker: BatchWorker, how: str
) -> None:
    """The item that runs is finished and acknowledged, the next one is not begun."""
    first = held(folder, 1)
    worker.start("entries:waits").do([first, held(folder, 2)])
    assert Path(str(first["begun"])).read_text() == "begun"
    if how == "leave":
        worker.leave()
    else:
        worker.signal(signal.SIGTERM)
    Path(str(first["go"])).write_text("go")
    assert said(worker.rest()) == [("begin", 1), ("done", 1, "1"), ("left",)]
    assert worker.exit_code() == 0


def test_sigterm_wakes_it_from_waiting(worker: BatchWorker, eventually) -> None:
    """A worker with nothing to do leaves at once."""
    worker.start("entries:echo")
    stat = Path(f"/proc/{worker.process.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")
    worker.signal(signal.SIGTERM)
    assert said(worker.rest()) == [("left",)]
    assert worker.exit_code() == 0


def test_the_runners_end_is_its_end(worker: BatchWorker) -> None:
    """End of stream while it waits, and while it has items: it exits at once, and not as done."""
    worker.start("entries:echo").do(range(100_000))
    worker.socket.close()
    assert worker.exit_code() == 1


def memories(heard: list[messages.Report]) -> list[messages.Memory]:
    """Pick out what was said of the memory."""
    return [report for report in heard if isinstance(report, messages.Memory)]


def test_the_memory_is_not_told_with_every_item(worker: BatchWorker) -> None:
    """Five times a second, and at the end; how many items there are does not matter."""
    worker.start("entries:echo").do(range(2000))
    begun_s = time.monotonic()
    while ("done", 2000, "1999") not in said([worker.hear()]):
        pass
    worker.leave()
    worker.rest()
    heard = [lines.parse_report(line) for line in b"".join(worker.raw).splitlines()]
    assert 2 <= len(memories(heard)) <= 3 + 5 * (time.monotonic() - begun_s)


def test_the_memory_is_told(worker: BatchWorker) -> None:
    """After the first item, and before it leaves; without torch there is no GPU figure."""
    worker.start("entries:echo").do([1])
    assert said(worker.hear() for _ in range(2)) == [("begin", 1), ("done", 1, "1")]
    worker.leave()
    worker.rest()
    heard = [lines.parse_report(line) for line in b"".join(worker.raw).splitlines()]
    told = memories(heard)
    assert [report.items for report in told] == [1, 1]
    assert [report[1:3] for report in told] == [(None, None)] * 2
    assert all(1 << 20 < report.rss_bytes < 1 << 30 for report in told)


@pytest.mark.parametrize(
    ("item", "code"),
    [("exit", 0), ("sys.exit", 0), ("killed", -9), ("crash", -11), ("interrupt", -2)],
)
def test_a_process_that_ends_in_an_item_says_no_more(
    worker: BatchWorker, item: str, code: int
) -> None:
    """The item before is acknowledged, this one announced, and there is no `left`."""
    worker.start("entries:ends").do(["fine", item, "after"])
    assert said(worker.rest()) == [("begin", 1), ("done", 1, '"fine"'), ("begin", 2)]
    assert worker.exit_code() == code


def test_an_exception_fails_its_item_alone(worker: BatchWorker) -> None:
    """With type, message and the user's own frames, in the report and in the log."""
    worker.start("entries:fails").do(["a.jpg", ""])
    begun, failed = worker.hear(), worker.hear()
    assert said([begun, failed]) == [("begin", 1), ("failed", 1, "error")]
    assert said(worker.hear() for _ in range(2)) == [("begin", 2), ("done", 2, '""')]
    assert isinstance(failed, messages.Failed)
    failure = failed.failure
    assert (failure.type_name, failure.message, failure.fatal) == (
        "ValueError",
        "cannot read a.jpg",
        False,
    )
    assert failure.traceback.splitlines()[1].endswith("in fails")
    assert failure.traceback.count("File") == 1
    assert failure.traceback.strip() in worker.logged()
    assert "failed: item 1\n" in worker.logged()


def test_what_is_not_json_says_what_to_do(worker: BatchWorker) -> None:
    """A result that JSON does not have fails its item, and the next one is done."""
    worker.start("entries:fails").do(["nan", "base", ""])
    heard = [worker.hear() for _ in range(6)]
    assert said(heard)[1::2] == [
        ("failed", 1, "bad_result"),
        ("failed", 2, "error"),
        ("done", 3, '""'),
    ]
    assert isinstance(heard[1], messages.Failed)
    assert "return None" in heard[1].failure.message
    assert heard[1].failure.traceback == ""


def test_it_leaves_after_what_it_cannot_survive(worker: BatchWorker) -> None:
    """Out of GPU memory: the failure is fatal, and the process leaves in order, for a fresh one."""
    worker.start("entries:fails").do(["out of GPU memory", ""])
    heard = worker.rest()
    assert said(heard) == [("begin", 1), ("failed", 1, "cuda_oom"), ("left",)]
    assert isinstance(heard[1], messages.Failed)
    assert heard[1].failure.fatal
    assert worker.exit_code() == 0


def test_a_fork_that_comes_back_answers_nothing(worker: BatchWorker) -> None:
    """Whether it returns or raises: one item, one answer, and the copy has ended."""
    worker.start("entries:forks").do(["returns", "raises"])
    assert said(worker.hear() for _ in range(4)) == [
        ("begin", 1),
        ("done", 1, '["original",0]'),
        ("begin", 2),
        ("done", 2, '["original",1]'),
    ]
    assert "ValueError: in the copy" in worker.logged()
    assert "OSError" not in worker.logged()  # nor did it try


def test_a_fork_dies_of_sigterm(worker: BatchWorker) -> None:
    """What means `leave` to the worker ends a pool of the user's, from its first moment on."""
    worker.start("entries:forks_deaf").do([1])
    assert said(worker.hear() for _ in range(2))[1] == ("done", 1, f"[{signal.SIGTERM:d}]")


def test_a_fork_does_not_have_the_channel(worker: BatchWorker) -> None:
    """Nor does it close what it opened under the same number, in a fork of its own."""
    worker.start("entries:forks_twice").do([1])
    assert said(worker.hear() for _ in range(2))[1] == ("done", 1, '"0"')


def test_a_program_left_running_does_not_hold_the_channel(worker: BatchWorker) -> None:
    """The end of the stream is the end of the worker, whatever its children do."""
    worker.start("entries:keeps_running").do([1])
    (_, _, pid) = said(worker.hear() for _ in range(2))[1]
    worker.leave()
    assert said(worker.rest()) == [("left",)]
    os.kill(int(pid), signal.SIGKILL)


def test_what_is_printed_is_the_log(worker: BatchWorker) -> None:
    """A lot of it, and nothing of it on the channel; what was printed before a crash is there."""
    worker.start("entries:prints").do([5000])
    assert said(worker.hear() for _ in range(2)) == [("begin", 1), ("done", 1, "5000")]
    worker.leave()
    worker.rest()
    assert worker.logged().count("x" * 1000 + "\n") == 5000
    with BatchWorker(worker.cwd, env={"PYTHONUNBUFFERED": ""}) as crashing:
        crashing.start("entries:half_a_line").do([1])
        assert crashing.exit_code() == 9
        assert "before the crash\n" in crashing.logged()


def test_results_of_any_size_arrive(worker: BatchWorker) -> None:
    """Of 10 MB; beyond the limit of a line the item fails and says what to do instead."""
    worker.start("entries:huge").do([10_000_000, 17_000_000, 1])
    heard = [worker.hear() for _ in range(6)]
    assert heard[1] == heard[1]._replace(number=1, result=b'"%b"' % (b"x" * 10_000_000))
    assert said(heard[2:]) == [
        ("begin", 2),
        ("failed", 2, "bad_result"),
        ("begin", 3),
        ("done", 3, '"x"'),
    ]
    assert isinstance(heard[3], messages.Failed)
    assert "workers.outputs.output(name)" in heard[3].failure.message


def test_a_thread_that_never_ends_does_not_keep_it(worker: BatchWorker) -> None:
    """Having said `left`, it goes."""
    worker.start("entries:keeps_a_thread").do([1])
    assert said(worker.hear() for _ in range(2))[1] == ("done", 1, "1")
    worker.leave()
    assert said(worker.rest()) == [("left",)]
    assert worker.exit_code() == 0


def test_outputs_are_there_when_the_item_is_acknowledged(folder: Path, worker: BatchWorker) -> None:
    """Not before its call has ended, never of a failed one, and nothing is left beside them."""
    worker.start("entries:writes").do(["a/b.txt", "bad.txt", "nan.txt", "never", "c.txt"])
    heard = [worker.hear() for _ in range(10)]
    assert said(heard)[1::2] == [
        ("done", 1, '["b.txt"]'),  # its own part, under .parts
        ("failed", 2, "error"),
        ("failed", 3, "bad_result"),
        ("failed", 4, "bad_result"),
        ("done", 5, '["b.txt","c.txt"]'),
    ]
    assert isinstance(heard[7], messages.Failed)
    assert heard[7].failure.message == "output 'never.txt' was never written"
    worker.leave()
    worker.rest()
    assert worker.exit_code() == 0
    published = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*")}
    assert published == {"a", "a/b.txt", "c.txt"}
    assert (folder / "out/a/b.txt").read_text() == "a/b.txt"
