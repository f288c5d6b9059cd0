import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.process import ChildRaised, Options, isolated_process
from supervisor.process.main_process import MainProcess

pytestmark = pytest.mark.usefixtures("unleaked")

FUNCTIONS = """
import os, sys
from supervisor.process import ChildFailed, Options, isolated_process

class Box:
    def __init__(self, value):
        self.value = value

def double(box):
    return Box(2 * box.value)

def fresh():
    return os.getppid(), __name__

"""
GUARDED = """
if __name__ == "__main__":
    with isolated_process(double, Box(21), timeout=60) as child:
        print(child.result().value)
    with isolated_process(fresh, timeout=60) as child:
        parent, name = child.result()
        print(parent == os.getpid(), name)
"""
UNGUARDED = """
with isolated_process(double, Box(21), timeout=60) as child:
    try:
        print(child.result())
    except ChildFailed as error:
        print(error)
"""


def python(*words: str, cwd: Path | None = None, text: str | None = None) -> str:
    """Run Python and return what it printed; fail with its errors when it fails."""
    argv = [sys.executable, *words]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        argv, cwd=cwd, env=env, input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_functions_of_a_script(tmp_path: Path) -> None:
    """Functions and classes of a guarded script work in a fresh interpreter, both ways."""
    (tmp_path / "script.py").write_text(FUNCTIONS + GUARDED)
    assert python("script.py", cwd=tmp_path) == "42\nTrue __mp_main__\n"


def test_functions_of_a_module_run_as_a_script(tmp_path: Path) -> None:
    """The same with `python -m`, and in a folder with names of our own workers."""
    for name in ("call", "launch", "protocol", "pickle_user", "train"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    (tmp_path / "mine.py").write_text(FUNCTIONS + GUARDED)
    assert python("-m", "mine", cwd=tmp_path) == "42\nTrue __mp_main__\n"


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    """A script that would start itself for ever is stopped, and told what to write."""
    (tmp_path / "script.py").write_text(FUNCTIONS + UNGUARDED)
    printed = python("script.py", cwd=tmp_path)
    assert "if __name__ == '__main__':" in printed
    assert printed.count("double in child") == 1


@pytest.mark.parametrize("how", ["-c", "-"])
def test_functions_of_no_file(how: str) -> None:
    """What was typed at a prompt or in a cell exists in no file, and is called in a fork."""
    program = FUNCTIONS + GUARDED
    words, text = (["-c", program], None) if how == "-c" else (["-"], program)
    assert python(*words, text=text) == "42\nTrue __main__\n"


def test_functions_of_a_package_run_as_a_script(tmp_path: Path) -> None:
    """`python -m package` runs a __main__ that no child could import: it is forked."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(FUNCTIONS + GUARDED)
    assert python("-m", "package", cwd=tmp_path) == "42\nTrue __main__\n"


def test_closures_are_forked() -> None:
    """A closure, which no name leads to, is called in a copy of this program."""
    captured = object()
    with isolated_process(lambda: id(captured), timeout=60) as child:
        assert child.result() == id(captured)


def test_what_was_printed_before_a_fork_is_printed_once() -> None:
    """Text that waits in the parent's buffer is not written by the forked child as well."""
    program = "from supervisor.process import isolated_process; print('once', end='')\n"
    program += "with isolated_process(lambda: 1) as child: child.result()"
    assert python("-c", program) == "once"


@pytest.mark.parametrize("function", ["print", "lambda text: print(text)"])
def test_output_is_inherited(function: str) -> None:
    """Without an output file the child prints where its parent does, spawned and forked."""
    program = "from supervisor.process import isolated_process\n"
    program += f"with isolated_process({function}, 'from the child') as child: child.result()"
    assert python("-c", program) == "from the child\n"


def test_a_closure_cannot_be_spawned() -> None:
    """Asked for a fresh interpreter, a closure is refused with the reason."""
    block = isolated_process(lambda: 1, options=Options(start="spawn"))
    with pytest.raises(TypeError, match=r"<lambda> or an argument of it cannot be pickled"):
        block.__enter__()


def test_an_argument_whose_pickling_fails_is_forked() -> None:
    """An argument that raises while it is pickled is no reason to fail: it needs no pickling."""

    class Stubborn:
        def __reduce__(self) -> str:
            raise OSError("never")

        def __len__(self) -> int:
            return 8

    with isolated_process(len, Stubborn(), timeout=60) as child:
        assert child.result() == 8


def fake_torch(*, initialized: bool) -> types.ModuleType:
    """Return what this package may know of torch."""
    torch = types.ModuleType("torch")
    vars(torch)["cuda"] = types.SimpleNamespace(is_initialized=lambda: initialized)
    return torch


def test_no_fork_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CUDA is initialised a closure is refused, with what to do instead; a module works."""
    monkeypatch.setitem(sys.modules, "torch", fake_torch(initialized=True))
    with pytest.raises(RuntimeError, match=r"CUDA is initialised.*Move the function to a module"):
        isolated_process(lambda: 1).__enter__()
    with isolated_process(abs, -1, timeout=60) as child:
        assert child.result() == 1


def test_a_fork_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that is imported, without CUDA, is no reason to refuse."""
    monkeypatch.setitem(sys.modules, "torch", fake_torch(initialized=False))
    with isolated_process(lambda: 1, timeout=60) as child:
        assert child.result() == 1


def test_a_missing_module_in_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module the child cannot import is a failure that names it."""
    (tmp_path / "passing.py").write_text("def work():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import passing  # type: ignore[import-not-found]  # noqa: PLC0415 -- it exists only now

    (tmp_path / "passing.py").unlink()
    with (
        isolated_process(passing.work, timeout=60) as child,
        pytest.raises(ChildRaised, match="No module named 'passing'"),
    ):
        child.result()


INTERRUPTED = """
import os, signal, sys, time
from supervisor.process import Options, isolated_process

def work():
    fd = int(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: os.write(fd, b"asked"))
    os.write(fd, b"%d" % os.getpid())
    time.sleep(1000)

options = Options(start="fork", grace_s=float(sys.argv[2]))
with isolated_process(work, options=options) as child:
    print("inside", flush=True)
    child.result()
"""


@pytest.mark.parametrize(("grace_s", "strikes"), [(0.05, 1), (1000, 2)])
def test_ctrl_c(pipe: Any, grace_s: float, strikes: int) -> None:
    """Ctrl-C while waiting ends the child, with its grace; the second one ends the grace too."""
    argv = [sys.executable, "-c", INTERRUPTED, str(pipe.write_fd), str(grace_s)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    options: dict[str, Any] = {**piped, "text": True}
    with subprocess.Popen(argv, pass_fds=[pipe.write_fd], **options) as parent:
        child = int(pipe.read())
        assert parent.stdout is not None
        assert parent.stdout.readline() == "inside\n"
        parent.send_signal(signal.SIGINT)
        if strikes > 1:
            assert pipe.read() == "asked"
            parent.send_signal(signal.SIGINT)
        assert parent.stderr is not None
        assert "KeyboardInterrupt" in parent.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_forked_child_dies_with_its_parent(pipe: Any, gone: Callable[[int], bool]) -> None:
    """A forked child does not outlive a parent that was killed."""
    argv = [sys.executable, "-c", INTERRUPTED, str(pipe.write_fd), "1000"]
    with subprocess.Popen(argv, pass_fds=[pipe.write_fd]) as parent:
        child = int(pipe.read())
        parent.kill()
    assert gone(child)


def test_a_wait_looks_for_signals_all_the_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C just before the kernel is asked interrupts no call: the next one hears it."""
    asked: list[float] = []

    class Deaf:
        def register(self, *_: int) -> None:
            """Watch nothing."""

        def poll(self, limit_ms: float) -> list[tuple[int, int]]:
            """Note how long nobody would be heard; the third one is that of the end."""
            asked.append(limit_ms)
            return [(0, 0)] if len(asked) == 3 else []

    with subprocess.Popen(["sleep", "1000"]) as process:
        main = MainProcess(process.pid)
        monkeypatch.setattr("supervisor.process.main_process.select.poll", Deaf)
        assert main.wait(1000.0) is False
        monkeypatch.undo()
        main.signal(signal.SIGKILL)
        assert main.wait(30.0)
        main.reap()
        main.close()
    assert asked == [1000, 1000, 1000]
